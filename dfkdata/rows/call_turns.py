"""Join turns that hold calls as JSON text into the assistant turns that make them, with what goes with a turn."""

from __future__ import annotations

from typing import Any

from dfkdata.rows.chat_turns import as_json
from dfkdata.rows.loss_weight import FLAGS, turn_weight
from dfkdata.rows.part_files import turn_files
from dfkdata.rows.reasoning import SPELLINGS
from dfkdata.rows.record import Row, RowError


def joined_calls(messages: list[Any], *, call: str, answers: tuple[str, ...]) -> list[Any]:
    """Join turns that hold tool calls as JSON text into the assistant turns that make these calls.

    Args:
        messages: The turns.
        call: The role of turns that are calls.
        answers: The roles of turns that answer calls; they become `tool`.

    Raises:
        RowError: If a call is not JSON.
    """
    if not any(isinstance(turn, dict) and turn.get("role") in (call, *answers) for turn in messages):
        return messages
    turns: list[Any] = []
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role == call:
            value = as_json(str(message.get("content")), "TOOL_ARGS_NOT_OBJECT", f"messages.{number}.content")
            calls = value if isinstance(value, list) else [value]
            if turns and isinstance(turns[-1], dict) and turns[-1].get("role") == "assistant":
                before = turns[-1].get("tool_calls") or []
                if not isinstance(before, list):
                    path = f"messages.{number - 1}.tool_calls"
                    raise RowError("TOOL_UNKNOWN", "tool_calls are no list", path=path, value=before)
                _check_same_weight(turns[-1], message, number)
                trace = _joined_reasoning(turns[-1], message, number)
                turns[-1] = turns[-1] | trace | {"tool_calls": [*before, *calls]}
            else:
                turns.append({"role": "assistant", "content": "", "tool_calls": calls} | turn_marks(message))
        elif role in answers:
            turns.append(message | {"role": "tool"})
        else:
            turns.append(message)
    return turns


def loss_flags(message: Row) -> Row:
    """Return the keys of a raw turn that say how much its loss counts."""
    return {key: message[key] for key in FLAGS.intersection(message)}


def turn_marks(message: Row) -> Row:
    """Return the keys of a raw turn that go with it whatever its shape: its loss flags and its reasoning."""
    return {key: message[key] for key in _MARKS.intersection(message)}


_MARKS = FLAGS | SPELLINGS


def held_files(message: Row) -> Row:
    """Return the keys under which a raw turn holds files itself; no layout of turns shows them, so they are refused."""
    key = turn_files(message)
    return {} if key is None else {key: message[key]}


def _joined_reasoning(text: Row, call: Row, number: int) -> Row:
    """Return the reasoning of a call that joins the turn before it. Raises `RowError` if both have some."""
    traces = [{key: turn[key] for key in SPELLINGS.intersection(turn) if turn[key]} for turn in (text, call)]
    if all(traces) and set(traces[0].values()) != set(traces[1].values()):
        reason, hint = "a call and the text before it differ in their reasoning", "keep one of them"
        raise RowError("REASONING", reason, path=f"messages.{number}", value=traces, hint=hint)
    return {} if traces[0] else traces[1]


def _check_same_weight(text: Row, call: Row, number: int) -> None:
    """Raise `RowError` if a call and the text before it, which become one turn, differ in their weight."""
    weights = [turn_weight(turn, f"messages.{number}") for turn in (text, call)]
    if len({1 if weight is None else weight for weight in weights}) > 1:
        reason, hint = "a call and the text before it differ in their loss", "give both the same flag"
        raise RowError("LOSS_FLAG", reason, path=f"messages.{number}", value=weights, hint=hint)
