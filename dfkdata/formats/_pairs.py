"""Read the two halves of a pair, each a text or a list of turns."""

from __future__ import annotations

from typing import Any

from dfkdata.rows.reasoning import SPELLINGS
from dfkdata.rows.record import Row, RowError


def asked_turns(row: Row, name: str) -> list[Any]:
    """Return the turns of a question. Raises `RowError` for what is neither text nor turns, and for a blank."""
    return _turns(row, name, "user", "write the question")


def answer_turns(row: Row, name: str) -> list[Any]:
    """Return the turns of an answer; a missing one is an empty turn, which the rule about answers names.

    Columns of the row that hold reasoning are that of an answer in text. Raises `RowError` for what is neither text
    nor turns."""
    trace = reasoning_of(row)
    if row.get(name) in (None, "", []):
        return [{"role": "assistant", "content": ""} | trace]
    turns = _turns(row, name, "assistant", "write the answer")
    return [turns[0] | trace] if isinstance(row[name], str) else turns


def reasoning_of(row: Row) -> Row:
    """Return the columns of a row that hold the reasoning of its answer."""
    return {key: row[key] for key in SPELLINGS.intersection(row) if row[key] is not None}


def _turns(row: Row, name: str, role: str, hint: str) -> list[Any]:
    value = row.get(name)
    if isinstance(value, list) and value:
        return value
    if value is None or value in ("", []):
        raise RowError("FIELD_EMPTY", f"{name} is missing or empty", path=name, value=value or "", hint=hint)
    if not isinstance(value, str):
        reason = f"{name} is {type(value).__name__}, neither text nor turns"
        raise RowError("NOT_TEXT", reason, path=name, value=value, hint="write it as a string or as turns")
    return [{"role": role, "content": value}]
