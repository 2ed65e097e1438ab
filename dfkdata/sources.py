"""A file -> raw rows with their places. Knows files, not formats.

Strategy: one generator a kind of file, chosen by what the name ends in; every raw row comes out as a dict
with its "file:line", every piece that is no row comes out as a `Reject` that holds it whole.
Promises: rows come in file order, one at a time; strings stay strings ("001", "NA"); nothing is skipped but
blank lines."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from dfkdata.errors import DataError
from dfkdata.records import Fault, Reject

Row = dict[str, Any]
Found = tuple[Row | Reject, str]
"""A raw row (or why it is none) and its "file:line"."""

_REJECT_KEYS = set(Reject.__struct_fields__)
_FIELD_LIMIT = 2**31 - 1  # the csv module's own limit, 131072 characters, is shorter than real posts


def rows(path: Path) -> Iterator[Found]:
    """The raw rows of `path` (.csv, .json or .jsonl). Raises `DataError` where the file cannot be read at
    all."""
    match path.suffix.lower():
        case ".csv":
            return _csv(path)
        case ".jsonl" | ".ndjson":
            return _jsonl(path)
        case ".json":
            return _json(path)
        case other:
            raise DataError(f"{path}: files that end in {other!r} are not read; give .csv, .json or .jsonl")


def _open(path: Path, mode: str, **how: Any) -> Any:
    try:
        return path.open(mode, **how)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _jsonl(path: Path) -> Iterator[Found]:
    decode = msgspec.json.Decoder().decode
    name = path.name
    with _open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            source = f"{name}:{number}"
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            try:
                row = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                if line.strip():
                    yield _bad_json(line, source, str(error)), source
                continue
            yield _object(row, source), source


def _bad_json(line: bytes, source: str, problem: str) -> Reject:
    text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
    hint = "repair the line; each line is one JSON object in UTF-8"
    return Fault("BAD_JSON", f"the line is not JSON: {problem}", value=text, hint=hint).reject(source, text)


def _object(row: Any, source: str) -> Row | Reject:
    """`row` itself where it is an object; a quarantined row is unwrapped, so that a repaired file can be fed
    back."""
    if type(row) is dict:
        if "raw" in row and row.keys() == _REJECT_KEYS and isinstance(row["raw"], dict):
            return row["raw"]
        return row
    fault = Fault("ROW_NOT_OBJECT", f"a row is a JSON object, this is {type(row).__name__}", value=row)
    return fault.reject(source, row)


def _json(path: Path) -> Iterator[Found]:
    """A list of rows, or an object that wraps one under data, items, examples or records, or a map of id ->
    row."""
    with _open(path, "rb") as file:
        data = file.read().removeprefix(b"\xef\xbb\xbf")
    try:
        whole = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if data.lstrip()[:1] == b"{" and b"\n" in data.strip():
            yield from _jsonl(path)
            return
        raise DataError(f"{path}: not JSON ({error})") from error
    for number, row in enumerate(_unwrap(whole), start=1):
        source = f"{path.name}:{number}"
        yield _object(row, source), source


def _unwrap(whole: Any) -> Iterable[Any]:
    if isinstance(whole, list):
        return whole
    if isinstance(whole, dict):
        for key in ("data", "items", "examples", "records"):
            if isinstance(whole.get(key), list):
                return list(whole[key])
        if whole and all(isinstance(row, dict) for row in whole.values()):
            return list(whole.values())
    return [whole]


def _csv(path: Path) -> Iterator[Found]:
    csv.field_size_limit(_FIELD_LIMIT)
    with _open(path, "r", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        table = _Table(path.name, file)
        yield from table.rows()


class _Table:
    """CSV rows with the line on which each began. A row whose quotes are broken costs that line, not the
    rest."""

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

    def rows(self) -> Iterator[Found]:
        """(row, "file:line") for each row; the header is read first."""
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
        fault = Fault(
            "CSV_BROKEN", f"quotes do not close: {problem}", value=first, hint="double a quote inside quotes"
        )
        return fault.reject(f"{self.name}:{start}", first)

    def _row(self, cells: list[str], start: int) -> Row | Reject:
        source = f"{self.name}:{start}"
        if len(cells) != len(self.header):
            code = "CSV_SHORT" if len(cells) < len(self.header) else "CSV_LONG"
            reason = f"{len(cells)} cells under a header of {len(self.header)}"
            hint = "quote cells that hold commas or line breaks; an empty cell is nothing between two commas"
            return Fault(code, reason, value=cells, hint=hint).reject(source, _padded(self.header, cells))
        if not _is_text(cells):
            fault = Fault("BAD_ENCODING", "bytes that are not UTF-8", hint="save the file as UTF-8")
            shown = [
                cell.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for cell in cells
            ]
            return fault.reject(source, _padded(self.header, shown))
        return dict(zip(self.header, cells, strict=True))


def _padded(header: list[str], cells: list[str]) -> Row:
    """The cells of a row of the wrong length under their columns; the surplus stands under ""."""
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
