"""Find held-out texts that are nearly a training text, in memory that does not grow with their number.

How it works. Each text leaves a MinHash sketch. Its shingles are the 16 bytes from each word's beginning on,
with letters in lower case and signs as blanks. Where a plain MinHash keeps the minimum of each hash function,
this one keeps the minimum and the maximum, so `SLOTS` slots cost half as many hash functions. Two sketches
agree in about as many slots as the texts share shingles (their Jaccard similarity); texts that agree in two
thirds of the slots are near. The sketches lie in a file and are compared block by block, and only those that
agree in a band of three slots are looked at (locality-sensitive hashing).

Guarantees:
- Equal texts in equal order give equal answers on every machine.
- A sketch does not depend on the texts around it."""

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
_SAMPLE = 20  # of fewer texts, only what more than half of them say is common
_LEAST = 4  # and fewer than these do not tell
_MANY = 5
_GAP = b" " * 16  # around each text, so that no run reaches into the next

_FOLD = bytes(ord(chr(at).lower()) if chr(at).isalnum() else 32 for at in range(128)) + bytes(range(128, 256))


class Shared(NamedTuple):
    """What the held-out splits share with training.

    Attributes:
        number: How many held-out groups, texts or pictures training has too.
        pairs: (held-out row, row that is like it), from 0, the best example first.
    """

    number: int
    pairs: Sequence[tuple[int, int]] = ()


_SOURCE = random.Random(20_240)
_RUN = tuple(_SOURCE.getrandbits(64) | 1 for _ in range(3))
_MIX = tuple(_SOURCE.getrandbits(32) | 1 for _ in range(SLOTS // 2))


def sketches(texts: Sequence[str], common: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return the sketch of each text.

    Args:
        texts: The texts, in order.
        common: Hashes that `common_shingles` returned; these shingles do not count.

    Returns:
        (texts, SLOTS) of uint32; zeros for a text of fewer than `MIN_WORDS` words.
    """
    import numpy

    shingles, firsts = _shingles(texts)
    if common is not None and len(common):
        keep = ~numpy.isin(shingles, common)
        firsts = numpy.append(0, numpy.cumsum(keep))[firsts]
        shingles = shingles[keep]
    counts = numpy.diff(firsts, append=len(shingles))
    long = numpy.flatnonzero(counts >= MIN_WORDS)
    slots = numpy.zeros((len(texts), SLOTS), numpy.uint32)
    if not len(long):
        return slots
    hashes = numpy.append(shingles, numpy.uint32(0))
    cuts = numpy.append(
        firsts, len(shingles)
    )  # the last cut ends the last text, at a run that belongs to none
    for at, factor in enumerate(_MIX):
        mixed = hashes * numpy.uint32(factor)
        slots[long, 2 * at] = numpy.minimum.reduceat(mixed, cuts)[long]
        slots[long, 2 * at + 1] = numpy.maximum.reduceat(mixed, cuts)[long]
    return slots


def common_shingles(texts: Sequence[str], share: float = 0.05) -> NDArray[Any]:
    """Return the shingles of what many texts have in common, such as an instruction.

    Args:
        texts: A sample of the texts.
        share: The share of texts in which a shingle occurs that is common; it occurs in `_MANY` texts at least. Data
            sets of many tasks have many instructions.

    Returns:
        Their hashes, sorted; none if there are too few texts to tell.
    """
    import numpy

    shingles, firsts = _shingles(texts)
    if len(texts) < _LEAST:
        return numpy.zeros(0, numpy.uint32)
    least = max(share * len(texts), _MANY) if len(texts) >= _SAMPLE else 0.5 * len(texts)
    owner = numpy.repeat(numpy.arange(len(texts)), numpy.diff(firsts, append=len(shingles)))
    # asked for counts, `unique` leaves out a look for masks, whose import takes 10 ms
    once, _ = numpy.unique(owner.astype(numpy.uint64) << numpy.uint64(32) | shingles, return_counts=True)
    values, counts = numpy.unique(once & numpy.uint64(0xFFFFFFFF), return_counts=True)
    common: NDArray[Any] = values[counts > least].astype(numpy.uint32)
    return common


def _shingles(texts: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the hash of each word's shingle in all texts together, and each text's first place in it."""
    import numpy

    parts = [text.encode("utf-8", "surrogatepass") for text in texts]
    blob = (_GAP + _GAP.join(parts) + _GAP).translate(_FOLD)
    sizes = numpy.fromiter(map(len, parts), numpy.int64, len(parts)) + len(_GAP)
    starts = numpy.cumsum(sizes) - sizes + len(_GAP)
    gap = numpy.frombuffer(blob, numpy.uint8) == 32
    words = numpy.flatnonzero(gap[:-1] & ~gap[1:]) + 1
    eight = numpy.ndarray(len(blob) - 7, "<u8", blob, strides=(1,))
    runs = eight[words] * numpy.uint64(_RUN[0])
    runs += eight[words + 8] * numpy.uint64(_RUN[1])
    return (runs >> numpy.uint64(32)).astype(numpy.uint32), numpy.searchsorted(words, starts)


def near(path: Path, train: NDArray[Any], held: NDArray[Any]) -> Shared:
    """Count the held-out texts that are near a training text.

    Args:
        path: The file with the sketches of all rows, in order.
        train: (rows,) of bool: the rows of the training split.
        held: (rows,) of bool: the rows of held-out splits.
    """
    pairs: list[tuple[int, int]] = []
    for rows, sketched in _blocks(path, held):
        waiting = _Held(sketched)
        for numbers, block in _blocks(path, train):
            waiting.meet(numbers, block)
        pairs += [(int(row), int(like)) for row, like in zip(rows, waiting.matches, strict=True) if like >= 0]
    return Shared(len(pairs), pairs)


def _blocks(path: Path, chosen: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield (rows, sketches) of chosen rows that have a sketch, from `BLOCK_ROWS` rows at a time."""
    import numpy

    with path.open("rb") as file:
        for start in range(0, len(chosen), BLOCK_ROWS):
            data = file.read(4 * SLOTS * BLOCK_ROWS)
            block = numpy.frombuffer(data, numpy.uint32).reshape(-1, SLOTS)
            keep = numpy.flatnonzero(chosen[start : start + len(block)] & (block != 0).any(axis=1))
            if len(keep):
                yield keep + start, block[keep]


class _Held:
    """Held-out sketches that look for a near one; `matches` holds the training row near each, or -1."""

    def __init__(self, block: NDArray[Any]) -> None:
        import numpy

        self.block = block
        self.matches = numpy.full(len(block), -1)
        self._sort()

    def _sort(self) -> None:
        import numpy

        self.open = numpy.flatnonzero(self.matches < 0)
        bands = [_band(self.block[self.open], band) for band in _BANDS]
        self.orders = [numpy.argsort(band, kind="stable") for band in bands]
        self.bands = [band[order] for band, order in zip(bands, self.orders, strict=True)]
        self.filters = [_bitmap(band) for band in self.bands]

    def meet(self, rows: NDArray[Any], block: NDArray[Any]) -> None:
        """Compare with a block of training sketches, whose row numbers are `rows`."""
        for at, band in enumerate(_BANDS):
            values = _band(block, band)
            here, held = self._candidates(at, values)
            near = (self.block[held] == block[here]).sum(axis=1) >= NEAR_SLOTS
            if near.any():
                self.matches[held[near][::-1]] = rows[
                    here[near][::-1]
                ]  # reversed, so that the first one stays
                self._sort()

    def _candidates(self, at: int, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return (training, held-out) places of sketches that agree in a band, at most `_PAIRS` of them.

        Those left out are met again in another band or block, once these have found a match."""
        import numpy

        here = numpy.flatnonzero(self.filters[at][values >> numpy.uint64(_UPPER)])
        low = numpy.searchsorted(self.bands[at], values[here], "left")
        many = numpy.searchsorted(self.bands[at], values[here], "right") - low
        within = (many > 0) & (numpy.cumsum(many) <= _PAIRS)
        here, low, many = here[within], low[within], many[within]
        steps = numpy.arange(many.sum()) - numpy.repeat(numpy.cumsum(many) - many, many)
        return numpy.repeat(here, many), self.open[self.orders[at][numpy.repeat(low, many) + steps]]


_BANDS = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11), (0, 3, 6), (1, 4, 9))
_PAIRS = 200_000
_UPPER = 44  # of 64 bits, the upper 20 are looked up in a bitmap before anything is searched


def _band(block: NDArray[Any], slots: tuple[int, int, int]) -> NDArray[Any]:
    """Return three slots as one number."""
    import numpy

    first, second, third = (block[:, slot].astype(numpy.uint64) for slot in slots)
    number: NDArray[Any] = first * numpy.uint64(_RUN[0]) + second * numpy.uint64(_RUN[1])
    number += third * numpy.uint64(_RUN[2])
    return number


def _bitmap(band: NDArray[Any]) -> NDArray[Any]:
    """Return which upper parts occur."""
    import numpy

    seen = numpy.zeros(1 << 20, bool)
    seen[band >> numpy.uint64(_UPPER)] = True
    return seen
