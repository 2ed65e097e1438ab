"""Keywords of texts as conversations; the answer is a JSON array of strings.

{"messages": [..., {"role": "assistant", "content": "[\"banjir\", \"jakarta\"]"}]}"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from dfkdata.common.config import Config
from dfkdata.formats import Fit, Likeness, Row
from dfkdata.formats._conversation_row import messages_record
from dfkdata.formats._likeness import last_text, turns
from dfkdata.rows.chat_turns import as_json
from dfkdata.rows.record import Record, RowError

SCHEMA: str | None = "keywords"
COLUMNS = (frozenset({"messages"}),)


class Options(Config):
    """This format has no options."""


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like a text whose answer is a list of words."""
    messages = turns(row)
    if messages is None:
        return None
    answer = last_text(messages).strip()
    if answer.startswith("[") and answer.endswith("]"):
        return Likeness(Fit.TYPICAL, "answers that are JSON arrays")
    return Likeness(Fit.POSSIBLE, "a list of turns under messages")


def record(row: Row, source: str, options: Options) -> Record:
    """Return one conversation; an answer that is not an array of strings raises `RowError`."""
    conversation = messages_record(row, source)
    assert conversation.messages is not None
    last: dict[str, Any] = conversation.messages[-1]
    answer = "".join(part.get("text", "") for part in last["content"])
    words = as_json(answer, "GOLD_INVALID", f"messages.{len(conversation.messages) - 1}.content")
    if last["role"] != "assistant" or not isinstance(words, list):
        hint = 'write ["word", "word"]'
        raise RowError(
            "GOLD_INVALID", "the answer is no JSON array", path="messages", value=answer, hint=hint
        )
    return replace(conversation, gold={"keywords": words})
