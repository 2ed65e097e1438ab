"""Remember in which file each written row lies, and which left it again, in a byte a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

GONE = 255
"""In the place of a split: the row left its file again."""

_SPLITS = ("train", "validation", "test")


class WrittenRows:
    """Hold the split of each row, by its number from 0 in the order of writing."""

    def __init__(self) -> None:
        self._splits = bytearray()
        self._order: tuple[list[int], list[int]] | None = None

    def __len__(self) -> int:
        return len(self._splits)

    def __getitem__(self, row: int) -> int:
        """Return the place of a row's split in train, validation, test, or `GONE`."""
        return self._splits[row]

    def add(self, split: int) -> None:
        """Take a row that was written."""
        self._splits.append(split)

    def extend(self, splits: Sequence[int]) -> None:
        """Take many rows that were written."""
        self._splits += bytes(splits)

    def remove(self, places: Sequence[int]) -> None:
        """Forget the rows at these places (from 0) of the training file, which left it again."""
        import numpy

        for row in numpy.flatnonzero(self.codes() == 0)[list(places)]:
            self._splits[row] = GONE

    def reorder(self, order: tuple[list[int], list[int]]) -> None:
        """Take the final order: numbers of the rows in training and in validation; all others left."""
        self._splits = bytearray([GONE]) * len(self._splits)
        self._order = order
        for split, rows in enumerate(order):
            for row in rows:
                self._splits[row] = split

    def codes(self) -> NDArray[Any]:
        """Return the split of every row."""
        import numpy

        return numpy.frombuffer(bytes(self._splits), numpy.uint8)

    def gone(self) -> NDArray[Any] | None:
        """Return of each row whether it left its file again; None if none did."""
        return self.codes() == GONE if GONE in self._splits else None

    def is_divided(self) -> bool:
        """Return whether more than one file holds rows."""
        return len(set(self._splits) - {GONE}) > 1

    def places(self) -> Callable[[int], str]:
        """Return a function: row -> where it stands, such as "train.jsonl:7"."""
        import numpy

        codes = self.codes()
        lines = numpy.zeros(len(codes), numpy.int64)
        for split in range(len(_SPLITS)):
            rows = numpy.flatnonzero(codes == split)
            if self._order is not None and len(rows):
                rows = numpy.array(self._order[split])
            lines[rows] = numpy.arange(1, len(rows) + 1)

        def place(row: int) -> str:
            split = self._splits[row]
            return "a row that was left out" if split == GONE else f"{_SPLITS[split]}.jsonl:{lines[row]}"

        return place
