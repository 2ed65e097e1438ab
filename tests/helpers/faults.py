"""Run a command in a fork of this process while the machine or a signal stops it.

A fork takes milliseconds where a new interpreter takes a second, so that a whole grid of commands and faults is quick.
The fork's output goes through a pipe, which no limit of files touches."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

NOBODY = 65534
#: Audit events that change a folder; each is a moment at which a process may be killed.
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink")


class Ended(NamedTuple):
    """How a command ended: its exit status, negative for a signal that killed it, and what it said."""

    status: int
    said: str


def run(main: Callable[[], object], words: Sequence[object], *faults: Callable[[], None]) -> Ended:
    """Call a command's `main` in a fork.

    Args:
        main: Ends by `SystemExit`.
        words: The command line.
        *faults: Called in the fork first.
    """
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        _in_fork(main, words, faults, writes)
    os.close(writes)
    with open(reads, "rb") as file:  # noqa: PTH123 (a descriptor)
        said = file.read().decode("utf-8", "replace")
    return Ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said)


def _in_fork(
    main: Callable[[], object], words: Sequence[object], faults: Sequence[Callable[[], None]], writes: int
) -> None:
    status: Any = 70
    try:
        os.dup2(writes, 1)
        os.dup2(writes, 2)
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
        sys.argv = [str(word) for word in words]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.alarm(120)
        for fault in faults:
            fault()
        main()
        status = 0
    except SystemExit as ended:
        status = ended.code
    except BaseException:  # noqa: BLE001 (shown as an interpreter would)
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                status = status or 74
        os._exit(int(status or 0))


# --- faults


def no_large_files(size: int = 0) -> Callable[[], None]:
    """Return a fault: no file may have more than `size` bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def no_bytecode() -> None:
    sys.dont_write_bytecode = True


def as_nobody() -> None:
    """Become a user who owns nothing."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def full_disk(folder: Path, size: int) -> Callable[[], None]:
    """Return a fault: a disk of `size` bytes is mounted at a folder, for the fork alone.

    What the folder held is seen no more. Raises `PermissionError` where mounting is not allowed."""

    def mount() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        new_namespace, private = 0x00020000, 0x4000 | 0x40000  # CLONE_NEWNS; MS_REC | MS_PRIVATE
        calls = (
            lambda: libc.unshare(new_namespace),
            lambda: libc.mount(b"none", b"/", None, private, None),
            lambda: libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode()),
        )
        for call in calls:
            if call() != 0:
                raise OSError(ctypes.get_errno(), "mounting is not allowed here")

    return mount


def can_mount(folder: Path) -> bool:
    """Return whether `full_disk` works here."""
    return run(lambda: None, ["x"], full_disk(folder, 4096)).status == 0


def stdout_full() -> None:
    """A fault: standard output is a full disk."""
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)


def at_change(folder: Path, number: int, sent: int) -> Callable[[], None]:
    """Return a fault: the `number`-th change below a folder sends a signal to the process, before it happens.

    Changes are files opened for writing, and names made, moved or removed; counted from 1."""

    def install() -> None:
        place, seen = os.fspath(folder), 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            if not _is_change(event, arguments, place):
                return
            seen += 1
            if seen == number:
                os.kill(os.getpid(), sent)

        sys.addaudithook(hook)

    return install


def _is_change(event: str, arguments: tuple[Any, ...], place: str) -> bool:
    if event == "open":
        path, _, flags = arguments
        if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return False
        paths: tuple[Any, ...] = (path,)
    elif event in _CHANGES:
        paths = arguments[:2]
    else:
        return False
    return any(
        isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(place) for path in paths
    )
