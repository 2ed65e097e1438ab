"""Turn raw values into rows, or into rejects that say what is wrong."""

from __future__ import annotations

from typing import Any

import msgspec

from dfkdata.rows.record import Reject, Row, RowError

SourcedRow = tuple[Row | Reject, str]
"""A raw row, or the reject of what is not a row, with its "file:line"."""

_REJECT_KEYS = set(Reject.__struct_fields__)


def as_row(row: Any, source: str) -> Row | Reject:
    """Return `row` if it is an object, else a reject.

    A quarantined row is unwrapped, so that a repaired file can be fed back, and a bare list of turns becomes
    a row of turns."""
    if type(row) is dict:
        if "raw" in row and row.keys() == _REJECT_KEYS and isinstance(row["raw"], dict):
            return row["raw"]
        return row
    if type(row) is list and row and type(row[0]) is dict and "role" in row[0]:
        return {"messages": row}
    fault = RowError("ROW_NOT_OBJECT", f"a row is a JSON object, this is {type(row).__name__}", value=row)
    return fault.reject(source, row)


def bad_json(line: bytes, source: str, problem: str) -> Reject:
    """Return the reject of a line that is not JSON."""
    text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
    hint = "repair the line; each line is one JSON object in UTF-8"
    return RowError("BAD_JSON", f"the line is not JSON: {problem}", value=text, hint=hint).reject(
        source, text
    )


def unencodable(source: str, raw: Any, error: UnicodeEncodeError) -> Reject:
    """Return the reject of a row that holds half of a surrogate pair, which its raw row shows escaped.

    Args:
        source: "file:line" of the row.
        raw: The row.
        error: What encoding it raised.
    """
    fault = RowError("BAD_ENCODING", f"half of a surrogate pair ({error.reason})", hint="repair the text")
    return fault.reject(source, writable(raw))


def writable(value: Any) -> Any:
    """Return `value` with halves of surrogate pairs escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {writable(key): writable(inner) for key, inner in value.items()}
    return [writable(inner) for inner in value] if isinstance(value, list) else value


def check_encodable(value: Any) -> None:
    """Raise `UnicodeEncodeError` if a text in `value`, or a key, holds half of a surrogate pair."""
    if isinstance(value, str):
        if not value.isascii():
            value.encode()
    elif isinstance(value, dict):
        for key, inner in value.items():
            check_encodable(key)
            check_encodable(inner)
    elif isinstance(value, list):
        for inner in value:
            check_encodable(inner)


DECODE = msgspec.json.Decoder().decode
DECODE_LINES = msgspec.json.Decoder().decode_lines
BOM = b"\xef\xbb\xbf"
