"""Other libraries' notices and progress bars, which would tear ours, kept away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def quiet_libraries() -> None:
    """No telemetry, and no library notices among our lines; called by commands before anything is loaded."""
    for name, value in (
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
    ):
        os.environ.setdefault(name, value)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Switch transformers' progress bars off for a while, and back on where they were on."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
