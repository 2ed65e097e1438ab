"""DFK claims as conversations without images: the JSON or JSONL of the second and third DFK text data sets.

    {"messages": [{"role", "content": text | [text parts]}]}

`--schema dfk_explained` (or dfk_text) reads the answer's text into gold."""

from __future__ import annotations

from dfkdata.common.config import Config
from dfkdata.formats import Row
from dfkdata.formats._conversation_row import messages_record
from dfkdata.rows.record import Record, RowError

SCHEMA: str | None = None
COLUMNS = (frozenset({"messages"}),)


class Options(Config):
    """This format has no options."""


def record(row: Row, source: str, options: Options) -> Record:
    """Return one conversation; a row with images belongs to another data set and raises `RowError`."""
    conversation = messages_record(row, source)
    if conversation.images:
        hint = "read it with --from dfk_messages"
        raise RowError(
            "FORMAT_OTHER", "a text row with images", path="messages", value=conversation.images, hint=hint
        )
    return conversation
