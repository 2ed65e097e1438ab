"""Only one process at a time writes into an output.

How it works: a lock file (filelock) lies beside or in the output while a process writes.

Guarantees:
    - The system frees the lock of a process that was killed; a lock file that was left over blocks nobody.
    - The lock file, and a folder that stayed empty, are removed in the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dfkdata.common.errors import ConfigError

#: The lock's name in an output folder.
LOCK = ".lock"


@contextmanager
def alone(path: Path, work: str = "run", *, else_: str = " or give another --out") -> Iterator[None]:
    """Hold the lock file `path` while the `with` block runs.

    Args:
        path: The lock file; its folder is created if it is missing.
        work: What to call the process that holds the lock, in the message.
        else_: What the user can do instead of waiting, in the message.

    Raises:
        ConfigError: Another process holds the lock, or nothing can be written there.
    """
    from filelock import FileLock, Timeout  # its import takes 40 ms, and most commands lock nothing

    output = path.parent if path.name == LOCK else path.with_suffix("")
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise ConfigError(f"{output}: another {work} writes into it; wait for it{else_}") from error
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written ({error.strerror}); give another --out") from error
    try:
        yield
    finally:
        if os.name != "nt":  # Windows cannot remove an open file; filelock does it there when it releases
            path.unlink(missing_ok=True)  # still held, so that no other process holds a file without a name
        lock.release()
        if path.name == LOCK and path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()
