"""Chat rows of ms-swift and SiliconFlow: text with media tags.

    {"messages": [{"role": "user", "content": "<image>What is it?"}, ...], "images"?, "videos"?, "audios"?,
     "tools"?, "system"?}

`<image>`, `<video>` and `<audio>` in user texts stand for the listed files, in order and in equal number.
Roles `tool_call` and `tool_response` (or `tool`) carry JSON text."""

from __future__ import annotations

from dfkdata.common.config import Config
from dfkdata.formats import Fit, Likeness, Row, text
from dfkdata.formats._conversation_row import conversation_record
from dfkdata.formats._likeness import turns
from dfkdata.rows.call_turns import joined_calls
from dfkdata.rows.chat_turns import conversation, listed
from dfkdata.rows.record import Record

SCHEMA: str | None = None
COLUMNS = (frozenset({"messages"}),)


class Options(Config):
    """This format has no options."""


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like ms-swift's: texts with media tags beside lists of files, or its roles."""
    messages = turns(row)
    if messages is None or any(isinstance(turn.get("content"), list) for turn in messages):
        return None
    if any(turn["role"] in ("tool_call", "tool_response") for turn in messages):
        return Likeness(Fit.MARKED, "turns of the role tool_call")
    for kind in ("image", "video", "audio"):
        tagged = any(f"<{kind}>" in str(turn.get("content")) for turn in messages)
        if tagged and isinstance(row.get(f"{kind}s"), list | str):
            return Likeness(Fit.MARKED, f"the tag <{kind}> in texts, and files under {kind}s")
    return Likeness(Fit.POSSIBLE, "a list of turns under messages")


def record(row: Row, source: str, options: Options) -> Record:
    """Return one conversation; calls that are not JSON raise `RowError`."""
    messages = row.get("messages")
    if isinstance(messages, list):
        messages = joined_calls(messages, call="tool_call", answers=("tool_response",))
        if system := text(row, "system"):  # ms-swift puts it before the turns
            messages = [{"role": "system", "content": system}, *messages]
    turns = conversation(messages, listed(row), tags=True)
    return conversation_record(row, source, turns, keep=("objects", "rejected_response"))
