"""Keywords of texts as conversations; the answer is a JSON array of strings.

{"messages": [..., {"role": "assistant", "content": "[\"banjir\", \"jakarta\"]"}]}"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from dfkdata.common.config import Config
from dfkdata.formats import Row
from dfkdata.formats._conversation_row import messages_record
from dfkdata.rows.chat_turns import as_json
from dfkdata.rows.record import Record, RowError

SCHEMA: str | None = "keywords"
COLUMNS = (frozenset({"messages"}),)


class Options(Config):
    """This format has no options."""


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
