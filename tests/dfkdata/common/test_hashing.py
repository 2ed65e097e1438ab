"""Names that come from content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dfkdata.common.hashing import content_id, file_sha256, folder_sha256


def test_a_name_changes_when_a_character_moves_to_the_next_value() -> None:
    assert content_id("ab", "c") != content_id("a", "bc")
    assert content_id("a") == "ca978112ca1bbdca"
    assert len(content_id("\ud800")) == 16


def test_a_folder_is_named_by_names_and_bytes_of_its_weights(tmp_path: Path) -> None:
    (tmp_path / "b.safetensors").write_bytes(b"2")
    (tmp_path / "a.safetensors").write_bytes(b"1")
    (tmp_path / "config.json").write_bytes(b"{}")
    assert folder_sha256(tmp_path) == hashlib.sha256(b"a.safetensors1b.safetensors2").hexdigest()
    assert file_sha256(tmp_path / "config.json") == hashlib.sha256(b"{}").hexdigest()
    (tmp_path / "a.safetensors").rename(tmp_path / "c.safetensors")
    assert folder_sha256(tmp_path) != hashlib.sha256(b"a.safetensors1b.safetensors2").hexdigest()
