"""Read one sheet of an .xlsx file by the rules of CSV, with every value as the text that the sheet shows.

Guarantees:
- A formula is read as the value that was computed; one without a value makes its row a reject.
- Cells that are merged downwards hold the value in each of their rows; the manifest counts them.
- Nothing is unpacked beyond the limits of archives, and a file that declares entities is refused."""

from __future__ import annotations

import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from itertools import islice, repeat
from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError, DataError, missing_package
from dfkdata.rows.record import Reject, Row, RowError
from dfkdata.sources import _archive
from dfkdata.sources._csv import Table
from dfkdata.sources._dialect import Columns, Dialect, TableOptions, check_header
from dfkdata.sources._rejects import SourcedRow

_MERGED = re.compile(rb"<(?:\w+:)?mergeCell\s[^>]*?ref=[\"']([A-Z]+)(\d+):([A-Z]+)(\d+)[\"']")
_CHUNK = 1 << 20
_FAULTS = (zipfile.BadZipFile, zlib.error, SyntaxError, KeyError, ValueError, TypeError, OSError)
"""What openpyxl raises for broken files; a `ParseError` of XML is a `SyntaxError`."""


def rows(
    path: Path, name: str, options: TableOptions, columns: Columns, facts: dict[str, Any]
) -> Iterator[SourcedRow]:
    """Yield the rows under the header of a sheet, named by their number in it.

    Args:
        path: The file.
        name: Its name in sources.
        options: The sheet by name or number, else the only one that holds something is taken; and its header.
        columns: Headers of the format, by which a title above the header is recognised.
        facts: Receives which sheet was read, and how many blank rows and cells were ignored.

    Raises:
        ConfigError: There is no such sheet, or several hold rows and none is named; openpyxl is missing.
        DataError: The file is no whole .xlsx file or of another kind, or two columns have one name.
    """
    _check_limits(path)
    with _book(path, values=True) as book:
        chosen = _chosen(book, options.sheet, path)
        facts.clear()
        facts["sheet"] = chosen.title
        if options.header_row is None:
            check_header([_first_records(chosen)], name, columns)
        else:
            facts["header_row"] = options.header_row
        merged, has_formulas = _marks(path, chosen)
        table = Table(name, (), Dialect("utf-8", ",", header_row=options.header_row), facts)
        if not has_formulas:
            yield from _rows(table, chosen, repeat(()), merged)
            return
        with _book(path, values=False) as formulas:
            yield from _rows(table, chosen, _cells(formulas[chosen.title]), merged)


def _check_limits(path: Path) -> None:
    """Raise `DataError` for a file that is no zip, unpacks to too much, or declares entities."""
    most = _archive.limit(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > most:
                raise _archive.too_large(path, most)
            for member in members:
                if member.filename.lower().endswith((".xml", ".rels")):
                    with archive.open(member) as file:
                        if b"<!DOCTYPE" in file.read(1 << 12).replace(b"\0", b"").upper():
                            raise DataError(f"{path}: declares entities, which no spreadsheet program writes")
    except (zipfile.BadZipFile, OSError, RuntimeError, zlib.error, NotImplementedError) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> DataError:
    way = "open it in a spreadsheet program and save it as .xlsx without a password, or as CSV"
    return DataError(f"{path}: not a whole .xlsx file ({error}); {way}")


@contextmanager
def _book(path: Path, *, values: bool) -> Iterator[Any]:
    """Open the workbook, with formulas as their values or as they are written."""
    try:
        import openpyxl
    except ImportError as error:
        raise missing_package("reading .xlsx", "openpyxl", "xlsx") from error
    book = None
    try:
        with warnings.catch_warnings():  # about extensions that hold no values
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(path, read_only=True, data_only=values, keep_links=False)
        yield book
    except _FAULTS as error:
        raise _broken(path, error) from error
    finally:
        if book is not None:
            book.close()


def _chosen(book: Any, sheet: str | None, path: Path) -> Any:
    """Return the sheet that is named, or the only one that holds something. Raises `ConfigError` or `DataError`."""
    names = [one.title for one in book.worksheets]
    if sheet is not None:
        if sheet in names:
            return book[sheet]
        if sheet.isdigit() and 1 <= int(sheet) <= len(names):
            return book.worksheets[int(sheet) - 1]
        raise ConfigError(f"{path}: no sheet {sheet!r}; it has {', '.join(map(repr, names))}")
    filled = [one for one in book.worksheets if _holds_something(one)]
    if len(filled) > 1:
        shown = ", ".join(
            repr(one.title) + (" (hidden)" if one.sheet_state != "visible" else "") for one in filled
        )
        raise ConfigError(f"{path}: {len(filled)} sheets hold rows ({shown}); name one with --sheet")
    if not names:
        raise DataError(
            f"{path}: no sheet can be read; save it as an Excel workbook (.xlsx, not Strict Open XML)"
        )
    return filled[0] if filled else book.worksheets[0]


def _holds_something(sheet: Any) -> bool:
    return any(cell.value not in (None, "") for cells in _cells(sheet) for cell in cells)


def _cells(sheet: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the cells of each row; the size that the file claims for the sheet does not count."""
    sheet.reset_dimensions()
    yield from sheet.iter_rows()


def _marks(path: Path, sheet: Any) -> tuple[dict[tuple[int, int], int], bool]:
    """Return (first row, column) -> last row of cells merged downwards, and whether the sheet has formulas.

    Both are read from the sheet's XML, since they do not come with the cells."""
    merged: dict[tuple[int, int], int] = {}
    has_formulas, rest = False, b""
    with zipfile.ZipFile(path) as archive, archive.open(sheet._worksheet_path.lstrip("/")) as file:
        while data := file.read(_CHUNK):
            window = rest + data
            has_formulas = (
                has_formulas or b"<f>" in window or b"<f " in window or b":f>" in window or b"<f/" in window
            )
            for left, top, _, bottom in _MERGED.findall(window):
                if int(bottom) > int(top):
                    merged[int(top), _column(left)] = int(bottom)
            rest = window[-256:]
    return merged, has_formulas


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number


def _rows(
    table: Table, sheet: Any, formulas: Iterable[tuple[Any, ...]], merged: dict[tuple[int, int], int]
) -> Iterator[SourcedRow]:
    held: dict[int, tuple[str, int]] = {}  # column -> value and last row of a cell merged downwards
    for number, (cells, written) in enumerate(zip(_cells(sheet), formulas, strict=False), start=1):
        source = f"{table.name}:{number}"
        texts = [_text(cell.value) for cell in cells]
        for column in [column for column, (_, last) in held.items() if last < number]:
            del held[column]
        for column, (value, _) in held.items():
            texts += [""] * (column - len(texts))
            texts[column - 1] = value
            table.count("merged_cells", 1)
        if merged:
            held |= {
                column: (text, merged[number, column])
                for column, text in enumerate(texts, start=1)
                if (number, column) in merged
            }
        if table.is_above(number):
            continue
        if not any(text.strip() for text in texts) and not any(_is_formula(cell) for cell in written):
            table.count("blank_rows", 1)
        elif not table.header:
            table.set_header(texts)
        else:
            yield _row(table, number, texts, _without_value(cells, written)), source
    table.check_ended()


def _first_records(sheet: Any) -> list[tuple[int, list[str]]]:
    """Return (row, cells) of the first rows that hold something."""
    numbered = enumerate(islice(_cells(sheet), 200), start=1)
    texts = ((number, [_text(cell.value) for cell in cells]) for number, cells in numbered)
    return [(number, row) for number, row in texts if any(text.strip() for text in row)]


def _row(table: Table, number: int, texts: list[str], formulas: dict[int, Any]) -> Row | Reject:
    """Return the row of these cells, or its reject; `formulas` are those without a value, by place."""
    width = len(table.header)
    texts += [""] * (width - len(texts))
    source = f"{table.name}:{number}"
    row = table.row(texts, source)
    if isinstance(row, Reject) and row.code == "CSV_LONG" and len(texts) > width:
        at = next(at for at in range(width, len(texts)) if texts[at].strip())
        reason, hint = (
            f"column {at + 1} has no name in the header and holds something",
            "name the column, or empty the cell",
        )
        return RowError("CSV_LONG", reason, value=texts[at], hint=hint).reject(source, row.raw)
    if formulas and isinstance(row, dict):
        at, formula = next(iter(formulas.items()))
        column = table.header[at] if at < width else ""
        hint = "open the file in a spreadsheet program and save it, or write the value"
        reason = "a formula whose value was never computed"
        return RowError("CELL_NO_VALUE", reason, path=column, value=str(formula), hint=hint).reject(
            source, row
        )
    return row


def _without_value(cells: tuple[Any, ...], written: tuple[Any, ...]) -> dict[int, Any]:
    """Return place -> formula of the cells whose formula has no value."""
    return {
        at: cell.value for at, cell in enumerate(written) if _is_formula(cell) and cells[at].value is None
    }


def _is_formula(cell: Any) -> bool:
    return bool(cell.data_type == "f")


_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")


def _text(value: Any) -> str:
    """Return a cell as the text that CSV would hold: whole numbers without a point, dates in ISO form."""
    if value is None:
        return ""
    if isinstance(value, str):
        return _ESCAPED.sub(lambda sign: chr(int(sign[1], 16)), value) if "_x" in value else value
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else format(value, ".15g")
    if isinstance(value, datetime):
        return (value.date() if value.time() == time() else value).isoformat()
    return value.isoformat() if isinstance(value, date | time) else str(value)
