"""Sequences whose values lie in a file or are made when they are asked for, so that many rows need little memory.

Guarantees:
    - `StoredLines` holds 24 bytes a line. It reads the file that was opened, also if another one takes its place, and
      says so if that file was written to meanwhile.
    - Values are made anew each time: changing one changes nothing in the sequence."""

from __future__ import annotations

import errno
import os
import stat
import weakref
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, overload

from dfkdata.common import limits
from dfkdata.common.errors import DataError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_WINDOW = 1 << 18
"""Bytes that are read at once where line follows line."""
_APART = 1 << 12
"""Bytes that are read at once elsewhere."""


class MadeSequence(Sequence[T_co]):
    """A sequence of `make(place)` for each of `places`.

    Args:
        make: What makes the value of a place.
        places: The places, such as a range.
    """

    def __init__(self, make: Callable[[int], T_co], places: Sequence[int]) -> None:
        self._make, self._places = make, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> T_co: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[T_co]: ...
    def __getitem__(self, at: int | slice) -> T_co | Sequence[T_co]:
        if isinstance(at, slice):
            return MadeSequence(self._make, self._places[at])
        return self._make(self._places[at])

    def __iter__(self) -> Iterator[T_co]:
        return map(self._make, self._places)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class StoredLines(MadeSequence[T_co]):
    """The values of a file with one value a line, which are read when they are asked for.

    `scan` finds the lines; until it has been read to its end, the sequence holds the lines up to there.

    Args:
        path: The file. Raises `OSError` if it cannot be opened or is no regular file.
        read: What makes a value of a line and its number in the file, from 1.
    """

    def __init__(self, path: Path, read: Callable[[bytes, int], T_co]) -> None:
        self._path, self._read = path, read
        self._places = range(0)
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait here
        weakref.finalize(self, os.close, self._file)
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        self._starts, self._sizes, self._numbers = array("Q"), array("Q"), array("Q")
        self._window = (0, b"")
        self._stamp = self._state()

    def scan(self, *, finished: bool = False, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Find the lines of the file that are not blank.

        Args:
            finished: Whether a last line without a line break, which a kill leaves, does not count.
            limit: Number of lines; None for all.

        Yields:
            The number of each line in the file, and the line.

        Raises:
            DataError: A line is longer than `limits` allow.
        """
        start = 0
        os.lseek(self._file, 0, os.SEEK_SET)
        with os.fdopen(os.dup(self._file), "rb") as file:
            for number, line in enumerate(limits.lines(file, str(self._path)), start=1):
                if len(self) == limit or (finished and not line.endswith(b"\n")):
                    return
                if not line.isspace():
                    self._starts.append(start)
                    self._sizes.append(len(line))
                    self._numbers.append(number)
                    self._places = range(len(self._starts))
                    yield number, line
                start += len(line)

    def _make(self, place: int) -> T_co:
        return self._read(self._bytes(place), self._numbers[place])

    def _bytes(self, place: int) -> bytes:
        start, size = self._starts[place], self._sizes[place]
        begin, text = self._window
        end = begin + len(text)
        if not begin <= start <= start + size <= end:
            if self._state() != self._stamp:
                raise DataError(f"{self._path}: was changed while it was read; start again")
            goes_on = begin <= start <= end
            text = os.pread(self._file, max(size, _WINDOW if goes_on else _APART), start)
            begin, text = self._window = start, text
        return text[start - begin : start - begin + size]

    def _state(self) -> tuple[int, int]:
        state = os.fstat(self._file)
        return state.st_size, state.st_mtime_ns


class StoredById(Mapping[str, T_co]):
    """Values of a sequence by their ids.

    Args:
        values: The sequence.
        places: Id -> place of its value.
    """

    def __init__(self, values: Sequence[T_co], places: Mapping[str, int]) -> None:
        self._values, self._places = values, places

    def __getitem__(self, name: str) -> T_co:
        return self._values[self._places[name]]

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
