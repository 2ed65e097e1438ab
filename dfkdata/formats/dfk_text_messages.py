"""DFK claims as conversations without images: the JSON or JSONL of the second and third DFK text data sets.

    {"messages": [{"role", "content": text | [text parts]}]}

`--schema dfk_explained` (or dfk_text) reads the answer's text into gold."""

from __future__ import annotations

from dfkdata.common.config import Config
from dfkdata.formats import Fit, Likeness, Row
from dfkdata.formats._conversation_row import messages_record
from dfkdata.formats._likeness import last_text, turns
from dfkdata.rows.record import Record, RowError

SCHEMA: str | None = None
COLUMNS = (frozenset({"messages"}),)


class Options(Config):
    """This format has no options."""


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like a claim whose answer names a label and gives reasons."""
    messages = turns(row)
    if messages is None or row.get("images") or row.get("image"):
        return None
    answer = last_text(messages).lower()
    if "label:" in answer and "penjelasan:" in answer:
        return Likeness(Fit.MARKED, "answers with Label: and Penjelasan:")
    return Likeness(Fit.POSSIBLE, "a list of turns under messages")


def record(row: Row, source: str, options: Options) -> Record:
    """Return one conversation; a row with images belongs to another data set and raises `RowError`."""
    conversation = messages_record(row, source)
    if conversation.images:
        hint = "read it with --from dfk_messages"
        raise RowError(
            "FORMAT_OTHER", "a text row with images", path="messages", value=conversation.images, hint=hint
        )
    return conversation
