"""Conversations of ShareGPT and LLaMA-Factory.

    {"conversations": [{"from": "human", "value": "<image>What is it?"}, {"from": "gpt", "value": "..."}],
     "system"?, "tools"?: JSON text, "images"?, "videos"?, "audios"?}

`function_call` turns hold JSON text {"name", "arguments"} (or a list of such), `observation` turns what the
tool answered. Media tags in human turns stand for the listed files."""

from __future__ import annotations

from typing import Any

from dfkdata.common.config import Config
from dfkdata.formats import Fit, Likeness, Row, text
from dfkdata.formats._conversation_row import conversation_record
from dfkdata.rows.call_turns import held_files, joined_calls, turn_marks
from dfkdata.rows.chat_turns import SPEAKERS, conversation, listed
from dfkdata.rows.record import Record, RowError

SCHEMA: str | None = None
COLUMNS = (frozenset({"conversations"}),)


class Options(Config):
    """This format has no options."""


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like a conversation of speakers and values."""
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        return None
    if not all(isinstance(turn, dict) and "from" in turn and "value" in turn for turn in turns):
        return None
    return Likeness(Fit.LIKELY, "turns with from and value under conversations")


def record(row: Row, source: str, options: Options) -> Record:
    """Return one conversation; an unknown speaker raises `RowError`."""
    turns = row.get("conversations")
    if isinstance(turns, list):
        turns = joined_calls(
            [_turn(turn, number) for number, turn in enumerate(turns)], call="tool_call", answers=()
        )
        if system := text(row, "system"):
            turns = [{"role": "system", "content": system}, *turns]
    return conversation_record(row, source, conversation(turns, listed(row), tags=True))


def _turn(turn: Any, number: int) -> dict[str, Any]:
    speaker = turn.get("from") if isinstance(turn, dict) else None
    if not isinstance(speaker, str) or speaker not in SPEAKERS:
        path, hint = f"conversations.{number}.from", f"known are {', '.join(SPEAKERS)}"
        raise RowError("ROLE_UNKNOWN", f"the speaker {speaker!r}", path=path, value=turn, hint=hint)
    return {"role": SPEAKERS[speaker], "content": turn.get("value")} | turn_marks(turn) | held_files(turn)
