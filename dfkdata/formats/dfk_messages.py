"""DFK posts as conversations: the JSON or JSONL that the fourth DFK data set uses.

    {"messages": [...]} or a bare list of turns; parts {"type": "text", "text"} and {"type": "image", "image":
    path}

Image paths are exact. Published loaders searched by file name in neighbouring folders and took the first hit,
which put wrong pictures under posts; here such a row is a reject. `--schema dfk_label` reads the answer's
text into gold."""

from __future__ import annotations

from dfkdata.common.config import Config
from dfkdata.formats import Record, Row
from dfkdata.formats._conversation_row import messages_record

SCHEMA: str | None = None
COLUMNS = (frozenset({"messages"}),)


class Options(Config):
    """No choices."""


def record(row: Row, source: str, options: Options) -> Record:
    """One conversation. Raises `RowError` for turns that cannot be read."""
    return messages_record(row, source)
