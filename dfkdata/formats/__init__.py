"""FAMILY: one raw layout a file.

A member turns one raw row into one record; files, encodings and image paths are not its business:

    SCHEMA: str | None              the output schema by default; None where rows carry their answers
    COLUMNS: tuple[frozenset, ...]  a table has all columns of one of these sets, else it is another format
    class Options(Config)           what a user may choose; every field has a default
    def record(row, source, options) -> Record      raises `Fault` for a row that cannot be used

`record` is pure. Its group is what the row itself says (`group_key`: link, post id, case id) or, where a
format knows one, another key of the source; left empty, `reader` takes the hash of the row's first picture,
else the name of its first video or audio, else the row's id. Image names go into `Record.images` as the row
has them (or as a `data:` URI for embedded bytes); `reader` resolves them inside the declared roots."""

from __future__ import annotations

from typing import Any

from dfkdata.rows.record import Fault

Row = dict[str, Any]


def text(row: Row, name: str) -> str:
    """The text under `name`, stripped; empty where there is none. Raises `Fault` for a value that is no
    text."""
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        hint = "write it as a string" if isinstance(value, int | float) else ""
        raise Fault(
            "NOT_TEXT", f"{name} is {type(value).__name__}, not text", path=name, value=value, hint=hint
        )
    return value.strip()


def need(row: Row, name: str, *, hint: str = "") -> str:
    """The non-empty text under `name`. Raises `Fault` where it is missing or blank."""
    found = text(row, name)
    if not found:
        raise Fault(
            "FIELD_EMPTY", f"{name} is missing or empty", path=name, value=row.get(name, ""), hint=hint
        )
    return found


GROUP_KEYS = ("link", "post_id", "case_id")
"""Keys of a row, or of its `meta`, that rows of one post or case share; the first that is there counts."""


def group_key(row: Row) -> str:
    """What the row, or else its `meta`, says that it belongs to; empty where neither does. Only text and
    whole numbers are keys."""
    for holder in (row, row.get("meta")):
        if isinstance(holder, dict):
            for name in GROUP_KEYS:
                value = holder.get(name)
                said = str(value).strip() if isinstance(value, str | int) and value is not True else ""
                if said and value is not False:
                    return said
    return ""


def key(row: Row, name: str) -> str:
    """A key as text: sources number their rows and pictures as often as they name them."""
    value = row.get(name)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text(row, name)
