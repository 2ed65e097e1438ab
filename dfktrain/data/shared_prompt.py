"""Render the prompts that the rows of a stage have: the texts that the model sees, with names in braces where rows
of one shape differ.

How it works: system turn, tools and template options are those of the rows. The user's turn is that of their schema,
if the rows were written by it, else {text} stands for each of its texts. The model's own template renders it, by the
call that renders training rows.

Guarantees: a row of a shape whose fields hold these names in braces has its prompt, byte for byte."""

from __future__ import annotations

from typing import Any

from dfkdata import schemas
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.rows.messages import before_answer, prompt
from dfkdata.rows.record import Record
from dfkdata.schemas import Schema, Text
from dfkeval.models.rendering import render
from dfktrain.data.stage_data import StageData


def stage_prompts(data: StageData, processor: Any) -> dict[str, int]:
    """Return the prompts of a stage's rows, each with the number of rows that have it, the most frequent first.

    Args:
        data: The stage's rows.
        processor: The processor or tokenizer that renders them.

    Returns:
        Rendered text, with one placeholder an image -> number of rows. Rows that share no such text are left out.
    """
    prompts: dict[str, int] = {}
    for shape in sorted(data.shapes.values(), key=lambda shape: -shape.rows):
        text = _shared(shape.example, processor)
        if text is not None:
            prompts[text] = prompts.get(text, 0) + shape.rows
    return dict(sorted(prompts.items(), key=lambda pair: -pair[1]))


def _shared(row: dict[str, Any], processor: Any) -> str | None:
    """Return the prompt that rows of the shape of `row` share; None if it asks nothing."""
    asked = before_answer(row["messages"])
    system = [turn for turn in asked[:1] if turn["role"] == "system"]
    user = [turn for turn in asked if turn["role"] == "user"]
    if not user:
        return None
    schema = _schema(row)
    frame = None if schema is None else _written_by(schema, user[-1], row)
    turns = [*system, frame or _without_texts(user[-1])]
    try:
        return render(processor, row, turns, generation_prompt=True)
    except DataError:
        return None  # a template that refuses a single question


def _schema(row: dict[str, Any]) -> Schema | None:
    meta = row.get("meta") or {}
    name, variant = meta.get("schema"), meta.get("variant")
    try:
        return None if name is None else schemas.load(name, variant, source="the training rows")
    except ConfigError:
        return None  # a schema of another project, which is not installed or not trusted here


def _written_by(schema: Schema, turn: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | None:
    """Return the user's turn of a schema, its fields in braces; None if the row's own has another wording."""
    parts = schema.prompt.parts
    fields = {name: f"{{{name}}}" for name in schema.prompt.fields}
    images, videos, audios = (tuple(row.get(kind) or ()) for kind in ("images", "videos", "audios"))
    record = Record(id="", group="", source="", fields=fields, images=images, videos=videos, audios=audios)
    written = prompt(record, schema)[-1]
    said = "".join(_texts(turn))
    fixed = [part.text for part in parts if isinstance(part, Text)]
    return written if all(text in said for text in fixed) else None


def _texts(turn: dict[str, Any]) -> list[str]:
    content = turn.get("content") or []
    return [content] if isinstance(content, str) else [str(part.get("text") or "") for part in content]


def _without_texts(turn: dict[str, Any]) -> dict[str, Any]:
    """Return the turn with {text} for each of its texts."""
    content = turn.get("content")
    if not isinstance(content, list):
        return {"role": "user", "content": "{text}"}
    kinds = [{"type": part.get("type")} for part in content]
    parts = [kind | {"text": "{text}"} if kind["type"] == "text" else kind for kind in kinds]
    return {"role": "user", "content": parts}
