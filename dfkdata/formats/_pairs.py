"""Read the two halves of a pair, each a text or a list of turns."""

from __future__ import annotations

from typing import Any

from dfkdata.rows.record import Row, RowError


def asked_turns(row: Row, name: str) -> list[Any]:
    """Return the turns of a question. Raises `RowError` for what is neither text nor turns, and for a blank."""
    return _turns(row, name, "user", "write the question")


def answer_turns(row: Row, name: str) -> list[Any]:
    """Return the turns of an answer; a missing one is an empty turn, which the rule about answers names.

    Raises `RowError` for what is neither text nor turns."""
    if row.get(name) in (None, "", []):
        return [{"role": "assistant", "content": ""}]
    return _turns(row, name, "assistant", "write the answer")


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
