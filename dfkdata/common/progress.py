"""One progress line on stderr for everything that takes longer than a second.

On a terminal it is one line, rewritten, with rate and time left, from the first second on. Elsewhere it is a plain
line every ten seconds, so that a log stays readable. Nothing is written to stdout, where results go."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import Self, TextIO

from dfkdata.common.console import shown
from dfkdata.common.status_line import STATUS

#: Seconds between two writes: on a terminal, elsewhere.
TERMINAL, LOG = 0.2, 10.0
#: Seconds before the first write: on a terminal, elsewhere.
FIRST_TERMINAL, FIRST_LOG = 1.0, 2.0


class Progress:
    """Show how far a piece of work is: `bar(done, total, note)`, or `bar(done)` if the total is unknown.

    As a context manager it ends the line, which work without a total needs."""

    def __init__(
        self,
        unit: str,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to measure.

        Args:
            unit: What is counted, in the plural ("rows").
            stream: Where to write; stderr if None.
            clock: Returns seconds.
        """
        self.unit, self.stream, self.clock = unit, stream or sys.stderr, clock
        self.shown = clock()
        self.first: tuple[float, int] | None = None
        self.written = False
        self.total: int | None = None
        self._open = False

    def expect(self, total: int, *, before: int = 0) -> None:
        """Take the total for calls that do not say it; `before` units of it were done earlier."""
        self.total, self.first = total, (self.clock(), before)

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Report that `done` of `total` units are done. The last call shows if anything was shown before."""
        now, terminal = self.clock(), self.stream.isatty()
        total = self.total if total is None else total
        self.first = self.first or (now, done)
        first = FIRST_TERMINAL if terminal else FIRST_LOG
        pause = (TERMINAL if terminal else LOG) if self.written else first
        last = total is not None and done >= total
        if now - self.shown < pause and not (last and self.written):
            return
        self.shown, self.written = now, True
        line = shown(f"  {self.line(done, total, now)}  {note}".rstrip())
        self._open = terminal and not last
        STATUS.clear(hold=self._open)
        if last:
            STATUS.now("finishes")
        if terminal:
            width = shutil.get_terminal_size().columns - 1
            self.stream.write(f"\r{line[:width]:<{width}}" + ("\n" if last else ""))
        else:
            self.stream.write(line + "\n")
        self.stream.flush()

    def line(self, done: int, total: int | None, now: float) -> str:
        """Return `120/480 rows  31.0/s  12 s left`, or `120 rows  31.0/s` without a total.

        Below one a second the time of one stands in place of the rate: `3/40 steps  12.5 s/step`.
        """
        rate = self._rate(done, now)
        speed = left = ""
        if rate > 0:
            speed = f"  {rate:.1f}/s" if rate >= 1 else f"  {1 / rate:.1f} s/{self._one}"
        if total is None:
            return f"{done} {self.unit if done > 1 else self._one}{speed}"
        if rate > 0 and done < total:
            left = f"  {span((total - done) / rate)} left"
        return f"{done}/{total} {self.unit}{speed}{left}"

    @property
    def _one(self) -> str:
        return self.unit.rsplit(" ", 1)[-1].removesuffix("s")

    def _rate(self, done: int, now: float) -> float:
        """Return units a second since the first report: not what was done before, nor the time to load a model."""
        began, before = self.first or (now, done)
        return (done - before) / (now - began) if now > began else 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            self.stream.write("\n")
            self.stream.flush()
            self._open = False
            STATUS.clear()


def span(seconds: float) -> str:
    """Return a time as people say it: `90 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
