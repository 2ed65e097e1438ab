"""Turn off telemetry and other libraries' progress bars and notices, which would tear ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def quiet_libraries() -> None:
    """Turn off telemetry, progress bars and notices of libraries; commands call this before they load
    anything."""
    for name, value in (
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
    ):
        os.environ.setdefault(name, value)


def wait_briefly() -> None:
    """Let threads that wait for one another sleep soon, so that a busy machine is shared; call before torch is loaded.

    OpenMP lets them spin for long by default, which beside other busy processes made a step of the demo eight to twenty
    times as long; without any spinning a step took 1.6 times as long on idle cores. What the user has set stays."""
    for name, value in (("GOMP_SPINCOUNT", "1000"), ("KMP_BLOCKTIME", "0")):
        os.environ.setdefault(name, value)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Turn transformers' progress bars off for a while; afterwards they are as before."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
