"""Requests to servers that fail: retries, waiting, and how many at once.

Strategy: what may pass by itself (timeouts, resets, 429, 5xx, answers cut in half) is tried again, at the
next server, after a growing wait with jitter or after the time that the server names; what will not pass
(other 4xx) fails at once. Trouble halves the number of requests under way, each success adds a little."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
LONGEST_WAIT = 60.0


class Trouble(Exception):
    """One attempt failed. passing: another attempt may work. wait: seconds that the server asked for."""

    def __init__(
        self, message: str, *, passing: bool, timed_out: bool = False, wait: float | None = None
    ) -> None:
        super().__init__(message)
        self.passing, self.timed_out, self.wait = passing, timed_out, wait


class Limiter:
    """How many requests may be under way: at most `most`, never below 1."""

    def __init__(self, most: int) -> None:
        self.most, self.limit, self.busy = most, float(most), 0
        self.changed = threading.Condition()

    def enter(self) -> None:
        """Wait for a free place and take it."""
        with self.changed:
            self.changed.wait_for(lambda: self.busy < int(self.limit))
            self.busy += 1

    def leave(self, ok: bool) -> None:
        """Give the place back; `ok` False says that the server was in trouble."""
        with self.changed:
            self.busy -= 1
            grown = min(float(self.most), self.limit + 1 / self.limit)
            self.limit = grown if ok else max(1.0, self.limit / 2)
            self.changed.notify_all()


@dataclass
class Retry:
    """attempts: in all. wait, clock: seconds; `sleep` is passed in, so that tests do not wait."""

    attempts: int
    sleep: Callable[[float], None]
    first_wait: float = 0.5
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    def run(self, attempt: Callable[[int], Any], limiter: Limiter) -> Any:
        """The result of `attempt(number)`, tried until it works. Raises the last `Trouble`."""
        for number in range(self.attempts):
            limiter.enter()
            ok = False
            try:
                found = attempt(number)
                ok = True
                return found
            except Trouble as trouble:
                ok = not trouble.passing
                if not trouble.passing or number + 1 == self.attempts:
                    raise
                pause = self._pause(number, trouble)
            finally:
                limiter.leave(ok)
            self.sleep(pause)
        raise ValueError("a retry has at least one attempt")

    def _pause(self, number: int, trouble: Trouble) -> float:
        if trouble.wait is not None:
            return min(trouble.wait, LONGEST_WAIT)
        return float(min(self.first_wait * 2**number, LONGEST_WAIT) * (0.5 + self.rng.random()))


def wait_of(headers: Any) -> float | None:
    """Seconds in a Retry-After header; None for none, or for a date."""
    text = str(headers.get("retry-after", ""))
    try:
        return max(0.0, float(text))
    except ValueError:
        return None
