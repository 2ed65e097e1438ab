"""Write the prompt of a record: the only place that writes prompt text.

How it works. The schema gives the order of its prompt parts, and this module fills them in. Content is always
a list of parts and an image is always a bare placeholder, since columnar loaders fill missing keys of mixed
parts with nulls and chat templates then render text as an image.

Guarantees:
- Training, evaluation and prediction all call `prompt`, and equal records give equal bytes.
- Nothing is guessed and nothing is read from disk."""

from __future__ import annotations

from typing import Any

from dfkdata.rows.record import Record
from dfkdata.schemas import Images, Lines, Part, Schema, Text, Value

Message = dict[str, Any]


def prompt(record: Record, schema: Schema) -> list[Message]:
    """Return the turns before the answer.

    Args:
        record: The row; one with its own turns gives these, less its last answer.
        schema: The order and wording of the prompt.

    Returns:
        Turns of the `messages` layout: {"role", "content": [parts]}.

    Example:
        >>> from dfkdata import Record, prompt, schemas
        >>> record = Record(id="1", group="", source="captions.jsonl:1", fields={"caption": "A red car."})
        >>> turns = prompt(record, schemas.load("caption"))
        >>> turns[-1]
        {'role': 'user', 'content': [{'type': 'text', 'text': 'A red car.'}]}
    """
    if record.messages is not None:
        return before_answer(record.messages)
    parts = [part for spec in schema.prompt.parts for part in _parts(spec, record)]
    user = [{"role": "user", "content": parts}]
    if schema.prompt.system is None:
        return user
    return [{"role": "system", "content": [text_part(schema.prompt.system)]}, *user]


def before_answer(messages: list[Message]) -> list[Message]:
    """Return the turns before the last assistant turn; all of them if the assistant does not speak last."""
    return messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages


def _parts(spec: Part, record: Record) -> list[dict[str, str]]:
    match spec:
        case Text(text):
            return [text_part(text)]
        case Lines(lines):
            filled = [f"{name}: {record.fields[key]}" for name, key in lines if record.fields.get(key)]
            return [text_part("\n".join(filled))] if filled else []
        case Value(field, otherwise):
            return [text_part(record.fields.get(field) or otherwise)]
        case Images():
            return [{"type": "image"} for _ in record.images]


def text_part(text: str) -> dict[str, str]:
    """Return a text part of a turn."""
    return {"type": "text", "text": text}
