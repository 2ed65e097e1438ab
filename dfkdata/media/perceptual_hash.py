"""How pictures look: a 64-bit difference hash each, computed in threads while rows flow.

Strategy: a JPEG is decoded at an eighth of its size, which is enough for nine by eight cells; each bit says
whether a cell is darker than its right neighbour. Two pictures look the same when at most `NEAR_BITS` bits
differ; cut into four bands, such hashes agree in at least one, so only those are compared. A picture without
any rise (one plain colour) has no look and is like no other."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dfkdata.media.images import UnreadableImage, opened

if TYPE_CHECKING:
    from concurrent.futures import Future

NEAR_BITS = 3
_BANDS = 4
_WAITING = 64
_KNOWN = 65_536


class DecodedPicture(NamedTuple):
    """problem: why the picture could not be decoded, empty when it could. look: its difference hash, 0 for a
    plain one."""

    problem: str
    dhash: int


def decode(path: str, *, whole: bool = True) -> DecodedPicture:
    """Decode the picture at `path`: whole, or only as much as its look needs."""
    from PIL.Image import Resampling

    try:
        with opened(path) as image:
            if not whole:
                image.draft("L", (72, 64))
            image.load()
            small = image.convert("L").resize((9, 8), Resampling.BILINEAR)
    except UnreadableImage as error:
        return DecodedPicture(error.problem, 0)
    cells = small.tobytes()
    rises = (cells[9 * y + x] < cells[9 * y + x + 1] for y in range(8) for x in range(8))
    return DecodedPicture("", sum(1 << at for at, rise in enumerate(rises) if rise))


def _glance(path: str) -> DecodedPicture:
    return decode(path, whole=False)


Whose = tuple[int, str]
"""Number and source of the row that a picture belongs to."""


class PerceptualHasher:
    """Pictures go in as they are written; whose, file name and `DecodedPicture` come out to `tell` in that order.

    A picture that was met before, by its digest, is not decoded again."""

    def __init__(self, tell: Callable[[Whose, str, DecodedPicture], None]) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._tell = tell
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        self._waiting: deque[tuple[Whose, str, Future[DecodedPicture]]] = deque()
        self._known: dict[bytes, Future[DecodedPicture]] = {}

    def add(self, whose: Whose, path: str, digest: bytes) -> None:
        """A picture on its way."""
        job = self._known.get(digest)
        if job is None:
            job = self._pool.submit(_glance, path)
            if len(self._known) < _KNOWN:
                self._known[digest] = job
        self._waiting.append((whose, path, job))
        while len(self._waiting) > _WAITING:
            self._next()

    def _next(self) -> None:
        whose, path, job = self._waiting.popleft()
        self._tell(whose, Path(path).name, job.result())

    def finish(self) -> None:
        """Tell of all that is waiting."""
        while self._waiting:
            self._next()

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)


Placed = tuple[int, int]
"""A look, and the row that it belongs to."""


def near_pairs(held: Sequence[Placed], train: Sequence[Placed]) -> list[tuple[int, int]]:
    """(held-out row, training row) for each held-out look that differs from some training look in at most
    `NEAR_BITS` bits."""
    first: dict[int, int] = {}
    for look, row in train:
        if look:
            first.setdefault(look, row)
    bands: list[dict[int, list[int]]] = [{} for _ in range(_BANDS)]
    for look in first:
        for number, band in enumerate(bands):
            band.setdefault(look >> 16 * number & 0xFFFF, []).append(look)
    pairs = []
    for look, row in held:
        near = _near(look, bands) if look else None
        if near is not None:
            pairs.append((row, first[near]))
    return pairs


def _near(look: int, bands: list[dict[int, list[int]]]) -> int | None:
    return next(
        (
            other
            for number, band in enumerate(bands)
            for other in band.get(look >> 16 * number & 0xFFFF, ())
            if (look ^ other).bit_count() <= NEAR_BITS
        ),
        None,
    )
