"""Which of several processes this one is, as torchrun and accelerate say in the environment."""

from __future__ import annotations

import os


def is_main_process() -> bool:
    """Return whether this process prints and writes files: the only one, or rank 0 of several."""
    return int(os.environ.get("RANK", "0")) == 0


def process_count() -> int:
    """Return the number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))
