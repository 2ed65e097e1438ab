"""The last line of a terminal while a command is silent: what it does, and for how long.

How it works: `run_app` starts it for every command. After a second without output, a thread writes
`  loads the model  3 s` and counts on; whatever the command shows first takes the line away (`clear`). Progress lines
hold it back while they are open.

Guarantees:
    - Only a terminal gets the line; logs, pipes and tests get nothing, and no thread runs.
    - A process that is forked off has no line of its own."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

#: Seconds of silence before the line, and between two writes.
SILENT, TICK = 1.0, 0.5


class StatusLine:
    """The line of one process."""

    def __init__(self) -> None:
        self._stream: TextIO | None = None
        self._home = os.getpid()
        self._text, self._heard, self._since = "", 0.0, 0.0
        self._drawn = 0
        self._held = False
        self._lock = threading.RLock()
        self._end: threading.Event | None = None

    @property
    def is_running(self) -> bool:
        """Return whether silence is filled in this process."""
        return self._end is not None and os.getpid() == self._home

    @property
    def is_held(self) -> bool:
        """Return whether the line stays away, because another one is open."""
        return self._held

    @contextmanager
    def running(self, text: str, stream: TextIO | None = None) -> Iterator[None]:
        """Fill silence in the `with` block, if the stream is a terminal.

        Args:
            text: What is done until `now` says something else.
            stream: Where to write; stderr if None.
        """
        self._stream, self._home = stream or sys.stderr, os.getpid()
        if not self._stream.isatty():
            yield
            return
        self.now(text)
        self._end = threading.Event()
        thread = threading.Thread(target=self._watch, args=(self._end,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()
            self.clear()
            self._end = None

    def now(self, text: str) -> None:
        """Say what is done from now on; an empty text says nothing, while a person or a request is waited for."""
        self.clear(hold=self._held)
        self._text, self._since = text, time.monotonic()

    def clear(self, *, hold: bool = False) -> None:
        """Take the line away, before something else is written.

        Args:
            hold: Whether the line stays away until the next call, because another one is open."""
        if not self.is_running:
            return
        with self._lock:
            if self._drawn and self._stream is not None:
                self._stream.write("\r" + " " * self._drawn + "\r")
                self._stream.flush()
            self._drawn, self._held, self._heard = 0, hold, time.monotonic()

    def _watch(self, end: threading.Event) -> None:
        self._heard = time.monotonic()
        while not end.wait(TICK):
            with self._lock:
                if self._text and not self._held and time.monotonic() - self._heard >= SILENT:
                    self._draw()

    def _draw(self) -> None:
        assert self._stream is not None
        width = shutil.get_terminal_size().columns - 1
        line = f"  {self._text}  {time.monotonic() - self._since:.0f} s"[:width]
        self._stream.write("\r" + line.ljust(min(self._drawn, width)))
        self._stream.flush()
        self._drawn = len(line)


#: The one of this process.
STATUS = StatusLine()


def now(text: str) -> None:
    """Say on the status line what is done from now on; nothing is written where there is no such line.

    Args:
        text: What is done, such as "scores the answers"; empty while the command waits for a person or a request."""
    STATUS.now(text)
