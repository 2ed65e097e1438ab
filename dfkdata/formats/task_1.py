"""Caption structures as tool calls, one conversation a row, with the tools and the teacher's accounting.

    {"messages": [system, user, {"role": "assistant", "tool_calls": [...]}], "tools": [...], "meta": {...}}

The system text and the tools of such a file are the scaffold that its adapters were trained with;
`scaffold(path)` returns them. Arguments may be an object or JSON text. The caption (the user turn) is kept as
`meta.text`."""

from __future__ import annotations

from pathlib import Path

from dfkdata import sources
from dfkdata.common.config import Config
from dfkdata.common.errors import DataError
from dfkdata.common.hashing import content_id
from dfkdata.formats import Fit, Likeness, Row
from dfkdata.formats._conversation_row import messages_record
from dfkdata.formats._likeness import turns
from dfkdata.rows.record import Record, Reject, RowError, Scaffold

SCHEMA: str | None = "caption"
COLUMNS = (frozenset({"messages", "tools"}),)


class Options(Config):
    """This format has no options."""


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like a caption with a call of the captions' tool."""
    messages = turns(row)
    calls = messages[-1].get("tool_calls") if messages is not None and row.get("tools") else None
    if not isinstance(calls, list) or len(calls) != 1 or "emit_caption_schema" not in str(calls[0]):
        return None
    return Likeness(Fit.TYPICAL, "a last turn that calls emit_caption_schema")


def record(row: Row, source: str, options: Options) -> Record:
    """Return one caption with its call; a row that does not end in a tool call raises `RowError`."""
    from msgspec.structs import replace

    conversation = messages_record(row, source)
    assert conversation.messages is not None
    last = conversation.messages[-1]
    if not last.get("tool_calls"):
        hint = "the last turn is the assistant's and calls the tool"
        raise RowError("NO_CALL", "the row ends without a tool call", path="messages", value=last, hint=hint)
    caption = "\n".join(
        part["text"]
        for turn in conversation.messages
        if turn["role"] == "user"
        for part in turn["content"]
        if part["type"] == "text"
    )
    return replace(
        conversation,
        group=conversation.group or ("" if conversation.images else content_id(caption)),
        gold=last["tool_calls"][0]["function"]["arguments"],
        meta={"text": caption} | conversation.meta,
    )


def scaffold(path: str | Path) -> Scaffold:
    """Return the system text and the tools of the first row of a task_1 file.

    Raises:
        DataError: If the file cannot be read or its first row has no system turn with tools.
    """
    pairs = (pair for part in sources.parts(path) for pair in sources.rows(part))
    row, source = next(pairs, ({}, str(path)))
    if isinstance(row, Reject):
        raise DataError(f"{source}: {row.reason}")
    try:
        first = record(row, source, Options())
    except RowError as fault:
        raise DataError(f"{source}: {fault.reason}") from fault
    assert first.messages is not None
    system = first.messages[0]
    if system["role"] != "system" or not first.tools:
        raise DataError(f"{source}: the first row has no system turn with tools; give a task_1 file")
    if any(part["type"] != "text" for part in system["content"]):
        raise DataError(f"{source}: the system turn holds a picture; a scaffold is text alone")
    return Scaffold("".join(part["text"] for part in system["content"]), first.tools)
