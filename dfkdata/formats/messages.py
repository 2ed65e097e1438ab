"""Chat rows as TRL, Unsloth and this package write them.

    {"messages": [{"role", "content": text | [parts], "tool_calls"?}], "images"? | "image"?, "tools"?, "id"?,
     "meta"?}

Image parts may be bare placeholders for `images`, or name their file themselves. If all contents are plain
text, images belong to the first user turn, before its text, as TRL reads such rows. Keys that a columnar
loader filled with null are dropped. Tool arguments may be objects or JSON text."""

from __future__ import annotations

from dfkdata.common.config import Config
from dfkdata.formats import Fit, Likeness, Row
from dfkdata.formats._conversation_row import messages_record
from dfkdata.formats._likeness import turns
from dfkdata.rows.record import Record

SCHEMA: str | None = None
COLUMNS = (frozenset({"messages"}),)


class Options(Config):
    """This format has no options."""


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like chat turns: every list of turns is likely to be this layout."""
    if turns(row) is None and not isinstance(row.get("messages"), str):
        return None
    return Likeness(Fit.LIKELY, "a list of turns under messages")


def record(row: Row, source: str, options: Options) -> Record:
    """Return one conversation; turns that cannot be read raise `RowError`."""
    return messages_record(row, source)
