"""One progress line on stderr for everything that takes longer than two seconds.

On a terminal it is one line, rewritten, with rate and time left. Elsewhere it is a plain line every ten
seconds, so that a log stays readable. Nothing is written to stdout, where results go."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Self, TextIO

from dfkdata.common.console import shown

#: Seconds between two writes: on a terminal, elsewhere; and before the first one.
TERMINAL, LOG, FIRST = 0.2, 10.0, 2.0


class Progress:
    """Show how far a piece of work is: `bar(done, total, note)`, or `bar(done)` if the total is unknown.

    As a context manager it ends the line, which work without a total needs."""

    def __init__(
        self,
        unit: str,
        *,
        before: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to measure.

        Args:
            unit: What is counted ("rows").
            before: Units that were done before; the rate leaves them out.
            stream: Where to write; stderr if None.
            clock: Returns seconds.
        """
        self.unit, self.before, self.stream, self.clock = unit, before, stream or sys.stderr, clock
        self.began = self.shown = clock()
        self.written = False
        self._open = False

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Report that `done` of `total` units are done. The last call shows if anything was shown before."""
        now, terminal = self.clock(), self.stream.isatty()
        pause = (TERMINAL if terminal else LOG) if self.written else FIRST
        last = total is not None and done >= total
        if now - self.shown < pause and not (last and self.written):
            return
        self.shown, self.written = now, True
        line = shown(f"  {self.line(done, total, now - self.began)}  {note}".rstrip())
        self.stream.write(f"\r{line:<78}" + ("\n" if last else "") if terminal else line + "\n")
        self.stream.flush()
        self._open = terminal and not last

    def line(self, done: int, total: int | None, seconds: float) -> str:
        """Return `120/480 rows  31.0/s  12 s left`, or `120 rows  31.0/s` without a total."""
        rate = (done - self.before) / seconds if seconds > 0 else 0.0
        if total is None:
            return f"{done} {self.unit}  {rate:.1f}/s"
        left = f"{span((total - done) / rate)} left" if rate > 0 else ""
        return f"{done}/{total} {self.unit}  {rate:.1f}/s  {left}".rstrip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            self.stream.write("\n")
            self.stream.flush()
            self._open = False


def span(seconds: float) -> str:
    """Return a time as people say it: `90 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
