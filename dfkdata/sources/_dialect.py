"""Recognise the encoding and the delimiter of a CSV file, or take those that the user names.

How it works: a byte-order mark names the encoding. Without one, NUL bytes at every second place mean UTF-16,
and bytes that are not UTF-8 mean Windows-1252 if the file holds no other sign beyond ASCII in UTF-8. A file
that mixes both is damaged UTF-8. The delimiter is the first one under which the header has the columns of the
format, else the comma if it divides the header at all, else the sign that divides it most often. A title above the
header is an error that names the header's line.

Guarantee: a UTF-8 file with commas is read as such."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO

from dfkdata.common.errors import ConfigError, DataError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_NAMED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
_CHUNK = 1 << 20
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

Open = Callable[[], IO[bytes]]
Columns = Collection[frozenset[str]]


@dataclass(frozen=True)
class TableOptions:
    """Say how tables are written; None recognises it.

    Attributes:
        encoding: Of CSV files: a name that Python knows.
        delimiter: Of CSV files: one sign, or "tab".
        sheet: Of .xlsx files: the name of the sheet, or its number from 1.
        header_row: The line of a CSV file, or the row of a sheet, that names the columns; None is the first that
            is not blank.
    """

    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    header_row: int | None = None


@dataclass(frozen=True)
class Dialect:
    """Hold how one CSV file is written.

    Attributes:
        encoding: A name that Python knows.
        delimiter: The sign between cells.
        guessed: What was recognised without a mark that proves it, for people; empty for UTF-8 with commas.
        skipped: Whether the first line is Excel's `sep=;`.
        header_row: The line that names the columns; None is the first that is not blank.
    """

    encoding: str
    delimiter: str
    guessed: str = ""
    skipped: bool = False
    header_row: int | None = None


def check_encoding(name: str) -> str:
    """Return Python's name of a text encoding.

    Raises:
        ConfigError: There is no such encoding, or it is not one of text.
    """
    try:
        info = codecs.lookup(name)
        "".encode(info.name)
    except (LookupError, UnicodeError) as error:
        raise ConfigError(f"--encoding {name!r}: no such encoding; utf-8, utf-16 or windows-1252") from error
    return "utf-8-sig" if info.name == "utf-8" else info.name


def check_delimiter(text: str) -> str:
    """Return the sign that the user names.

    Raises:
        ConfigError: It is not one sign, or one that cells themselves need.
    """
    sign = _NAMED.get(text.lower(), text)
    if len(sign) != 1 or sign in '"\r\n\0 ' or ord(sign) > 127:
        raise ConfigError(f"--delimiter {text!r}: give one sign such as ';' or '|', or the word tab")
    return sign


def recognise(opened: Open, name: str, options: TableOptions, columns: Columns) -> Dialect:
    """Return how a CSV file is written.

    Args:
        opened: Opens the file at its start.
        name: Its name, for messages.
        options: What the user says about it.
        columns: Headers of the format; a table has all columns of one of them.

    Raises:
        DataError: The start of the file is not text in its encoding.
    """
    encoding, sure = (check_encoding(options.encoding), True) if options.encoding else _encoding(opened)
    text, at = _start(opened, name, encoding), options.header_row
    first = _record(text)
    skipped = len(first) == 5 and first.lower().startswith("sep=")
    if options.delimiter:
        sign, guess = check_delimiter(options.delimiter), None
    elif skipped:
        sign, guess = first[4], None
    else:
        below = text if at is None else "".join([*io.StringIO(text, newline="")][at - 1 :])
        sign = guess = _delimiter(_record(below), columns)
    if at is None:
        signs = DELIMITERS if guess else [sign]
        check_header([_records(text, one, int(skipped)) for one in (sign, *signs)], name, columns)
    return Dialect(encoding, sign, _says(encoding, guess, sure), skipped, at)


_LOOKED = 20


def check_header(readings: Iterable[Sequence[tuple[int, list[str]]]], name: str, columns: Columns) -> None:
    """Raise `DataError` if a line below the first looks like the header and the first does not.

    Args:
        readings: (line, cells) of the first records, once for each way to read them; the first counts.
        name: The file's name.
        columns: Headers of the format; without them a header is a line of several short cells below a lone one.
    """
    for number, records in enumerate(readings):
        if not records:
            return
        (line, first), *below = records
        if any(needed <= _stripped(first) for needed in columns):
            return
        for at, cells in below[:_LOOKED]:
            alone = not columns and not number and _is_alone(first)
            if _fits(cells, columns) or (
                alone and _is_header(cells, [row for place, row in below if place > at])
            ):
                title = next((cell.strip() for cell in first if cell.strip()), "")
                raise DataError(
                    f"{name}:{line}: {title[:60]!r} is no header; line {at} looks like it ({', '.join(cells)[:120]}):"
                    f" --header-row {at}, or delete what stands above it"
                )


def _stripped(cells: list[str]) -> set[str]:
    return {cell.strip() for cell in cells}


def _is_alone(cells: list[str]) -> bool:
    return sum(bool(cell.strip()) for cell in cells) == 1


def _fits(cells: list[str], columns: Columns) -> bool:
    """Return whether a line holds the names of all columns of a header; one name alone may be anything."""
    names = _stripped(cells)
    return any(needed <= names and (len(needed) > 1 or _are_names(cells)) for needed in columns)


def _is_header(cells: list[str], below: list[list[str]]) -> bool:
    """Return whether a line looks like names of columns although nobody knows them, above rows as wide as it."""
    is_wide = len(cells) >= 3 and all(cell and cell == cell.strip() for cell in cells)
    return is_wide and _are_names(cells) and {len(row) for row in below} == {len(cells)}


def _are_names(cells: list[str]) -> bool:
    """Return whether cells could name columns: they differ, are short, and of few words."""
    names = [name for cell in cells if (name := cell.strip())]
    is_short = all(len(name) <= 40 and len(name.split()) <= 3 and not name.isdigit() for name in names)
    return len({*names}) == len(names) and is_short


def _says(encoding: str, delimiter: str | None, sure: bool) -> str:
    parts = [] if sure else [f"as {encoding}"]
    parts += [f"with {DELIMITERS[delimiter]} between cells"] if delimiter not in (None, ",") else []
    return " and ".join(parts)


def _encoding(opened: Open) -> tuple[str, bool]:
    """Return the encoding, and whether a mark or the bytes prove it."""
    with opened() as file:
        start = file.read(_CHUNK)
        for mark, encoding in _MARKS:
            if start.startswith(mark):
                return encoding, True
        for place, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
            units = len(start) // 2 if 0 in start else 0
            if units and start[place::2].count(0) > units * 0.4 and start[1 - place :: 2].count(0) == 0:
                return encoding, False
        return ("utf-8-sig", True) if _is_utf8(start, file) else ("windows-1252", False)


def _is_utf8(chunk: bytes, file: IO[bytes]) -> bool:
    """Return whether the rest of a file is UTF-8, or is so little else that it must be damaged UTF-8."""
    utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    latin = True
    valid = True
    while chunk:
        if not chunk.isascii() or utf8.getstate()[0]:
            text = utf8.decode(chunk)
            if not text.isascii():
                if _encodes(text):  # so every sign beyond ASCII was UTF-8
                    return True
                high = [sign for sign in text if sign > "\x7f"]
                wrong = [sign for sign in high if "\udc80" <= sign <= "\udcff"]
                valid = valid and not wrong
                latin = latin and len(wrong) == len(high) and not {*wrong} & _UNDEFINED
                if not latin:
                    return True
        chunk = file.read(_CHUNK)
    tail = utf8.decode(b"", final=True)
    return (valid and not tail) or bool({*tail} & _UNDEFINED)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_UNDEFINED = {chr(0xDC00 + byte) for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D, 0xFF)}
"""Bytes that Windows-1252 does not define, and ÿ, which no word begins with; as `surrogateescape` reads them."""


def _start(opened: Open, name: str, encoding: str) -> str:
    """Return the text with which a file begins."""
    with opened() as file:
        start = file.read(1 << 16)
    try:
        return codecs.getincrementaldecoder(encoding)("surrogateescape").decode(start).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        raise not_text(name, encoding, error) from error


def _record(text: str) -> str:
    """Return the first record that is not blank, without its line end."""
    text = text.lstrip("\ufeff\r\n")
    quoted, end = False, len(text)
    for place, sign in enumerate(text):
        quoted = quoted is not (sign == '"')
        if sign in "\r\n" and not quoted:
            end = place
            break
    return text[:end]


def _records(text: str, delimiter: str, skipped: int) -> list[tuple[int, list[str]]]:
    """Return (line, cells) of the first records that are not blank; what cannot be read ends them."""
    records: list[tuple[int, list[str]]] = []
    lines = islice(io.StringIO(text, newline=""), skipped, 10 * _LOOKED)
    reader = csv.reader(lines, delimiter=delimiter)
    line = 1 + skipped
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                records.append((line, cells))
            line = reader.line_num + 1 + skipped
            if len(records) > _LOOKED:
                break
    except csv.Error:
        pass
    return records


def _delimiter(first: str, columns: Columns) -> str:
    cells = {sign: _cells(first, sign) for sign in DELIMITERS}
    for sign, names in cells.items():
        if any(needed <= names for needed in columns):
            return sign
    counts = {sign: len(names) for sign, names in cells.items()}
    return "," if counts[","] > 1 else max(counts, key=lambda sign: counts[sign])


def _cells(line: str, delimiter: str) -> set[str]:
    try:
        return {cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])}
    except csv.Error:
        return set()


def not_text(name: str, encoding: str, error: UnicodeDecodeError) -> DataError:
    """Return the error about a file that is not in the encoding."""
    reason = f"{name}: not text in {encoding} ({error.reason} at byte {error.start})"
    return DataError(f"{reason}; name its encoding with --encoding, such as utf-16 or windows-1252")
