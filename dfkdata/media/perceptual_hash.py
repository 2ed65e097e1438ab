"""Hash what pictures look like with a 64-bit dHash (difference hash), in threads while rows flow.

How it works. A JPEG is decoded at an eighth of its size, which is enough for nine by eight cells; each bit
says whether a cell is darker than its right neighbour. Two pictures are near duplicates if at most
`NEAR_BITS` bits differ. Cut into four bands, such hashes agree in at least one, so only those are compared.
An image of one colour has no perceptual hash and is never reported as a near duplicate."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from itertools import compress
from operator import lt
from typing import TYPE_CHECKING, NamedTuple

from dfkdata.media.images import UnreadableImageError, opened, pixels
from dfkdata.media.probe import Picture

if TYPE_CHECKING:
    from concurrent.futures import Future

NEAR_BITS = 3
_BANDS = 4
_WAITING = 64
_KNOWN = 65_536


class DecodedPicture(NamedTuple):
    """The dHash of a picture (0 for one of one colour), or the problem why it could not be decoded."""

    problem: str
    dhash: int


def decode(path: str, *, whole: bool = True, as_stored: bool = False) -> DecodedPicture:
    """Decode a picture and hash it.

    Args:
        path: The picture.
        whole: Whether all pixels are decoded; else only as much as the hash needs.
        as_stored: Whether it is known that opening the picture changes nothing (`Picture.changes`).
    """
    from PIL.Image import Resampling

    try:
        with opened(path, first_frame=True) as image:
            if not whole:
                image.draft("L", (72, 64))
            grey = image.convert("L") if as_stored else pixels(image, "L")
            small = grey.resize((9, 8), Resampling.BILINEAR)
    except UnreadableImageError as error:
        return DecodedPicture(error.problem, 0)
    cells, neighbours = bytearray(small.tobytes()), bytearray(small.tobytes())
    del cells[8::9], neighbours[::9]
    return DecodedPicture("", sum(compress(_BITS, map(lt, cells, neighbours))))


_BITS = tuple(1 << at for at in range(64))


RowPlace = tuple[int, str]
"""Number and source of the row that a picture belongs to."""


class PerceptualHasher:
    """Hash pictures as rows are written, and report each in that order.

    A picture with a digest that was met before is not decoded again.

    Args:
        report: Called with the row, the path and the decoded picture.
    """

    def __init__(self, report: Callable[[RowPlace, str, DecodedPicture], None]) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._report = report
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        self._waiting: deque[tuple[RowPlace, str, Future[DecodedPicture]]] = deque()
        self._known: dict[bytes, Future[DecodedPicture]] = {}

    def add(self, row: RowPlace, path: str, picture: Picture, decoded: DecodedPicture | None = None) -> None:
        """Hand in a picture of a row; if it was decoded elsewhere, it only waits its turn."""
        job = self._known.get(picture.digest) if decoded is None else _done(decoded)
        if job is None:
            job = self._pool.submit(decode, path, whole=False, as_stored=not picture.changes)
            if len(self._known) < _KNOWN:
                self._known[picture.digest] = job
        self._waiting.append((row, path, job))
        while len(self._waiting) > _WAITING:
            self._next()

    def _next(self) -> None:
        row, path, job = self._waiting.popleft()
        self._report(row, path, job.result())

    def finish(self) -> None:
        """Report all pictures that are still waiting."""
        while self._waiting:
            self._next()

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)


def _done(decoded: DecodedPicture) -> Future[DecodedPicture]:
    from concurrent.futures import Future

    job: Future[DecodedPicture] = Future()
    job.set_result(decoded)
    return job


HashedRow = tuple[int, int]
"""A dHash, and the row that its picture belongs to."""


def near_pairs(held: Sequence[HashedRow], train: Sequence[HashedRow]) -> list[tuple[int, int]]:
    """Return (held-out row, training row) for each held-out picture that nearly equals a training picture.

    Args:
        held: The hashes of held-out pictures with their rows.
        train: The same for training pictures.
    """
    first: dict[int, int] = {}
    for dhash, row in train:
        if dhash:
            first.setdefault(dhash, row)
    bands: list[dict[int, list[int]]] = [{} for _ in range(_BANDS)]
    for dhash in first:
        for number, band in enumerate(bands):
            band.setdefault(dhash >> 16 * number & 0xFFFF, []).append(dhash)
    pairs = []
    for dhash, row in held:
        near = _near(dhash, bands) if dhash else None
        if near is not None:
            pairs.append((row, first[near]))
    return pairs


def _near(dhash: int, bands: list[dict[int, list[int]]]) -> int | None:
    return next(
        (
            other
            for number, band in enumerate(bands)
            for other in band.get(dhash >> 16 * number & 0xFFFF, ())
            if (dhash ^ other).bit_count() <= NEAR_BITS
        ),
        None,
    )
