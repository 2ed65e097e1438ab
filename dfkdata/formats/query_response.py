"""Query and response as ms-swift reads them, with earlier turns and media tags.

    {"query": "<image>What is it?", "response": "A bus.", "system"?, "history"?: [[q, a], ...], "images"?,
     "videos"?, "audios"?, "tools"?, "id"?}

The first spelling that is filled counts: query, prompt, input, instruction, question, problem; response,
answer, output, targets, target, answer_key, answers, solution, text, completion, content. Both may also be lists
of turns. Media tags in users' texts stand for the listed files; where no text has a tag, the files are shown
before the first text, as ms-swift shows them."""

from __future__ import annotations

from typing import Any

from dfkdata.common.config import Config
from dfkdata.formats import Fit, Likeness, Record, Row, RowError, text
from dfkdata.formats._conversation_row import conversation_record
from dfkdata.formats._pairs import answer_turns, asked_turns
from dfkdata.rows.chat_turns import conversation, listed

SCHEMA: str | None = None
QUERY = ("query", "prompt", "input", "instruction", "question", "problem")
RESPONSE = (
    *(
        "response",
        "answer",
        "output",
        "targets",
        "target",
        "answer_key",
        "answers",
        "solution",
        "text",
        "completion",
    ),
    "content",
)
COLUMNS = tuple(frozenset({query, response}) for query in QUERY for response in RESPONSE)


class Options(Config):
    """system: a system turn for rows that have none."""

    system: str = ""


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like ms-swift's: its other spellings are those of instructions."""
    if not all(isinstance(row.get(name), str | list) for name in ("query", "response")):
        return None
    return Likeness(Fit.LIKELY, "columns query, response")


def record(row: Row, source: str, options: Options) -> Record:
    """Return one pair with its earlier turns; what is no text raises `RowError`."""
    query = next((name for name in QUERY if row.get(name)), QUERY[0])
    response = next((name for name in RESPONSE if row.get(name) and name != query), RESPONSE[0])
    system = text(row, "system") or text(row, "system_prompt") or options.system
    turns: list[Any] = [*_history(row), *asked_turns(row, query), *answer_turns(row, response)]
    if system:
        turns.insert(0, {"role": "system", "content": system})
    files = listed(row)
    return conversation_record(
        row,
        source,
        conversation(_with_tags(turns, files), files, tags=True),
        keep=("objects", "rejected_response"),
    )


def _with_tags(turns: list[Any], files: dict[str, list[str]]) -> list[Any]:
    """Return the turns with tags before the first user's text if files are listed and no text has a tag."""
    at = next(
        (at for at, turn in enumerate(turns) if isinstance(turn, dict) and turn.get("role") == "user"), None
    )
    if at is None or not isinstance(turns[at].get("content"), str):
        return turns
    users = "".join(
        str(turn.get("content")) for turn in turns if isinstance(turn, dict) and turn.get("role") == "user"
    )
    missing = [kind for kind, names in files.items() if names and f"<{kind}>" not in users]
    tags = "".join(f"<{kind}>" * len(files[kind]) for kind in missing)
    return [*turns[:at], turns[at] | {"content": tags + turns[at]["content"]}, *turns[at + 1 :]]


def _history(row: Row) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    pairs = row.get("history") or []
    for number, pair in enumerate(pairs if isinstance(pairs, list) else [pairs]):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(one, str) for one in pair):
            path, hint = f"history.{number}", "write [[question, answer], ...]"
            raise RowError("NOT_TEXT", "history is no list of pairs", path=path, value=pair, hint=hint)
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return turns
