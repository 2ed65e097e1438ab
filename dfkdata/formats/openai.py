"""Chat rows in OpenAI's fine-tuning form.

    {"messages": [{"role", "content": text | [{"type": "text" | "image_url" | ...}], "tool_calls"?}],
     "tools"?}

`image_url` may hold a `data:` URI or a path; addresses are refused, since nothing is fetched while
converting. Tool arguments are JSON text. `developer` turns are system turns."""

from __future__ import annotations

from dfkdata.common.config import Config
from dfkdata.formats import Row
from dfkdata.formats._conversation_row import conversation_record
from dfkdata.rows.chat_turns import conversation, listed, system_turn
from dfkdata.rows.record import Record

SCHEMA: str | None = None
COLUMNS = (frozenset({"messages"}),)


class Options(Config):
    """This format has no options."""


def record(row: Row, source: str, options: Options) -> Record:
    """Return one conversation; turns that cannot be read raise `RowError`."""
    messages = row.get("messages")
    if isinstance(messages, list):
        messages = [system_turn(message) for message in messages]
    turns = conversation(messages, listed(row), tags=False)
    return conversation_record(row, source, turns, keep=("parallel_tool_calls",))
