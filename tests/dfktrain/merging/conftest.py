"""A base, an adapter and a probe for the tests of merging."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfktrain.merging import verification
from tests.helpers.adapters import adapter, released
from tests.helpers.models import image_row, write_rows


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verification with three answer tokens a probe."""
    monkeypatch.setattr(verification, "ANSWER", 3)


@pytest.fixture(scope="session")
def base(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random model as released models lie on disk."""
    return released(base_folder, tmp_path_factory.mktemp("released") / "model")


@pytest.fixture(scope="session")
def plain(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on every linear layer, vision tower and merger included."""
    return adapter(base, tmp_path_factory.mktemp("plain") / "adapter")


@pytest.fixture
def probes(tmp_path: Path, pictures: list[str]) -> Path:
    """One row with a picture."""
    return write_rows(tmp_path / "probes.jsonl", [image_row("a", pictures[:1], "a red circle", "x")])
