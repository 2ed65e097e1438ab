"""Golden files: `check` compares, or writes where UPDATE_GOLDEN=1 is set; the diff is to be reviewed."""

from __future__ import annotations

import os
from pathlib import Path

from tests.helpers.places import GOLDEN

__all__ = ["GOLDEN", "check"]


def check(found: bytes, path: Path) -> None:
    """`found` must equal the bytes of `path`."""
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_bytes(found)
    assert found.decode() == path.read_bytes().decode(), (
        f"{path.name} differs; UPDATE_GOLDEN=1 writes it anew"
    )
