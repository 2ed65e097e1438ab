"""Chat rows of ms-swift and SiliconFlow: text with media tags.

    {"messages": [{"role": "user", "content": "<image>What is it?"}, ...], "images"?, "videos"?, "audios"?,
     "tools"?}

`<image>`, `<video>` and `<audio>` in user texts stand for the listed files, in order and in equal number.
Roles `tool_call` and `tool_response` (or `tool`) carry JSON text."""

from __future__ import annotations

from typing import Any

from dfkdata.common.config import Config
from dfkdata.formats import Row
from dfkdata.formats._conversation_row import carried
from dfkdata.rows.chat_turns import as_json, conversation, listed, tools
from dfkdata.rows.record import Fault, Record

SCHEMA: str | None = None
COLUMNS = (frozenset({"messages"}),)


class Options(Config):
    """No choices."""


def record(row: Row, source: str, options: Options) -> Record:
    """One conversation. Raises `Fault` for calls that are no JSON."""
    messages = row.get("messages")
    if isinstance(messages, list):
        messages = joined_calls(messages, call="tool_call", answers=("tool_response",))
    found = conversation(messages, listed(row), tags=True)
    return carried(row, source, found, tools=tools(row.get("tools")), keep=("objects", "rejected_response"))


def joined_calls(messages: list[Any], *, call: str, answers: tuple[str, ...]) -> list[Any]:
    """Turns of the role `call`, JSON text each, become the tool calls of one assistant turn; `answers` become
    `tool`."""
    turns: list[Any] = []
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role == call:
            asked = as_json(str(message.get("content")), "TOOL_ARGS_NOT_OBJECT", f"messages.{number}.content")
            calls = asked if isinstance(asked, list) else [asked]
            if turns and isinstance(turns[-1], dict) and turns[-1].get("role") == "assistant":
                before = turns[-1].get("tool_calls") or []
                if not isinstance(before, list):
                    path = f"messages.{number - 1}.tool_calls"
                    raise Fault("TOOL_UNKNOWN", "tool_calls are no list", path=path, value=before)
                turns[-1] = turns[-1] | {"tool_calls": [*before, *calls]}
            else:
                turns.append({"role": "assistant", "content": "", "tool_calls": calls})
        elif role in answers:
            turns.append(message | {"role": "tool"})
        else:
            turns.append(message)
    return turns
