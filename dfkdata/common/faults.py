"""What a command says when the machine or the user stops it.

A full disk, a limit, a missing permission or a signal is nobody's bug: the command ends with one message that says
what stays and which command goes on, and with an exit status that programs understand (2, or 128 + signal).

Guarantees:
    - SIGTERM and SIGHUP unwind a command as Ctrl-C does: files are closed, locks freed, nothing is half moved.
    - A signal that the caller ignores (nohup, a background job of a shell) stays ignored.
    - A process that this one forks dies of the signal as any other process."""

from __future__ import annotations

import errno
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, ParamSpec

P = ParamSpec("P")

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_WAY_OUT = {
    errno.ENOSPC: "free some space, or name a folder on another disk",
    errno.EDQUOT: "free some space, or name a folder on another disk",
    errno.EFBIG: "raise the limit of the size of a file (ulimit -f), or name a folder on another disk",
    errno.EROFS: "name a folder that can be written",
    errno.EACCES: "name one that you may use, or ask for the permission",
    errno.EPERM: "name one that you may use, or ask for the permission",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENAMETOOLONG: "choose a shorter name",
}


class Stopped(BaseException):
    """A signal ends the command; no `except Exception` on the way holds it.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"stopped by {signal.Signals(number).name}")

    @property
    def status(self) -> int:
        """Return the exit status that shells give a command that a signal ended."""
        return 128 + self.number


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` in the `with` block when SIGINT, SIGTERM or SIGHUP comes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    home = os.getpid()

    def stop(number: int, _: FrameType | None) -> NoReturn:
        if os.getpid() != home:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise Stopped(number)

    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    ours = [n for n in numbers if before[n] in (signal.SIG_DFL, signal.default_int_handler)]
    try:
        for number in ours:
            signal.signal(number, stop)
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def is_of_the_machine(error: OSError) -> bool:
    """Return whether an error comes from the system and not from a program that raises `OSError` itself."""
    return error.errno is not None


def told(error: OSError) -> str:
    """Return an error of the system as a message: where, what, and the way out."""
    where = (
        f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
    )
    what = (error.strerror or os.strerror(error.errno or 0)).rstrip(".")
    way_out = _WAY_OUT.get(error.errno or 0, "")
    return f"{where}{what[:1].lower()}{what[1:]}{'; ' + way_out if way_out else ''}"


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file of a write that fails in the `with` block; the system names it only where a file is opened."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


def leaves(message: str, *, when: str | None = None) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Say what stays, and which command goes on, when the machine or a signal stops a command.

    Args:
        message: The sentence; the command's options may stand in it as {name}.
        when: An option without which nothing stays, and nothing is said.

    Returns:
        A decorator for a command.
    """

    def decorate(command: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(command)
        def run(*args: P.args, **options: P.kwargs) -> None:
            try:
                command(*args, **options)
            except (Stopped, KeyboardInterrupt, OSError) as error:
                if when is None or options.get(when) is not None:
                    error.add_note(message.format(**options))
                raise

        return run

    return decorate
