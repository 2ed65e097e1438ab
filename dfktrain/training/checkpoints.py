"""Mark checkpoints that were written to the end, and find the newest one.

A run that is killed while it writes a checkpoint leaves it without the mark; it is then not resumed from."""

from __future__ import annotations

import json
from pathlib import Path

from dfkdata.common.errors import DataError
from dfkdata.common.json_files import read_json, write_bytes

COMPLETE = "complete"
"""File in a checkpoint's folder that marks it as whole."""


def mark_complete(checkpoint: Path, tokens: int, scored: int) -> None:
    """Mark a checkpoint as whole, with the numbers of tokens and of scored tokens trained on so far."""
    write_bytes(checkpoint / COMPLETE, json.dumps({"tokens": tokens, "scored": scored}).encode())


def token_counts(checkpoint: Path) -> tuple[int, int]:
    """Return the numbers of tokens and of scored tokens that were trained on up to a whole checkpoint."""
    counts = read_json(checkpoint / COMPLETE)
    tokens, scored = (counts.get(name) for name in ("tokens", "scored"))
    if not isinstance(tokens, int) or not isinstance(scored, int):
        raise DataError(f"{checkpoint / COMPLETE}: does not hold the numbers of tokens; choose another --out")
    read_json(checkpoint / "trainer_state.json")  # the library's message names neither file nor way out
    return tokens, scored


def last_complete(folder: Path) -> Path | None:
    """Return the newest whole checkpoint in `folder`, None if there is none."""
    checkpoints = [mark.parent for mark in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
