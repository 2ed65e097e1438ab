"""Compare two tables of rows: which ids one of them lacks, and what differs between rows of one id.

How it works. Rows of one id are paired; where an id stands several times, equal rows first, then those that moved to
another split, then the others in order. What is left over was added or removed.

Guarantees: examples are the first rows in the order of the files, whatever the number of parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dfkdata.conversion.folders.row_table import SPLIT_BITS, RowTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

ASPECTS = ("labels", "prompt", "answer", "media", "facts")
"""What can differ between two rows of one id."""

EXAMPLES = 3
"""Examples of each kind of difference that are kept unless told otherwise."""

NOWHERE = -1
"""In the place of a row that one of the tables lacks."""


class Pair(NamedTuple):
    """An example: the places of a row in both tables, or `NOWHERE`, and which of `ASPECTS` differ."""

    first: int
    second: int
    aspects: tuple[str, ...] = ()


class TableDifference:
    """Sum up what differs, part by part.

    Attributes:
        counts: "same", "added", "removed", "changed", "moved", and each of `ASPECTS` -> rows.
        moves: (split of the first table, split of the second) -> rows.
        labels: (labels before, labels after) -> rows, as numbers.
        examples: "added", "removed", "changed", "moved", "twice in the first", "twice in the second" -> first rows.
        twice: Number of ids that stand more than once in each table.
    """

    def __init__(self, splits: tuple[Sequence[int], Sequence[int]], examples: int) -> None:
        """Take the split of each file of both tables, and how many examples are kept of each kind."""
        self._splits, self._most = splits, examples
        self.counts, self.moves = Counter[str](), Counter[tuple[int, int]]()
        self.labels = Counter[tuple[int, int]]()
        self.examples: dict[str, list[Pair]] = {}
        self.twice = [0, 0]

    def compare(self, first: RowTable, second: RowTable) -> None:
        """Compare two tables of equally many parts."""
        for part in range(first.parts):
            self._compare(first.part(part), second.part(part))

    def _compare(self, first: NDArray[Any], second: NDArray[Any]) -> None:
        import numpy

        several = numpy.union1d(self._repeated(first, 0), self._repeated(second, 1))
        alone = [~numpy.isin(table["key"], several) for table in (first, second)]
        ones, others = (numpy.flatnonzero(mask) for mask in alone)
        _, at, to = numpy.intersect1d(
            first["key"][ones], second["key"][others], assume_unique=True, return_indices=True
        )
        pairs = [(ones[at], others[to]), self._pairs(first, second, alone)]
        here, there = (numpy.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
        self._take_pairs(first[here], second[there])
        self._take_single("removed", numpy.delete(first["place"], here))
        self._take_single("added", numpy.delete(second["place"], there))

    def _repeated(self, table: NDArray[Any], side: int) -> NDArray[Any]:
        """Return the keys that stand more than once, and count them."""
        import numpy

        keys, rows = numpy.unique(table["key"], return_counts=True)
        repeated = keys[rows > 1]
        if len(repeated):
            self.twice[side] += len(repeated)
            order = numpy.argsort(table["place"])
            within = numpy.isin(table["key"][order], repeated)
            found, places = table["key"][order][within], table["place"][order][within]
            _, starts = numpy.unique(found, return_index=True)
            kind = ("twice in the first", "twice in the second")[side]
            again = numpy.delete(places, starts)  # the second of an id tells more than the first
            self._keep(kind, [_alone(int(place), side) for place in numpy.sort(again)[: self._most]])
        return repeated

    def _pairs(
        self, first: NDArray[Any], second: NDArray[Any], alone: list[NDArray[Any]]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Pair the rows of ids that stand several times: equal ones first, then those of equal content, then any."""
        import numpy

        groups: dict[int, tuple[list[int], list[int]]] = {}
        for side, table in enumerate((first, second)):
            rows = numpy.flatnonzero(~alone[side])
            for row in rows[numpy.argsort(table["place"][rows])].tolist():
                groups.setdefault(int(table["key"][row]), ([], []))[side].append(row)
        here: list[int] = []
        there: list[int] = []
        for ones, others in groups.values():
            for with_split in (True, False):
                ones, others = self._matched(first, second, ones, others, with_split, here, there)
            here += ones[: len(others)]
            there += others[: len(ones)]
        return numpy.array(here, int), numpy.array(there, int)

    def _matched(
        self,
        first: NDArray[Any],
        second: NDArray[Any],
        ones: list[int],
        others: list[int],
        with_split: bool,
        here: list[int],
        there: list[int],
    ) -> tuple[list[int], list[int]]:
        """Add pairs of equal content to `here` and `there`; return the rows that are left."""
        waiting: dict[tuple[int, ...], list[int]] = {}
        for row in reversed(others):
            waiting.setdefault(self._content(second[row], 1, with_split), []).append(row)
        left, taken = [], set()
        for row in ones:
            if same := waiting.get(self._content(first[row], 0, with_split)):
                here.append(row)
                there.append(same.pop())
                taken.add(there[-1])
            else:
                left.append(row)
        return left, [row for row in others if row not in taken]

    def _content(self, row: Any, side: int, with_split: bool) -> tuple[int, ...]:
        split = self._splits[side][int(row["place"]) >> SPLIT_BITS] if with_split else 0
        return (split, *(int(row[name]) for name in ASPECTS))

    def _take_pairs(self, first: NDArray[Any], second: NDArray[Any]) -> None:
        import numpy

        differs = {name: first[name] != second[name] for name in ASPECTS}
        changed = numpy.logical_or.reduce([*differs.values()])
        splits = [
            numpy.array(of)[(table["place"] >> numpy.uint64(SPLIT_BITS)).astype(int)]
            for of, table in zip(self._splits, (first, second), strict=True)
        ]
        moved = splits[0] != splits[1]
        self.counts["same"] += int((~changed & ~moved).sum())
        for name, mask in {**differs, "changed": changed, "moved": moved}.items():
            self.counts[name] += int(mask.sum())
        self.moves.update(zip(splits[0][moved].tolist(), splits[1][moved].tolist(), strict=True))
        labels = differs["labels"]
        self.labels.update(
            zip(first["labels"][labels].tolist(), second["labels"][labels].tolist(), strict=True)
        )
        for kind, mask in (("changed", changed), ("moved", moved)):
            rows = numpy.flatnonzero(mask)
            rows = rows[numpy.argsort(first["place"][rows])][: self._most]
            self._keep(kind, [_pair(first, second, differs, row) for row in rows.tolist()])

    def _take_single(self, kind: str, places: NDArray[Any]) -> None:
        import numpy

        self.counts[kind] += len(places)
        side = int(kind == "added")
        self._keep(kind, [_alone(int(place), side) for place in numpy.sort(places)[: self._most]])

    def _keep(self, kind: str, pairs: list[Pair]) -> None:
        known = self.examples.get(kind, []) + pairs
        self.examples[kind] = sorted(known, key=lambda pair: (pair.first, pair.second))[: self._most]


def _pair(first: NDArray[Any], second: NDArray[Any], differs: dict[str, NDArray[Any]], row: int) -> Pair:
    aspects = tuple(name for name in ASPECTS if differs[name][row])
    return Pair(int(first["place"][row]), int(second["place"][row]), aspects)


def _alone(place: int, side: int) -> Pair:
    return Pair(place, NOWHERE) if side == 0 else Pair(NOWHERE, place)
