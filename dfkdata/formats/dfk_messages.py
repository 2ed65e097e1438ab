"""DFK posts as conversations: the JSON or JSONL that the fourth DFK data set uses.

    {"messages": [...]} or a bare list of turns; parts {"type": "text", "text"} and {"type": "image", "image":
    path}

Image paths are exact. Published loaders searched by file name in neighbouring folders and took the first hit,
which put wrong pictures under posts; here such a row is a reject. `--schema dfk_label` reads the answer's
text into gold."""

from __future__ import annotations

from dfkdata.common.config import Config
from dfkdata.formats import Fit, Likeness, Record, Row
from dfkdata.formats._conversation_row import messages_record
from dfkdata.formats._likeness import last_text, parts, turns

SCHEMA: str | None = None
COLUMNS = (frozenset({"messages"}),)


class Options(Config):
    """This format has no options."""


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like a post whose answer is a label with an analysis."""
    messages = turns(row)
    if messages is None:
        return None
    answer = last_text(messages)
    if (
        answer.startswith("Label:")
        and "Analisis:" in answer
        and any("image" in part for part in parts(messages))
    ):
        return Likeness(Fit.MARKED, "pictures and answers of the form Label: ... Analisis: ...")
    return Likeness(Fit.POSSIBLE, "a list of turns under messages")


def record(row: Row, source: str, options: Options) -> Record:
    """Return one conversation; turns that cannot be read raise `RowError`."""
    return messages_record(row, source)
