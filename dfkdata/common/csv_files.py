"""Write tables that people open in a spreadsheet.

Guarantees:
    - No cell is a formula: a text that a spreadsheet would compute gets an apostrophe in front, which spreadsheets show
      as text. Numbers stay numbers."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from dfkdata.common.faults import naming

_FORMULA = tuple("=+-@\t\r＝＋－＠")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table. Raises `OSError` if the file cannot be written."""
    with naming(path), path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        csv.writer(file).writerows([cell(value) for value in row] for row in chain([header], rows))


def cell(value: object) -> object:
    """Return a value as a cell that is no formula."""
    if not isinstance(value, str) or not value.lstrip().startswith(_FORMULA) or _is_number(value):
        return value
    return f"'{value}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
