"""Chat rows of ms-swift and SiliconFlow: text with media tags.

    {"messages": [{"role": "user", "content": "<image>What is it?"}, ...], "images"?, "videos"?, "audios"?,
     "tools"?}

`<image>`, `<video>` and `<audio>` in user texts stand for the listed files, in order and in equal number.
Roles `tool_call` and `tool_response` (or `tool`) carry JSON text."""

from __future__ import annotations

from dfkdata.common.config import Config
from dfkdata.formats import Row
from dfkdata.formats._conversation_row import conversation_record
from dfkdata.rows.chat_turns import conversation, joined_calls, listed
from dfkdata.rows.record import Record

SCHEMA: str | None = None
COLUMNS = (frozenset({"messages"}),)


class Options(Config):
    """This format has no options."""


def record(row: Row, source: str, options: Options) -> Record:
    """Return one conversation; calls that are not JSON raise `RowError`."""
    messages = row.get("messages")
    if isinstance(messages, list):
        messages = joined_calls(messages, call="tool_call", answers=("tool_response",))
    turns = conversation(messages, listed(row), tags=True)
    return conversation_record(row, source, turns, keep=("objects", "rejected_response"))
