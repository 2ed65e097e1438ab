"""Choose a server for each request, retry what may work later, and limit the requests under way.

How it works: each request goes to the server that has the most room. What may work later (timeouts, resets,
429, 5xx, answers cut in half) is tried again, at another server if there is one, after a growing wait with
jitter or after the time that the server names; other 4xx fail at once. A failure halves the number of
requests under way at that server, and each success adds a little. A server that reports a spent limit gets
nothing new until the time that it names."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from dfkdata.common.credentials import without_keys

#: 520 to 530 are a proxy's words (Cloudflare's, and 529 Anthropic's) for a server that cannot be reached now.
RETRYABLE_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, *range(520, 531)})
LONGEST_WAIT = 60.0
#: Seconds in which no server has taken a connection, after which the run ends.
REFUSED_SECONDS = 5.0
START_SERVER = "no server takes connections any more: start one, then run the same command again to go on"


class RequestFailed(Exception):
    """One attempt failed.

    Attributes:
        retryable: Whether another attempt may work.
        timed_out: Whether a time limit was the reason.
        wait: Seconds that the server asks to wait; None if it says nothing.
        refused: Whether no connection was taken.
        filtered: Whether a content filter held the answer back.
        of_question: Whether the server says that the question is too long for it.
        ends_run: If every other request would fail alike, what to do about it; else empty.
    """

    def __init__(
        self, message: str, *, retryable: bool, timed_out: bool = False, wait: float | None = None,
        refused: bool = False, filtered: bool = False, of_question: bool = False, ends_run: str = "",
    ) -> None:  # fmt: skip
        super().__init__(without_keys(message))  # a server may repeat what it was sent
        self.retryable, self.timed_out, self.wait = retryable, timed_out, wait
        self.refused, self.filtered, self.of_question = refused, filtered, of_question
        self.ends_run = ends_run


def late(seconds: float) -> RequestFailed:
    """Return the failure of an attempt that had so many seconds."""
    return RequestFailed(f"no answer in {seconds:.3g} s", retryable=True, timed_out=True)


@dataclass
class Limit:
    """How many requests may be under way at one server: at most `most`, never below 1.

    Nothing new is sent before the clock shows `paused_until`."""

    most: int
    limit: float = 0.0
    busy: int = 0
    paused_until: float = 0.0

    def __post_init__(self) -> None:
        self.limit = float(self.most)

    @property
    def room(self) -> int:
        """Return the number of free places."""
        return int(self.limit) - self.busy

    def done(self, ok: bool) -> None:
        """Count one request less under way; without `ok` the server was in trouble."""
        self.busy -= 1
        grown = min(float(self.most), self.limit + 1 / self.limit)
        self.limit = grown if ok else max(1.0, self.limit / 2)


class Servers:
    """Places for requests at several servers, `most` in all."""

    def __init__(self, count: int, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = [Limit(max(1, -(-most // count))) for _ in range(count)]
        self.most, self.clock = most, clock
        self.changed = threading.Condition()
        self.turn = 0
        self.refusing: dict[int, float] = {}

    def enter(self, avoid: int | None = None, ended: threading.Event | None = None) -> int:
        """Wait for a free place, take it, and return the server's number.

        Args:
            avoid: The server where the last attempt failed; it is taken only if no other accepts requests.
            ended: Set when nothing more is to be asked.

        Raises:
            RequestFailed: Nothing more is to be asked.
        """
        with self.changed:
            while (server := self._free(avoid)) is None or (ended is not None and ended.is_set()):
                if ended is not None and ended.is_set():
                    raise RequestFailed("the run has ended", retryable=False)
                self.changed.wait(self._until_next())
            self.limits[server].busy += 1
            self.turn = server + 1
            return server

    def leave(self, server: int, ok: bool) -> None:
        """Give a place back; without `ok` the server was in trouble."""
        with self.changed:
            self.limits[server].done(ok)
            self.changed.notify_all()

    def heard(self, server: int, *, refused: bool) -> None:
        """Note whether a server took the connection of an attempt."""
        with self.changed:
            if refused:
                self.refusing.setdefault(server, self.clock())
            else:
                self.refusing.pop(server, None)

    def gone(self, *, at_once: bool) -> bool:
        """Return whether no server takes connections: `at_once`, or for `REFUSED_SECONDS`."""
        with self.changed:
            if len(self.refusing) < len(self.limits):
                return False
            return at_once or self.clock() - max(self.refusing.values()) >= REFUSED_SECONDS

    def wake(self) -> None:
        """Let every request that waits for a place look again whether anything more is to be asked."""
        with self.changed:
            self.changed.notify_all()

    def pause(self, server: int, seconds: float) -> None:
        """Send nothing new to a server for some seconds."""
        with self.changed:
            self.limits[server].paused_until = self.clock() + min(seconds, LONGEST_WAIT)

    def _free(self, avoid: int | None) -> int | None:
        """Return the server with the most room, in turn if several have as much; None if there is none."""
        if sum(limit.busy for limit in self.limits) >= self.most:
            return None
        now, count = self.clock(), len(self.limits)
        order = [(self.turn + step) % count for step in range(count)]
        awake = [at for at in order if self.limits[at].paused_until <= now]
        others = [at for at in awake if at != avoid] or awake
        ready = [at for at in others if self.limits[at].room > 0]
        return max(ready, key=lambda at: self.limits[at].room, default=None)

    def _until_next(self) -> float | None:
        """Return seconds until the next pause of a server ends; None if no server pauses."""
        now = self.clock()
        ends = [limit.paused_until - now for limit in self.limits if limit.paused_until > now]
        return min(ends, default=None)


@dataclass
class Retry:
    """Repeat attempts that fail; `sleep` is passed in, so that tests do not wait. None waits, until the run
    ends."""

    attempts: int
    sleep: Callable[[float], None] | None = None
    first_wait: float = 0.5
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    def run(
        self, attempt: Callable[[int], Any], servers: Servers, ended: threading.Event | None = None,
        deadline: float | None = None,
    ) -> Any:  # fmt: skip
        """Return the result of `attempt(server)`, tried until it works. Raises the last `RequestFailed`; none waits
        beyond `deadline` on the monotonic clock."""
        last: int | None = None
        ended = ended or threading.Event()
        for number in range(self.attempts):
            server = last = servers.enter(avoid=last, ended=ended)
            ok = False
            try:
                result = attempt(server)
                ok = True
                servers.heard(server, refused=False)
                return result
            except RequestFailed as failure:
                ok = not failure.retryable
                servers.heard(server, refused=failure.refused)
                at_end = number + 1 == self.attempts
                if failure.refused and servers.gone(at_once=at_end):
                    failure.ends_run = START_SERVER
                if not failure.retryable or failure.ends_run or at_end:
                    raise
                pause = self._pause(number, failure)
                if deadline is not None and time.monotonic() + pause >= deadline:
                    raise
            finally:
                servers.leave(server, ok)
            (self.sleep or ended.wait)(pause)
        raise ValueError("a retry has at least one attempt")

    def _pause(self, number: int, failure: RequestFailed) -> float:
        if failure.wait is not None:
            return min(failure.wait, LONGEST_WAIT)
        return float(min(self.first_wait * 2**number, LONGEST_WAIT) * (0.5 + self.rng.random()))


def wait_of(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds that a refusing server asks to wait: `retry-after-ms`, `retry-after` (seconds or a
    date), else the longest reset of a spent limit; None if it says nothing."""
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = str(headers.get("retry-after", ""))
    seconds = _number(text)
    if seconds is not None:
        return seconds
    if text:
        try:
            return max(0.0, (parsedate_to_datetime(text) - (now or datetime.now(UTC))).total_seconds())
        except (ValueError, TypeError):
            return None
    return spent(headers)


def spent(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until a spent limit is reset, from the `x-ratelimit-remaining-*` and
    `x-ratelimit-reset-*` headers; None if no limit is spent."""
    waits = [
        wait
        for what in ("requests", "tokens")
        if _number(headers.get(f"x-ratelimit-remaining-{what}", "")) == 0
        and (wait := duration(headers.get(f"x-ratelimit-reset-{what}", ""))) is not None
    ]
    return max(waits, default=None)


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")


def duration(text: str) -> float | None:
    """Return the seconds in "1s", "6m0s", "20ms" or "1.5"; None for anything else."""
    text = str(text).strip()
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _number(text: str) -> float | None:
    """Return a number of at least 0; None for anything else."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
