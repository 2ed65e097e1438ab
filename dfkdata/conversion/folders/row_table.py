"""Reduce rows to numbers of fixed size, and hand them out again in parts that fit into memory.

How it works. A row becomes 52 bytes: hashes of its id, question, answer, media and facts, the number of its labels, and
its place. They are divided by the hash of the id into parts; each part collects in a buffer of its own and goes to one
temporary file when the buffer is full. Two tables with the same number of parts are compared part by part.

Guarantees: memory is the buffers of all parts and one part, however many rows there are."""

from __future__ import annotations

import struct
import tempfile
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIELDS = ("key", "prompt", "answer", "media", "facts", "place", "labels")
"""The numbers of a row; all have 64 bits but the last one, with 32."""

SPLIT_BITS = 61
"""A place is the number of the split, shifted so far, and the row's line in its file."""

_PACK = struct.Struct("<QQQQQQI")
_BUFFER_BYTES = 1 << 14
_PART_BYTES = 16 << 20
_MOST_PARTS = 1024
_WHOLE = 64


def parts_for(size: int) -> int:
    """Return into how many parts the rows of files of `size` bytes are divided."""
    return max(1, min(_MOST_PARTS, -(-size // _PART_BYTES)))


class RowNumbers(NamedTuple):
    """The numbers of one row, in the order of `FIELDS`."""

    key: int
    prompt: int
    answer: int
    media: int
    facts: int
    place: int
    labels: int


def place_of(split: int, line: int) -> int:
    """Return the place of a row."""
    return split << SPLIT_BITS | line


def split_and_line(place: int) -> tuple[int, int]:
    """Return the number of the split and the line of a place."""
    return place >> SPLIT_BITS, place & (1 << SPLIT_BITS) - 1


class RowTable:
    """Hold the numbers of many rows, on disk as soon as they are many."""

    def __init__(self, parts: int) -> None:
        self.parts = parts
        self._buffers = [bytearray() for _ in range(parts)]
        self._chunks: list[list[tuple[int, int]]] = [[] for _ in range(parts)]
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, row: RowNumbers) -> None:
        """Add a row."""
        part = row.key * self.parts >> _WHOLE
        buffer = self._buffers[part]
        buffer += _PACK.pack(*row)
        if len(buffer) >= _BUFFER_BYTES:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="dfk-rows-")  # noqa: SIM115  # closed by __exit__
            self._chunks[part].append((self._file.tell(), len(buffer)))
            self._file.write(buffer)
            buffer.clear()

    def part(self, number: int) -> NDArray[Any]:
        """Return the rows of a part as a structured array with the names of `FIELDS`; call it after all `add`."""
        import numpy

        kinds = [(name, "<u4" if name == "labels" else "<u8") for name in FIELDS]
        data = bytearray()
        for start, size in self._chunks[number]:
            if self._file is not None:
                self._file.seek(start)
                data += self._file.read(size)
        return numpy.frombuffer(bytes(data + self._buffers[number]), dtype=kinds)
