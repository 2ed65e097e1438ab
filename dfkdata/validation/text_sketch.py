"""Which held-out texts are nearly a training text, in a memory that does not grow with them.

Strategy: a text leaves a sketch, `SLOTS` minima and maxima over hashes of the 16 bytes from each word's
beginning on, letters in lower case and signs as blanks. Two sketches agree in about as many slots as the
texts share such runs; texts that agree in two thirds of them are near. Sketches lie in a file and are
compared block by block: only those that agree in three slots at once are looked at.
Promises: equal texts in equal order give equal answers on every machine; a sketch does not depend on the
texts around it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_WORDS = 8
SLOTS = 12
NEAR_SLOTS = 8
BLOCK_ROWS = 1 << 16
_GAP = b" " * 16  # around each text, so that no run reaches into the next

_FOLD = bytes(ord(chr(at).lower()) if chr(at).isalnum() else 32 for at in range(128)) + bytes(range(128, 256))


class Shared(NamedTuple):
    """number: how many held-out things training has too. held, train: rows of the first example, from 0;
    -1 where there is none."""

    number: int
    held: int = -1
    train: int = -1


_SOURCE = random.Random(20_240)
_RUN = tuple(_SOURCE.getrandbits(64) | 1 for _ in range(3))
_MIX = tuple(_SOURCE.getrandbits(32) | 1 for _ in range(SLOTS // 2))


def sketches(texts: Sequence[str]) -> NDArray[Any]:
    """(rows, SLOTS) of uint32: the sketch of each text, zeros for one of fewer than `MIN_WORDS` words.

    The minimum and the maximum of one hash are two slots: each is at a random run of the text."""
    import numpy

    parts = [text.encode("utf-8", "surrogatepass") for text in texts]
    blob = (_GAP + _GAP.join(parts) + _GAP).translate(_FOLD)
    sizes = numpy.fromiter(map(len, parts), numpy.int64, len(parts)) + len(_GAP)
    starts = numpy.cumsum(sizes) - sizes + len(_GAP)
    gap = numpy.frombuffer(blob, numpy.uint8) == 32
    words = numpy.flatnonzero(gap[:-1] & ~gap[1:]) + 1
    firsts = numpy.searchsorted(words, starts)
    counts = numpy.diff(firsts, append=len(words))
    long = numpy.flatnonzero(counts >= MIN_WORDS)
    found = numpy.zeros((len(parts), SLOTS), numpy.uint32)
    if not len(long):
        return found
    eight = numpy.ndarray(len(blob) - 7, "<u8", blob, strides=(1,))
    runs = eight[words] * numpy.uint64(_RUN[0])
    runs += eight[words + 8] * numpy.uint64(_RUN[1])
    hashes = numpy.append((runs >> numpy.uint64(32)).astype(numpy.uint32), numpy.uint32(0))
    cuts = numpy.append(firsts, len(words))  # the last cut ends the last text, at a run that belongs to none
    for at, factor in enumerate(_MIX):
        mixed = hashes * numpy.uint32(factor)
        found[long, 2 * at] = numpy.minimum.reduceat(mixed, cuts)[long]
        found[long, 2 * at + 1] = numpy.maximum.reduceat(mixed, cuts)[long]
    return found


def near(path: Path, train: NDArray[Any], held: NDArray[Any]) -> Shared:
    """How many held-out texts are near a training one. path: the sketches of all rows, in order. train, held:
    (rows) of bool."""
    count, first = 0, (-1, -1)
    for rows, sketched in _blocks(path, held):
        waiting = _Held(sketched)
        for numbers, block in _blocks(path, train):
            waiting.meet(numbers, block)
        pairs = [(int(row), int(like)) for row, like in zip(rows, waiting.found, strict=True) if like >= 0]
        first = pairs[0] if pairs and not count else first
        count += len(pairs)
    return Shared(count, *first)


def _blocks(path: Path, chosen: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """(rows, sketches) of the chosen rows that have a sketch, `BLOCK_ROWS` rows of the file at a time."""
    import numpy

    with path.open("rb") as file:
        for start in range(0, len(chosen), BLOCK_ROWS):
            data = file.read(4 * SLOTS * BLOCK_ROWS)
            block = numpy.frombuffer(data, numpy.uint32).reshape(-1, SLOTS)
            keep = numpy.flatnonzero(chosen[start : start + len(block)] & (block != 0).any(axis=1))
            if len(keep):
                yield keep + start, block[keep]


class _Held:
    """Held-out sketches that are still to find their like. found: the training row near each, -1 before."""

    def __init__(self, block: NDArray[Any]) -> None:
        import numpy

        self.block = block
        self.found = numpy.full(len(block), -1)
        self._sort()

    def _sort(self) -> None:
        import numpy

        self.open = numpy.flatnonzero(self.found < 0)
        bands = [_band(self.block[self.open], band) for band in _BANDS]
        self.orders = [numpy.argsort(band, kind="stable") for band in bands]
        self.bands = [band[order] for band, order in zip(bands, self.orders, strict=True)]
        self.filters = [_bitmap(band) for band in self.bands]

    def meet(self, rows: NDArray[Any], block: NDArray[Any]) -> None:
        """Compare with a block of training sketches; `rows` are their numbers."""
        for at, band in enumerate(_BANDS):
            values = _band(block, band)
            here, held = self._candidates(at, values)
            near = (self.block[held] == block[here]).sum(axis=1) >= NEAR_SLOTS
            if near.any():
                self.found[held[near][::-1]] = rows[here[near][::-1]]  # reversed, so that the first one stays
                self._sort()

    def _candidates(self, at: int, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """(training, held-out) places of sketches that agree in a band; at most `_PAIRS`, since what is left
        out is met again in another band or block once these are found."""
        import numpy

        here = numpy.flatnonzero(self.filters[at][values >> numpy.uint64(_UPPER)])
        low = numpy.searchsorted(self.bands[at], values[here], "left")
        many = numpy.searchsorted(self.bands[at], values[here], "right") - low
        kept = (many > 0) & (numpy.cumsum(many) <= _PAIRS)
        here, low, many = here[kept], low[kept], many[kept]
        steps = numpy.arange(many.sum()) - numpy.repeat(numpy.cumsum(many) - many, many)
        return numpy.repeat(here, many), self.open[self.orders[at][numpy.repeat(low, many) + steps]]


_BANDS = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11), (0, 3, 6), (1, 4, 9))
_PAIRS = 200_000
_UPPER = 44  # of 64 bits, the upper 20 are looked up in a bitmap before anything is searched


def _band(block: NDArray[Any], slots: tuple[int, int, int]) -> NDArray[Any]:
    """Three slots as one number."""
    import numpy

    first, second, third = (block[:, slot].astype(numpy.uint64) for slot in slots)
    found: NDArray[Any] = first * numpy.uint64(_RUN[0]) + second * numpy.uint64(_RUN[1])
    found += third * numpy.uint64(_RUN[2])
    return found


def _bitmap(band: NDArray[Any]) -> NDArray[Any]:
    """Which upper parts occur."""
    import numpy

    seen = numpy.zeros(1 << 20, bool)
    seen[band >> numpy.uint64(_UPPER)] = True
    return seen
