"""Remember the first row of each post, in about 20 bytes a row, so that a later row can name it.

How it works: keys and places are appended to arrays; full blocks are sorted. A key is only looked for when a row
contradicts an earlier one, which is rare, so finding may take longer than remembering."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from dfkdata.validation.places import PlaceList

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 65_536
"""Keys of a block."""


class FirstRows:
    """Map keys of 64 bits to the place of the first row that has each, such as "posts.csv:7"."""

    def __init__(self) -> None:
        self._keys, self._places = array("Q"), PlaceList()
        self._sorted: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def add(self, key: int, place: str) -> None:
        """Remember the place of a row under a key."""
        self._keys.append(key)
        self._places.append(place)
        if not len(self._keys) % BLOCK:
            self._sort()

    def _sort(self) -> None:
        import numpy

        block = numpy.frombuffer(self._keys[-BLOCK:], numpy.uint64)
        order = numpy.argsort(block, kind="stable").astype(numpy.uint32)
        self._sorted.append((block[order], order))

    def find(self, key: int) -> str:
        """Return the place of the first row with a key; empty if there is none."""
        import numpy

        for number, (keys, order) in enumerate(self._sorted):
            at = int(numpy.searchsorted(keys, numpy.uint64(key)))
            if at < len(keys) and int(keys[at]) == key:
                return self._places[number * BLOCK + int(order[at])]
        for row in range(len(self._sorted) * BLOCK, len(self._keys)):
            if self._keys[row] == key:
                return self._places[row]
        return ""
