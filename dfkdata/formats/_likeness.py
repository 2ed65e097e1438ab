"""Say how much a row looks like a format, for `--from auto`."""

from __future__ import annotations

from enum import IntEnum
from types import ModuleType
from typing import Any, NamedTuple

from dfkdata.rows.record import Row


class Fit(IntEnum):
    """How much speaks for a format.

    POSSIBLE: it can read the row, as other formats can. LIKELY: the row has its columns. TYPICAL: the row is
    written as its rows are, and those of others seldom. MARKED: it holds what no other format writes, so that
    one such row decides.

    Example:
        >>> from dfkdata.formats import Fit
        >>> max(Fit.LIKELY, Fit.MARKED).name
        'MARKED'
    """

    POSSIBLE = 1
    LIKELY = 2
    TYPICAL = 3
    MARKED = 4


class Likeness(NamedTuple):
    """How much a row or a folder looks like a format, and by what.

    Attributes:
        fit: How much speaks for it.
        why: What was seen, as a clause for people.

    Example:
        >>> from dfkdata.formats import Fit, Likeness
        >>> Likeness(Fit.LIKELY, "columns frage, antwort").why
        'columns frage, antwort'
    """

    fit: Fit
    why: str


def likeness(member: ModuleType, row: Row) -> Likeness | None:
    """Return how much a row looks like a format: what its `detect` says, or what its `COLUMNS` do.

    Args:
        member: The format's module.
        row: A raw row.
    """
    detect = getattr(member, "detect", None)
    if detect is not None:
        found: Likeness | None = detect(row)
        return found
    for columns in member.COLUMNS:
        if columns and columns <= row.keys():
            return Likeness(Fit.LIKELY, f"columns {', '.join(sorted(columns))}")
    return None


def turns(row: Row) -> list[dict[str, Any]] | None:
    """Return the turns of a row that holds a list of them; None for other rows."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        return None
    if not all(isinstance(turn, dict) and isinstance(turn.get("role"), str) for turn in messages):
        return None
    return messages


def last_text(messages: list[dict[str, Any]]) -> str:
    """Return the text of the last turn if the assistant speaks it."""
    content = messages[-1].get("content") if messages[-1]["role"] == "assistant" else None
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def parts(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the parts of all turns whose content is a list."""
    contents = [turn.get("content") for turn in messages]
    return [
        part
        for content in contents
        if isinstance(content, list)
        for part in content
        if isinstance(part, dict)
    ]
