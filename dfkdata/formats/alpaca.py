"""Instruction, input, output: Alpaca rows and their many spellings.

    {"instruction": "Translate.", "input": "I love you.", "output": "Je t'aime.", "system"?,
     "history"?: [[q, a], ...], "image"? | "images"?: paths or bytes, "videos"?, "audios"?, "id"?}

The first non-empty text among a role's spellings counts (see ALIASES). Published converters join instruction
and input in three ways that give different prompts; `join` says which, and the manifest records it. Images,
videos and audio follow the text. Anything else than text in a text column is a reject: published converters
turn it into an empty answer."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydantic import field_validator

from dfkdata.common.config import Config
from dfkdata.formats import Fit, Likeness, Row, group_key, key
from dfkdata.formats._conversation_row import template_options
from dfkdata.formats._fields import GROUP_KEYS
from dfkdata.formats._pairs import reasoning_of
from dfkdata.rows.file_names import file_names
from dfkdata.rows.loss_weight import ROW_FLAGS, row_flags
from dfkdata.rows.reasoning import SPELLINGS, canonical_reasoning
from dfkdata.rows.record import Record, RowError

SCHEMA: str | None = None
COLUMNS = tuple(
    frozenset({instruction, output})
    for instruction in ("instruction", "prompt", "text", "question", "query")
    for output in ("output", "response", "completion", "answer", "reply", "label", "labels", "gold", "target")
)

ALIASES: dict[str, tuple[str, ...]] = {
    "instruction": ("instruction", "prompt", "text", "question", "query"),
    "input": ("input", "context", "source", "examples"),
    "output": ("output", "response", "completion", "answer", "reply", "label", "labels", "gold", "target"),
    "images": ("images", "image", "img", "image_path"),
}
"""The spellings of each role, in the order in which they are tried."""

_MORE = {
    "system", "history", "id", "meta", "messages", "conversations", "chat_template_kwargs", *SPELLINGS, *GROUP_KEYS,
    *ALIASES["images"], "video", "videos", "audio", "audios", *ROW_FLAGS,
}  # fmt: skip
_LABELS = ("label", "labels", "gold", "target")

_STANFORD = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
_STANFORD_ALONE = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
_JOINS = ("ftv", "newline", "stanford")


class Options(Config):
    """join: "ftv" (blank line, `Input:`, line break), "newline", "stanford", or a template with {instruction}
    and {input}. system: a system turn for rows that have none."""

    join: str = "ftv"
    system: str = ""

    @field_validator("join")
    @classmethod
    def _known(cls, join: str) -> str:
        if join not in _JOINS and not ("{instruction}" in join and "{input}" in join):
            raise ValueError(
                f"write {', '.join(_JOINS)}, or a template that holds {{instruction}} and {{input}}"
            )
        return join


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like an instruction with its answer."""
    if row.get("instruction") is not None and "output" in row:
        return Likeness(Fit.LIKELY, "columns instruction, output")
    instructions, contexts, answers, _ = _names(tuple(row))
    asked = [name for name in (*instructions, *contexts) if isinstance(row[name], str)]
    answered = [name for name in answers if isinstance(row[name], str | list)]
    if not asked or not answered:
        return None
    return Likeness(Fit.POSSIBLE, f"columns {asked[0]}, {answered[0]}")


def record(row: Row, source: str, options: Options) -> Record:
    """Return one instruction with its answer; what is not text, and a row with turns, raises `RowError`.

    A missing answer gives a warning."""
    instructions, contexts, answers, more = _names(tuple(row))
    instruction = _first(row, instructions)
    context = _first(row, contexts) if contexts else ""
    output = _first(row, answers)
    user = _join(instruction, context, options.join) if context or options.join == "stanford" else instruction
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": user}]},
        {"role": "assistant", "content": [{"type": "text", "text": output}]},
    ]
    warnings = () if output else (_no_answer(row, answers),)
    if "<" in output and "think>" in output:  # one character is found faster
        canonical_reasoning(turns[-1], answers[0])
    if not more:
        if options.system:
            turns.insert(0, _turn("system", options.system))
        return Record(id="", group="", source=source, messages=turns, warnings=warnings)
    return _rich(row, source, options, turns, warnings)


@lru_cache(maxsize=256)
def _names(keys: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], bool]:
    """Return the spellings of instruction, input and output among `keys`, and whether there are more keys."""
    spellings = {role: tuple(name for name in names if name in keys) for role, names in ALIASES.items()}
    more = not _MORE.isdisjoint(keys)
    return spellings["instruction"], spellings["input"], spellings["output"], more


def _first(row: Row, names: tuple[str, ...]) -> str:
    """Return the first non-empty text under `names`; of a list of labels the first."""
    for name in names:
        value = row[name]
        if type(value) is str:
            if text := value.strip():
                return text
        elif type(value) is list and value and type(value[0]) is str and name in _LABELS:
            return value[0].strip()
        elif value is not None:
            hint = "write it as a string"
            raise RowError(
                "NOT_TEXT", f"{name} is {type(value).__name__}, not text", path=name, value=value, hint=hint
            )
    return ""


def _no_answer(row: Row, names: tuple[str, ...]) -> RowError:
    """Return the warning about a missing answer; a row of another format raises `RowError`."""
    if "messages" in row or "conversations" in row:
        hint = "read it with --from messages or --from sharegpt"
        raise RowError("FORMAT_OTHER", "the row carries turns and no instruction", path="messages", hint=hint)
    path = names[0] if names else "output"
    return RowError(
        "EMPTY_ANSWER", "the row has no answer", path=path, value=row, hint="write output, or drop the row"
    )


def _join(instruction: str, context: str, join: str) -> str:
    match join:
        case "ftv":
            return f"{instruction}\n\nInput:\n{context}" if instruction else f"Input:\n{context}"
        case "newline":
            return f"{instruction}\n{context}"
        case "stanford":
            join = _STANFORD if context else _STANFORD_ALONE
    before, _, after = join.partition("{instruction}")
    return before.replace("{input}", context) + instruction + after.replace("{input}", context)


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _rich(
    row: Row, source: str, options: Options, turns: list[dict[str, Any]], warnings: tuple[RowError, ...]
) -> Record:
    """Return the record of a row with a system text, earlier turns, images or a key."""
    system = _first(row, ("system",)) if "system" in row else ""
    before = [_turn("system", system or options.system)] if system or options.system else []
    images, videos, audios = _images(row), _files(row, "videos", "video"), _files(row, "audios", "audio")
    for kind, files in (("image", images), ("video", videos), ("audio", audios)):
        turns[0]["content"] += [{"type": kind} for _ in files]
    if trace := reasoning_of(row):
        turns[-1] |= {key: trace[key] for key in trace if key not in turns[-1]}
        canonical_reasoning(turns[-1], "output")
    name = key(row, "id")
    return Record(
        id=name,
        keyed=bool(name),
        group=group_key(row),
        source=source,
        messages=before + _history(row) + turns,
        images=images,
        videos=videos,
        audios=audios,
        chat_template_kwargs=template_options(row),
        warnings=(*warnings, *row_flags(row)),
    )


def _images(row: Row) -> tuple[str, ...]:
    return _files(row, *ALIASES["images"])


def _files(row: Row, *names: str) -> tuple[str, ...]:
    """Return the files under the first of these columns that is filled."""
    return file_names(next((row[name] for name in names if row.get(name)), None), names[0])


def _history(row: Row) -> list[dict[str, Any]]:
    pairs = row.get("history") or []
    turns = []
    for number, pair in enumerate(pairs if isinstance(pairs, list) else [pairs]):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            hint = "write [[question, answer], ...]"
            raise RowError(
                "NOT_TEXT", "history is no list of pairs", path=f"history.{number}", value=pair, hint=hint
            )
        answer = _turn("assistant", pair[1].strip())
        if "think>" in pair[1]:
            canonical_reasoning(answer, f"history.{number}.1")
        turns += [_turn("user", pair[0].strip()), answer]
    return turns
