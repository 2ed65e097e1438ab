"""One process at a time in an output.

Strategy: an advisory lock on a file beside or in the output. Promises: the system frees the lock of a process
that was killed, so a file that was left over locks nobody out; a system without file locks (Windows) has
none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dfkdata.common.errors import ConfigError

#: The lock's name in an output folder.
LOCK = ".lock"


@contextmanager
def alone(path: Path, work: str = "run", *, else_: str = " or give another --out") -> Iterator[None]:
    """Within, this process alone holds the lock file `path`, which is removed afterwards with a folder that
    stays empty. work: what the other process would be called. else_: what one can do but wait.

    Raises `ConfigError` where another process holds it, or where nothing can be written."""
    output = path.parent if path.name == LOCK else path.with_suffix("")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written ({error.strerror}); give another --out") from error
    try:
        yield from _held(file, path, f"{output}: another {work} writes into it; wait for it{else_}")
    finally:
        if path.name == LOCK and path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()


def _held(file: BinaryIO, path: Path, trouble: str) -> Iterator[None]:
    with file:
        if not _locked(file.fileno(), path):
            raise ConfigError(trouble)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(descriptor: int, path: Path) -> bool:
    """Take the lock; False where another has it, or has just given it back together with the file."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino
