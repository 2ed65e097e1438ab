"""Open the files that rows name."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

MAX_BYTES = 1 << 29


def open_regular(path: str | Path, limit: int = MAX_BYTES) -> BinaryIO:
    """Open a regular file of bounded size for reading.

    Args:
        path: The file; symbolic links are followed.
        limit: Largest size in bytes.

    Raises:
        OSError: It cannot be opened, is no regular file (a pipe would never end, a device has no size), or is larger
            than the limit; `strerror` says which.
    """
    _check(os.stat(path), limit)  # noqa: PTH116  # as below: a Path is made for nothing
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115
    try:
        _check(os.fstat(file.fileno()), limit)  # another file may have come into its place meanwhile
    except OSError:
        file.close()
        raise
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe without a writer would wait here


def _check(about: os.stat_result, limit: int) -> None:
    if not stat.S_ISREG(about.st_mode):
        raise OSError(None, "it is a folder" if stat.S_ISDIR(about.st_mode) else "it is no regular file")
    if about.st_size > limit:
        raise OSError(None, f"it has {about.st_size} bytes, and the limit is {limit}")
