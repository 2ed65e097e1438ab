"""Limits of what files may unpack to and how long their lines may be, so that none fills memory or disk.

The user changes them for the rest of the process: `--allow NAME=VALUE` of a command, or `change` in a program."""

from __future__ import annotations

import io
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import IO, TypeVar

from dfkdata.common.errors import ConfigError, DataError

T = TypeVar("T", bytes, str)


@dataclass(frozen=True)
class FileLimits:
    """What one file may cost.

    Attributes:
        unpacked: Bytes that it may unpack to.
        ratio: How many times its own size a packed stream or a Parquet file may unpack to; 64 MiB are always allowed.
        line: Bytes of one line, one CSV row, or one JSON value that is read whole; memory is a small multiple of it.
    """

    unpacked: int = 64 << 30
    ratio: int = 1_000
    line: int = 256 << 20


_UNITS = {
    "": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}
_SIZE = re.compile(r"(\d{1,18})\s*([a-z]*)", re.ASCII)
_ALWAYS = 64 << 20

_current = FileLimits()


def current() -> FileLimits:
    """Return the limits that hold now."""
    return _current


def change(texts: Iterable[str]) -> None:
    """Change limits for the rest of the process.

    Args:
        texts: "NAME=VALUE" with a name of `FileLimits` and a number, which may end in KB, MB, GB, KiB, MiB or GiB.

    Raises:
        ConfigError: A name is unknown, or a value is no size.
    """
    global _current
    names = [field.name for field in fields(FileLimits)]
    for text in texts:
        name, _, value = text.partition("=")
        size = _SIZE.fullmatch(value.strip().lower())
        if name not in names or size is None or size[2] not in _UNITS or not int(size[1]):
            raise ConfigError(
                f"--allow {text!r}: names are {', '.join(names)}, values are sizes such as 500MB or 2GiB"
            )
        _current = replace(_current, **{name: int(size[1]) * _UNITS[size[2]]})


def most_unpacked(packed: int) -> int:
    """Return how many bytes a stream of `packed` bytes may unpack to."""
    return min(_current.unpacked, max(_ALWAYS, packed * _current.ratio))


def check_unpacked(size: int, most: int, name: str) -> None:
    """Raise `DataError` if a file has unpacked to more than it may."""
    if size > most:
        raise DataError(
            f"{name}: unpacks to more than {most} bytes, as a bomb does; if it is meant, allow it with --allow "
            f"ratio={_current.ratio * 10} or --allow unpacked={_current.unpacked * 10}, or unpack it yourself"
        )


def too_long(name: str, what: str = "line") -> DataError:
    """Return the error about a line or a value that is longer than may be read into memory."""
    return DataError(
        f"{name}: a {what} is longer than {_current.line} bytes; if it is meant, allow it with --allow "
        f"line={_current.line * 4}"
    )


def lines(file: IO[T], name: str) -> Iterator[T]:
    """Yield the lines of a file of bytes or text with their ends; one that is too long raises `DataError`."""
    if _size(file) <= _current.line:
        yield from file  # no line can be longer than the file
        return
    most = _current.line + 1
    for number, line in enumerate(iter(lambda: file.readline(most), None), start=1):
        if not line:
            return
        if len(line) == most:
            raise too_long(f"{name}:{number}")
        yield line


def _size(file: IO[T]) -> float:
    """Return the bytes of a plain file, and infinity where something is unpacked or comes from elsewhere."""
    raw = getattr(getattr(file, "buffer", file), "raw", None)
    if not isinstance(raw, io.FileIO):
        return math.inf
    status = os.fstat(raw.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else math.inf
