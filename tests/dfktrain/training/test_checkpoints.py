"""Only checkpoints that were written to the end are used."""

from __future__ import annotations

from pathlib import Path

from dfktrain.training.checkpoints import COMPLETE, last_complete


def test_a_checkpoint_that_was_not_written_to_the_end_is_not_used(tmp_path: Path) -> None:
    for step, whole in ((5, True), (10, True), (15, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if whole:
            (folder / COMPLETE).touch()
    assert last_complete(tmp_path) == tmp_path / "checkpoint-10"
    assert last_complete(tmp_path / "none") is None
