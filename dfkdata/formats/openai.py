"""Chat rows in OpenAI's fine-tuning form.

    {"messages": [{"role", "content": text | [{"type": "text" | "image_url" | ...}], "tool_calls"?}],
     "tools"?}

`image_url` may hold a `data:` URI or a path; addresses are refused, since nothing is fetched while
converting. Tool arguments are JSON text. `developer` turns are system turns."""

from __future__ import annotations

from dfkdata.common.config import Config
from dfkdata.formats import Fit, Likeness, Row
from dfkdata.formats._conversation_row import conversation_record
from dfkdata.formats._likeness import parts, turns
from dfkdata.rows.chat_turns import conversation, listed, system_turn
from dfkdata.rows.record import Record

SCHEMA: str | None = None
COLUMNS = (frozenset({"messages"}),)


class Options(Config):
    """This format has no options."""


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like OpenAI's: its parts, roles and keys set it apart from other turns."""
    messages = turns(row)
    if messages is None or row.get("images") or row.get("image"):
        return None
    kinds = {kind for part in parts(messages) if isinstance(kind := part.get("type"), str)}
    if "image" in kinds:
        return None
    if signs := sorted({"image_url", "input_audio", "input_image"} & kinds):
        return Likeness(Fit.MARKED, f"parts of the type {signs[0]}")
    if "parallel_tool_calls" in row or any(turn["role"] == "developer" for turn in messages):
        sign = "parallel_tool_calls" if "parallel_tool_calls" in row else "turns of the role developer"
        return Likeness(Fit.MARKED, sign)
    return Likeness(Fit.POSSIBLE, "a list of turns under messages")


def record(row: Row, source: str, options: Options) -> Record:
    """Return one conversation; turns that cannot be read raise `RowError`."""
    messages = row.get("messages")
    if isinstance(messages, list):
        messages = [system_turn(message) for message in messages]
    turns = conversation(messages, listed(row), tags=False)
    return conversation_record(row, source, turns, keep=("parallel_tool_calls",))
