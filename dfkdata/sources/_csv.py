"""Read CSV strictly: a row of the wrong length or with broken quotes is a reject, and nothing is coerced."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import IO, Any

from dfkdata.common import limits
from dfkdata.common.errors import DataError
from dfkdata.rows.record import Reject, Row, RowError
from dfkdata.sources._dialect import Columns, Dialect, Open, TableOptions, not_text, recognise
from dfkdata.sources._part import Span
from dfkdata.sources._rejects import SourcedRow

_FIELD_LIMIT = 2**31 - 1  # the csv module's own limit, 131072 characters, is shorter than real posts


def rows(
    opened: Open, name: str, options: TableOptions, columns: Columns, facts: dict[str, Any]
) -> Iterator[SourcedRow]:
    """Yield the rows under the header of a file.

    Args:
        opened: Opens the file at its start.
        name: Its name in sources.
        options: What the user says about encoding and delimiter.
        columns: Headers of the format, by which the delimiter is recognised.
        facts: Receives how the file was read and how many blank rows and cells were ignored.

    Raises:
        DataError: The file is not text in its encoding, or two columns have one name.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    dialect = recognise(opened, name, options, columns)
    facts.clear()
    facts |= _facts(dialect)
    with opened() as file:
        text = io.TextIOWrapper(file, encoding=dialect.encoding, errors="surrogateescape", newline="")
        table = Table(name, limits.lines(text, name), dialect, facts)
        try:
            yield from table.rows()
        except UnicodeDecodeError as error:
            raise not_text(name, dialect.encoding, error) from error


def span_rows(file: IO[bytes], name: str, span: Span, facts: dict[str, Any]) -> Iterator[SourcedRow]:
    """Yield the rows of a span.

    Args:
        file: Its bytes.
        name: The file's name in sources.
        span: The span, as `spans` returns it.
        facts: As for `rows`; blank rows and cells are those of the span.

    Raises:
        DataError: The file is not text in its encoding.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    dialect = span.dialect
    if dialect is None:
        raise ValueError("a span of a table knows its dialect")
    facts |= _facts(dialect)
    encoding = dialect.encoding.removesuffix("-sig") if span.start else dialect.encoding
    text = io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")
    is_short = span.stop - span.start <= limits.current().line
    table = Table(name, text if is_short else limits.lines(text, name), dialect, facts)
    if span.header is not None:
        table.resume(span.header, span.line)
    try:
        yield from table.rows()
    except UnicodeDecodeError as error:
        raise not_text(name, dialect.encoding, error) from error


def spans(
    opened: Open, name: str, options: TableOptions, columns: Columns, size: int
) -> Iterator[tuple[Span, int]]:
    """Yield the spans of a file, of about `size` bytes each, and how many rows each has.

    Every row is read to find out where it ends, as `rows` reads it: a line break in quotes ends none, and what an
    open quote swallowed is not cut. A file whose encoding is not one of single bytes or UTF-8 yields nothing.

    Raises:
        DataError: As `rows`.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    dialect = recognise(opened, name, options, columns)
    if dialect.encoding not in _BYTEWISE:
        return
    with opened() as file:
        mark, whole = file.read(len(codecs.BOM_UTF8)), file.seek(0, io.SEEK_END)
        file.seek(0)
        before = len(mark) if dialect.encoding == "utf-8-sig" and mark == codecs.BOM_UTF8 else 0
        text = io.TextIOWrapper(file, encoding=dialect.encoding, errors="surrogateescape", newline="")
        lines = _MeasuredLines(limits.lines(text, name), dialect.encoding.removesuffix("-sig"), before)
        table = Table(name, lines, dialect, _facts(dialect))
        span, number = Span(0, whole, 0, dialect), 0
        for _ in table.rows():
            number += 1
            if lines.bytes - span.start >= size and table.header and not table.again:
                yield replace(span, stop=lines.bytes), number
                span, number = Span(lines.bytes, whole, table.line, dialect, tuple(table.header)), 0
        yield span, number


_BYTEWISE = ("utf-8-sig", "windows-1252", "cp1252", "iso8859-1", "ascii")
"""Encodings in which a line's bytes follow from its text."""


class _MeasuredLines:
    """Lines of a text, and how many bytes of its file they are."""

    def __init__(self, lines: Iterable[str], encoding: str, before: int) -> None:
        self._lines, self._encoding, self.bytes = iter(lines), encoding, before

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        is_plain = line.isascii()
        self.bytes += len(line) if is_plain else len(line.encode(self._encoding, "surrogateescape"))
        return line


def _facts(dialect: Dialect) -> dict[str, Any]:
    """Return how a file was read, as manifests say it."""
    facts: dict[str, Any] = {
        "encoding": dialect.encoding.removesuffix("-sig"),
        "delimiter": dialect.delimiter,
    }
    if dialect.header_row is not None:
        facts["header_row"] = dialect.header_row
    if dialect.guessed:
        facts["guessed"] = dialect.guessed
    return facts


class Table:
    """CSV rows with the line on which each began; broken quotes cost one line and not the rest."""

    def __init__(self, name: str, lines: Iterable[str], dialect: Dialect, facts: dict[str, Any]) -> None:
        self.name = name
        self.lines = iter(lines)
        self.dialect, self.facts = dialect, facts
        self.line = 0  # physical lines taken so far
        self.taken: list[str] = []  # lines of the row in progress
        self.length, self.most = 0, limits.current().line  # characters of the row in progress
        self.again: list[str] = []  # lines to be read a second time, last first
        self.header: list[str] = []
        self.unnamed = False  # whether a column has no name

    def _feed(self) -> Iterator[str]:
        while True:
            line = self.again.pop() if self.again else next(self.lines, None)
            if line is None:
                return
            self.line += 1
            self.taken.append(line)
            self.length += len(line)
            if self.length > self.most:
                raise csv.Error(
                    f"the row is longer than {self.most} characters (--allow line={4 * self.most})"
                )
            yield line

    def _reader(self) -> Iterator[list[str]]:
        return csv.reader(self._feed(), strict=True, delimiter=self.dialect.delimiter)

    def rows(self) -> Iterator[SourcedRow]:
        """Yield (row, "file:line") for each row under the header."""
        if self.dialect.skipped and not self.line:
            next(self._feed(), None)
        reader = self._reader()
        while True:
            start = self.line + 1
            self.taken.clear()
            self.length = 0
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield self._broken(start, str(error)), f"{self.name}:{start}"
                reader = self._reader()
                continue
            if cells is None:
                self.check_ended()
                return
            if self.is_above(start):
                continue
            if not cells or (not cells[0].strip() and not "".join(cells).strip()):
                self.count("blank_rows", bool(cells))
            elif not self.header:
                self.set_header(cells)
            else:
                source = f"{self.name}:{start}"
                yield self.row(cells, source), source

    def is_above(self, line: int) -> bool:
        """Return whether a line stands above the one that the user says is the header."""
        return not self.header and self.dialect.header_row is not None and line < self.dialect.header_row

    def check_ended(self) -> None:
        """Raise `DataError` if the file ended above its header."""
        if not self.header and self.dialect.header_row is not None:
            raise DataError(f"{self.name}: has no row {self.dialect.header_row} for --header-row")

    def count(self, what: str, number: int) -> None:
        """Add to what was ignored in the file."""
        if number:
            self.facts[what] = self.facts.get(what, 0) + number

    def resume(self, header: Sequence[str], line: int) -> None:
        """Go on below a header that was read, `line` lines into the file."""
        self.header, self.line = [*header], line
        self.unnamed = "" in self.header

    def set_header(self, cells: list[str]) -> None:
        """Take the names of the columns. Raises `DataError` if one stands twice."""
        self.header = self._names(cells)
        blank = self.header.count("")
        self.unnamed = blank > 0
        self.count("unnamed_columns", blank)

    def _names(self, cells: list[str]) -> list[str]:
        names = [cell.strip() for cell in cells]
        twice = sorted(name for name, count in Counter(names).items() if name and count > 1)
        if twice:
            place = f"{self.name}:{self.dialect.header_row or 1}"
            raise DataError(f"{place}: the column {twice[0]!r} stands twice in the header; rename one")
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

    def row(self, cells: list[str], source: str) -> Row | Reject:
        """Return the row of these cells, or its reject if there are too few, too many or damaged ones."""
        header = self.header
        if len(cells) != len(header):
            self._trim(cells)
        if len(cells) == len(header) and not self.unnamed and "".join(cells).isascii():
            return dict(zip(header, cells, strict=True))
        if len(cells) != len(header):
            code = "CSV_SHORT" if len(cells) < len(header) else "CSV_LONG"
            reason = f"{len(cells)} cells under a header of {len(header)}"
            hint = "quote cells that hold commas or line breaks; an empty cell is nothing between two commas"
            if self.dialect.delimiter != ",":
                hint = f"quote cells that hold {self.dialect.delimiter!r} or line breaks"
            return RowError(code, reason, value=cells, hint=hint).reject(source, _padded(header, cells))
        if not _is_text(cells):
            hint = "save the file as UTF-8, or name its encoding with --encoding"
            fault = RowError(
                "BAD_ENCODING", f"bytes that are not {self.facts['encoding'].upper()}", hint=hint
            )
            shown = [
                cell.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for cell in cells
            ]
            return fault.reject(source, _padded(header, shown))
        if self.unnamed:
            return self._named_cells(cells, source)
        return dict(zip(header, cells, strict=True))

    def _trim(self, cells: list[str]) -> None:
        """Drop blank cells behind the last column, and add those that unnamed columns at the end lack."""
        while len(cells) > len(self.header) and not cells[-1].strip():
            cells.pop()
            self.count("blank_cells", 1)
        while len(cells) < len(self.header) and not any(self.header[len(cells) :]):
            cells.append("")

    def _named_cells(self, cells: list[str], source: str) -> Row | Reject:
        """Return the cells under named columns; one unnamed column may hold something, under the key ""."""
        row = {name: cell for name, cell in zip(self.header, cells, strict=True) if name}
        extra = [cell for name, cell in zip(self.header, cells, strict=True) if not name and cell.strip()]
        if extra and self.header.count("") > 1:
            place = next(
                at for at, pair in enumerate(zip(self.header, cells, strict=True)) if pair == ("", extra[0])
            )
            reason = f"column {place + 1} has no name in the header and holds something"
            fault = RowError("CSV_LONG", reason, value=extra[0], hint="name the column, or empty the cell")
            return fault.reject(source, row | {"": extra})
        return row | {"": extra[0]} if extra else row


def _padded(header: list[str], cells: list[str]) -> Row:
    """Return the cells of a row of the wrong length under their columns, the surplus under the key ""."""
    row: Row = dict(zip(header, cells, strict=False))
    if len(cells) > len(header):
        row[""] = cells[len(header) :]
    return row


def _is_text(cells: list[str]) -> bool:
    try:
        "".join(cells).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
