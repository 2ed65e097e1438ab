"""A manifest hides only files that it lists as a conversion's, and never without a word."""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert, sources
from tests.helpers.rows import caption, write

FOREIGN: list[Any] = [
    {},
    [],
    {"name": "An app", "icons": []},
    {"outputs": "train.jsonl"},
    {"outputs": ["more.jsonl"]},
    {"outputs": [{"path": "other.jsonl", "sha256": "0"}]},
]
NAMES = ("more.jsonl", "quarantine.jsonl", "duplicates.jsonl", "warnings.jsonl")


@pytest.mark.parametrize("manifest", FOREIGN)
@pytest.mark.parametrize("place", ["", "below/"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_manifest_of_somebody_else_hides_no_rows(
    packed: bool, place: str, manifest: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    write(folder / "rows.jsonl", [caption(0)])
    for number, name in enumerate(NAMES, start=1):
        write(folder / place / name, [caption(number)])
    (folder / place / "manifest.json").write_text(json.dumps(manifest))
    source = folder
    if packed:
        source = tmp_path / "in.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for file in sorted(folder.rglob("*.json*")):
                archive.write(file, file.relative_to(folder))
    names = {Path(part.name).name for part in sources.parts(source, store=tmp_path / "store")}
    assert {"rows.jsonl", *NAMES} <= names
    assert ("manifest.json" in names) is (manifest is not FOREIGN[-1])


def test_outputs_of_a_conversion_below_are_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "rows.jsonl", [caption(0), caption(1)])
    convert(tmp_path / "rows.jsonl", tmp_path / "data", format="captions", validation=0)
    write(tmp_path / "data/planted.jsonl", [caption(2)])
    with caplog.at_level(logging.WARNING):
        found = [part.name for part in sources.parts(tmp_path)]
    assert found == ["data/planted.jsonl", "rows.jsonl"]
    (line,) = caplog.messages
    assert "not read, as outputs of an earlier conversion" in line and "data/train.jsonl" in line


def test_a_converted_folder_is_converted_without_what_was_set_aside(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [caption(0), caption(0), {"caption": ""}])
    convert(tmp_path / "rows.jsonl", tmp_path / "data", format="captions", to="sharegpt", validation=0)
    assert {part.name for part in sources.parts(tmp_path / "data")} == {
        "train.jsonl",
        "validation.jsonl",
    }
