"""Find columns of raw rows that a format does not read, so that none is lost without a word.

How it works: a format makes its record from a row that notes which of its columns are asked for. That costs a second
reading, so it is done for the first rows of a part, and once for each set of filled columns that name files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from msgspec.structs import replace

from dfkdata.rows.record import Record, Row, RowError

_KINDS = {
    "image": (
        "image",
        "images",
        "img",
        "image_path",
        "img_path",
        "image_url",
        "image_urls",
        "picture",
        "pictures",
    ),
    "video": ("video", "videos", "video_path", "video_url", "mp4", "webm", "mov"),
    "audio": ("audio", "audios", "audio_path", "audio_url", "wav", "mp3", "flac"),
}
FILES = {name: kind for kind, names in _KINDS.items() for name in names}
"""Columns that usually name files, and what the files are."""

ROWS = 32
"""Rows of a part whose columns are looked at."""


class _NotedRow(Row):
    """A row that notes the columns that are asked for; whoever copies it asks for all of them."""

    def __init__(self, row: Row, read: set[str]) -> None:
        super().__init__(row)
        self._read = read

    def __getitem__(self, name: str) -> Any:
        self._read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._read.add(name)
        return super().get(name, default)

    def __iter__(self) -> Iterator[str]:
        return super().__iter__()  # a class of its own iteration is copied by `__getitem__`

    def items(self) -> Any:
        self._read.update(self)
        return super().items()

    def values(self) -> Any:
        self._read.update(self)
        return super().values()

    def __or__(self, other: Any) -> Any:
        own = {name: super(_NotedRow, self).__getitem__(name) for name in self}
        return _NotedRow(own | other, self._read)


def unread(row: Row, make: Callable[[Row], Record]) -> list[str]:
    """Return the filled columns of a row that `make` does not ask for, in their order.

    Raises:
        RowError: The row gives no record.
    """
    read: set[str] = set()
    make(_NotedRow(row, read))
    return [name for name, value in row.items() if name not in read and _is_filled(value)]


class ColumnLook(NamedTuple):
    """What one row shows about columns.

    Attributes:
        left: Columns that are filled and were not read.
        used: Columns that are filled and were read.
    """

    left: tuple[str, ...]
    used: tuple[str, ...]


def lost_columns(looks: Iterable[ColumnLook]) -> list[str]:
    """Return the columns that were filled in the first `ROWS` looks and read in none, in the order they came."""
    first = [*islice(looks, ROWS)]
    used = {name for look in first for name in look.used}
    return [name for name in dict.fromkeys(name for look in first for name in look.left) if name not in used]


class ColumnWatch:
    """Watch the columns of one part.

    Attributes:
        looks: What the first rows show.
        files: Filled columns that may name files -> those of them that the format does not read.
    """

    def __init__(
        self,
        make: Callable[[Row], Record],
        format: str,
        files: dict[tuple[str, ...], list[str]] | None = None,
    ) -> None:
        """Watch what `make` reads of the rows of a format; `files` is what is known of earlier rows of the part."""
        self._make, self._format = make, format
        self.looks: list[ColumnLook] = []
        self.files = {} if files is None else files

    @property
    def lost(self) -> list[str]:
        """Return the columns that were filled in looked-at rows and read from none, in the order they came."""
        return lost_columns(self.looks)

    def look(self, row: Row) -> bool:
        """ColumnLook at one of the first rows, which gave a record; return whether more are to be looked at."""
        left = unread(row, self._make)
        used = tuple(name for name, value in row.items() if name not in left and _is_filled(value))
        self.looks.append(ColumnLook(tuple(left), used))
        return len(self.looks) < ROWS

    def checked(self, row: Row, record: Record) -> Record:
        """Return the record of a row that may name files, with a warning for each column of them that was not read."""
        filled = tuple(name for name in row if name in FILES and _is_filled(row[name]))
        if filled not in self.files:
            self.files[filled] = [name for name in unread(row, self._make) if name in FILES]
        lost = self.files[filled]
        return replace(record, warnings=(*record.warnings, *self._warnings(row, lost))) if lost else record

    def _warnings(self, row: Row, lost: list[str]) -> Iterator[RowError]:
        for name in lost:
            kind = FILES[name]
            reason = f"the column {name!r} is filled, and the format {self._format} does not show it"
            hint = (
                f"put its files into the column that the format reads, or read the rows with one that shows {kind}s"
                " (query_response, swift, sharegpt); leave the column out if it is none of the question's"
            )
            yield RowError("MEDIA_UNREAD", reason, path=name, value=str(row[name])[:200], hint=hint)


def _is_filled(value: Any) -> bool:
    if value is None or (isinstance(value, str) and not value.strip()):
        return False
    return not (isinstance(value, list | dict | tuple | bytes) and not value)
