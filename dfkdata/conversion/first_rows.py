"""Remember the first row of each post, in about 20 bytes a row, so that a later row can name it.

How it works: keys and places are appended to arrays, and sorted when a key is looked for or a block is full. Sorted
runs of about the same length are merged, so that there are few of them."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from dfkdata.validation.places import PlaceList

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 65_536
"""Keys that wait to be sorted at most."""


class FirstRows:
    """Map keys of 64 bits to the place of the first row that has each, such as "posts.csv:7"."""

    def __init__(self) -> None:
        self._waiting, self._places = array("Q"), PlaceList()
        self._sorted: list[tuple[NDArray[Any], NDArray[Any]]] = []  # keys and their numbers, the oldest first

    def add(self, place: str, *keys: int) -> None:
        """Remember the place of a row under its keys."""
        for key in keys:
            self._waiting.append(key)
            self._places.append(place)
        if len(self._waiting) >= BLOCK:
            self._sort()

    def _sort(self) -> None:
        """Sort the keys that wait, equal ones by their age, and merge them with runs before them that are no longer."""
        import numpy

        keys = numpy.array(self._waiting)
        self._waiting = array("Q")
        numbers = numpy.arange(len(self._places) - len(keys), len(self._places), dtype=numpy.uint32)
        while True:
            order = numpy.argsort(keys, kind="stable")
            keys, numbers = keys[order], numbers[order]
            if not self._sorted or len(self._sorted[-1][0]) > 2 * len(keys):
                break
            older, old_numbers = self._sorted.pop()
            keys, numbers = numpy.concatenate((older, keys)), numpy.concatenate((old_numbers, numbers))
        self._sorted.append((keys, numbers))

    def find(self, key: int) -> str:
        """Return the place of the first row with a key; empty if there is none."""
        import numpy

        if self._waiting:
            self._sort()
        for keys, numbers in self._sorted:
            at = int(numpy.searchsorted(keys, numpy.uint64(key)))
            if at < len(keys) and int(keys[at]) == key:
                return self._places[int(numbers[at])]
        return ""
