"""Read CSV strictly: a row of the wrong length or with broken quotes is a reject, and nothing is coerced."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import IO

from dfkdata.common.errors import DataError
from dfkdata.rows.record import Reject, Row, RowError
from dfkdata.sources._rejects import SourcedRow

_FIELD_LIMIT = 2**31 - 1  # the csv module's own limit, 131072 characters, is shorter than real posts


def rows(file: IO[str], name: str) -> Iterator[SourcedRow]:
    """Yield the rows under the header of a file opened with newline="" and errors="surrogateescape"."""
    csv.field_size_limit(_FIELD_LIMIT)
    return _Table(name, file).rows()


class _Table:
    """CSV rows with the line on which each began; broken quotes cost one line and not the rest."""

    def __init__(self, name: str, lines: Iterable[str]) -> None:
        self.name = name
        self.lines = iter(lines)
        self.line = 0  # physical lines taken so far
        self.taken: list[str] = []  # lines of the row in progress
        self.again: list[str] = []  # lines to be read a second time, last first
        self.header: list[str] = []

    def _feed(self) -> Iterator[str]:
        while True:
            line = self.again.pop() if self.again else next(self.lines, None)
            if line is None:
                return
            self.line += 1
            self.taken.append(line)
            yield line

    def rows(self) -> Iterator[SourcedRow]:
        """Yield (row, "file:line") for each row under the header."""
        reader = csv.reader(self._feed(), strict=True)
        while True:
            start = self.line + 1
            self.taken.clear()
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield self._broken(start, str(error)), f"{self.name}:{start}"
                reader = csv.reader(self._feed(), strict=True)
                continue
            if cells is None:
                return
            if not self.header:
                self.header = self._names(cells)
            elif cells:
                yield self._row(cells, start), f"{self.name}:{start}"

    def _names(self, cells: list[str]) -> list[str]:
        names = [cell.strip() for cell in cells]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"{self.name}:1: the column {twice[0]!r} stands twice in the header; rename one")
        return names

    def _broken(self, start: int, problem: str) -> Reject:
        """Reject the first line of the broken row and put the others back."""
        first, rest = self.taken[0], self.taken[1:]
        self.again.extend(reversed(rest))
        self.line = start
        fault = RowError(
            "CSV_BROKEN", f"quotes do not close: {problem}", value=first, hint="double a quote inside quotes"
        )
        return fault.reject(f"{self.name}:{start}", first)

    def _row(self, cells: list[str], start: int) -> Row | Reject:
        source = f"{self.name}:{start}"
        if len(cells) != len(self.header):
            code = "CSV_SHORT" if len(cells) < len(self.header) else "CSV_LONG"
            reason = f"{len(cells)} cells under a header of {len(self.header)}"
            hint = "quote cells that hold commas or line breaks; an empty cell is nothing between two commas"
            return RowError(code, reason, value=cells, hint=hint).reject(source, _padded(self.header, cells))
        if not _is_text(cells):
            fault = RowError("BAD_ENCODING", "bytes that are not UTF-8", hint="save the file as UTF-8")
            shown = [
                cell.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for cell in cells
            ]
            return fault.reject(source, _padded(self.header, shown))
        return dict(zip(self.header, cells, strict=True))


def _padded(header: list[str], cells: list[str]) -> Row:
    """Return the cells of a row of the wrong length under their columns, the surplus under the key ""."""
    row: Row = dict(zip(header, cells, strict=False))
    if len(cells) > len(header):
        row[""] = cells[len(header) :]
    return row


def _is_text(cells: list[str]) -> bool:
    text = "".join(cells)
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
