"""Prompt and completion as TRL reads them: two texts, or two lists of turns.

    {"prompt": "The sky is", "completion": " blue."}
    {"prompt": [{"role": "user", "content": "What is it?"}], "completion": [{"role": "assistant", ...}],
     "images"? | "image"?, "tools"?, "id"?, "meta"?}

A prompt that is a text becomes the user's turn and its completion the assistant's, both as they are: TRL itself
would continue such a text without a chat template. What this package writes with `--to prompt_completion` reads
back."""

from __future__ import annotations

from typing import Any

from dfkdata.common.config import Config
from dfkdata.formats import Fit, Likeness, Record, Row
from dfkdata.formats._conversation_row import conversation_record
from dfkdata.formats._pairs import answer_turns, asked_turns
from dfkdata.rows.chat_turns import conversation, listed

SCHEMA: str | None = None
COLUMNS = (frozenset({"prompt", "completion"}),)


class Options(Config):
    """This format has no options."""


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like a prompt with its completion."""
    if not all(isinstance(row.get(name), str | list) for name in ("prompt", "completion")):
        return None
    return Likeness(Fit.LIKELY, "columns prompt, completion")


def record(row: Row, source: str, options: Options) -> Record:
    """Return one pair; what is neither text nor turns raises `RowError`."""
    turns: list[Any] = [*asked_turns(row, "prompt"), *answer_turns(row, "completion")]
    return conversation_record(row, source, conversation(turns, listed(row), tags=False))
