"""Check that a row of the messages layout has the types that chat templates need.

A row that was written by hand is refused with its reason instead of failing somewhere inside a template. Only
the types of values are checked, not what a template makes of them."""

from __future__ import annotations

from typing import Any

from dfkdata.common.errors import DataError
from dfkdata.rows.loss_weight import turn_weight
from dfkdata.rows.record import RowError


def check_row(row: Any) -> None:
    """Raise `DataError` with the row's id and the place of the first value of a wrong type."""
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        raise DataError(f"row {row!r:.80}: not an object with a list of `messages`")
    if not isinstance(row.get("id"), str | int) or isinstance(row["id"], bool) or row["id"] == "":
        reason = f"its `id` is {row['id']!r:.40}" if "id" in row else "it has no `id`"
        raise DataError(
            f"row that begins {_beginning(row)}: {reason}; give each row a text of its own as `id`"
        )
    for fault in (_media(row), _options(row), *(_turn(at, turn) for at, turn in enumerate(row["messages"]))):
        if fault is not None:
            raise DataError(f"row {row['id']}: {fault}")


def _beginning(row: dict[str, Any]) -> str:
    """Return the start of the last turn of the user, by which people find a row without an id."""
    turns = [turn for turn in row["messages"] if isinstance(turn, dict)]
    asked = [turn.get("content") for turn in turns if turn.get("role") == "user"] or [row["messages"]]
    parts = asked[-1] if isinstance(asked[-1], list) else [{"text": asked[-1]}]
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return repr(" ".join(texts)[:80] if texts else f"{asked[-1]!r:.80}")


def _media(row: dict[str, Any]) -> str | None:
    for key in ("images", "videos", "audios"):
        if row.get(key) is not None and not isinstance(row[key], list | tuple):
            return f"{key} is not a list but {type(row[key]).__name__}"
    return None


def _options(row: dict[str, Any]) -> str | None:
    for key in ("meta", "chat_template_kwargs"):
        if not isinstance(row.get(key) or {}, dict):
            return f"{key} is not an object"
    return None if _objects(row.get("tools")) else "tools is not a list of objects"


def _objects(value: Any) -> bool:
    """Return whether `value` is None or a list of objects."""
    return value is None or (isinstance(value, list) and all(isinstance(item, dict) for item in value))


def _turn(at: int, turn: Any) -> str | None:
    where = f"messages[{at}]"
    if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
        return f"{where} is not an object with a role"
    content = turn.get("content")
    if not isinstance(content, str) and not _objects(content):
        return f"{where}.content is neither a text nor a list of parts"
    if not _objects(turn.get("tool_calls")):
        return f"{where}.tool_calls is not a list of objects"
    for call in turn.get("tool_calls") or ():
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return f"{where}.tool_calls: a call names no function"
        if not isinstance(function.get("arguments", {}), dict):
            return f"{where}.tool_calls: arguments are not an object; dfkdata convert reads JSON text"
    try:
        weight = turn_weight(turn, where)
    except RowError as error:
        return f"{error.path}: {error.reason} ({error.value!r}); {error.hint}"
    if weight and turn["role"] != "assistant":
        return f"{where} asks to be trained on, but its role is {turn['role']}; leave the flag out"
    return None
