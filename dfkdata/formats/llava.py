"""Conversations of LLaVA: `image` names one picture, and `<image>` in a text says where it is shown.

    {"id": "000000033471", "image": "coco/train2017/000000033471.jpg",
     "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A bus."}]}

The line break between `<image>` and the text belongs to LLaVA's own template and is left out. Rows without
`image` are text; `image` may be a list."""

from __future__ import annotations

import re
from typing import Any

from dfkdata.common.config import Config
from dfkdata.formats import Fit, Likeness, Record, Row, RowError
from dfkdata.formats._conversation_row import conversation_record
from dfkdata.rows.call_turns import held_files, turn_marks
from dfkdata.rows.chat_turns import SPEAKERS, conversation, listed

SCHEMA: str | None = None
COLUMNS = (frozenset({"conversations"}),)
_TAG = re.compile(r"\n?(<(?:image|video)>)\n?")


class Options(Config):
    """This format has no options."""


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like LLaVA's: turns with from and value, and one picture under image."""
    turns = row.get("conversations")
    if (
        not isinstance(turns, list)
        or not turns
        or row.get("images") is not None
        or row.get("tools") is not None
    ):
        return None
    if not all(isinstance(turn, dict) and "from" in turn and "value" in turn for turn in turns):
        return None
    for kind in ("image", "video"):
        if isinstance(row.get(kind), str | list):
            return Likeness(Fit.MARKED, f"turns with from and value, and a file under {kind}")
    return Likeness(Fit.POSSIBLE, "turns with from and value")


def record(row: Row, source: str, options: Options) -> Record:
    """Return one conversation; an unknown speaker raises `RowError`."""
    turns = row.get("conversations")
    if isinstance(turns, list):
        turns = [_turn(turn, number) for number, turn in enumerate(turns)]
    return conversation_record(row, source, conversation(turns, listed(row), tags=True))


def _turn(turn: Any, number: int) -> dict[str, Any]:
    speaker = turn.get("from") if isinstance(turn, dict) else None
    if not isinstance(speaker, str) or SPEAKERS.get(speaker) not in ("user", "assistant", "system"):
        path, hint = f"conversations.{number}.from", "known are human, gpt and system"
        raise RowError("ROLE_UNKNOWN", f"the speaker {speaker!r}", path=path, value=turn, hint=hint)
    value = turn.get("value")
    if isinstance(value, str) and SPEAKERS[speaker] == "user":
        value = _TAG.sub(r"\1", value)
    return {"role": SPEAKERS[speaker], "content": value} | turn_marks(turn) | held_files(turn)
