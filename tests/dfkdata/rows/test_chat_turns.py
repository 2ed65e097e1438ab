"""Turns of one text, which are read on a short way, become what the long way makes of them."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest

from dfkdata.formats._conversation_row import conversation_record
from dfkdata.rows.chat_turns import conversation, listed
from dfkdata.rows.record import RowError

TEXTS = ["Apa?", "", " ", "1 < 2", "<image>Apa?", "<think>a</think>\n\nb", "think> b", "é", "x\0", "\n\nya"]
CONTENTS: list[Any] = [
    *TEXTS,
    *([{"type": "text", "text": text}] for text in TEXTS),
    *(None, [], [{"type": "text", "text": 5}], [{"type": "image"}], [{"text": "a"}], ["a"], 7),
    {"type": "text", "text": "a"},
]  # fmt: skip
BESIDE = [
    {},
    {"id": "a"},
    {"link": "b", "meta": {"group": "c", "x": 1}},
    {"images": ["a.png"]},
    {"image": None, "tools": None},
    {"objects": {"a": 1}},
]


def outcome(row: dict[str, Any], tags: bool) -> Any:
    """Return the record of a row, encoded, or its fault."""
    try:
        turns = conversation(row["messages"], listed(row), tags=tags)
        record = conversation_record(row, "a.jsonl:1", turns, keep=("objects",))
    except RowError as fault:
        return fault.code, fault.path, fault.reason
    facts = msgspec.structs.asdict(record)
    facts["warnings"] = [warning.code for warning in record.warnings]
    return msgspec.json.encode(facts)


@pytest.mark.parametrize("tags", [True, False])
@pytest.mark.parametrize("role", ["user", "assistant", "tool", "bot", None, 3])
def test_a_null_beside_role_and_content_changes_nothing(role: Any, tags: bool) -> None:
    """A turn of more keys than two goes the long way, and nulls are dropped there."""
    for content, beside, is_first in product(CONTENTS, BESIDE, (True, False)):
        turn = {"role": role, "content": content} if is_first else {"content": content, "role": role}
        answer = {"role": "assistant", "content": "Ya."}
        short = {"messages": [turn, answer], **beside}
        long = {"messages": [turn | {"name": None}, answer | {"name": None}], **beside}
        assert outcome(short, tags) == outcome(long, tags), (content, beside)
