"""Check whether the JSON Schema and the pydantic class of a schema agree on an answer.

How it works: the JSON Schema decides about an answer. An answer that it refuses is also read without its
assertions and shown to the class. They disagree if a class has rules that its JSON Schema does not show,
or if a hand-written JSON Schema says more than the class. Both are faults of the schema, not of the
model, so each is reported with its place instead of being hidden in a rate.

Guarantees:
- The schemas that ship with this package never disagree; a fuzz test holds them to it."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from dfkdata.schemas import Schema, json_schema
from dfkeval.parsing.decode import Decoded, Failure, Form, decode

#: Keywords that say how a text is typed; all others only say which values are allowed.
_TYPES = ("type", "properties", "items", "prefixItems", "anyOf", "oneOf", "$ref", "$defs", "title", "default")


def class_refusal(value: dict[str, Any], answer: type[BaseModel]) -> str | None:
    """Return what the answer class has against `value`.

    Args:
        value: a decoded answer.
        answer: the pydantic class of the schema.

    Returns:
        JSON pointer and message in one line; None if the class takes the value."""
    if answer.__pydantic_validator__.isinstance_python(value):  # ten times faster than building it
        return None
    try:
        answer.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        return "/" + "/".join(str(step) for step in first["loc"]) + ": " + first["msg"]
    return None


def disagreement(text: str, failure: Failure, schema: Schema, form: Form = "schema") -> str | None:
    """Return how JSON Schema and class disagree on an answer that was refused.

    Args:
        text: what the model wrote.
        failure: the result of `decode` for it.
        schema: the schema of the answer.
        form: the form that `decode` was asked for.

    Returns:
        The place and both verdicts in one line; None if they agree."""
    if failure.kind == "class_refused":
        return _line(failure, "the answer class refuses what the JSON Schema takes")
    if failure.kind != "schema_invalid":
        return None
    read = decode(text, loosened(schema), form=form)
    if not isinstance(read, Decoded) or class_refusal(read.value, schema.answer) is not None:
        return None
    return _line(failure, "the JSON Schema refuses what the answer class takes")


def _line(failure: Failure, what: str) -> str:
    first = failure.problems[0]
    return f"{first.json_pointer or '/'}: {what}: {first.message}"


@lru_cache(maxsize=64)
def _loosened(answer: type[BaseModel]) -> type[BaseModel]:
    """Return a class that takes anything, whose JSON Schema types values as `answer`'s does and forbids
    nothing."""
    typing_only = _without_rules(json_schema(answer))
    loose = create_model("Loose", __config__=ConfigDict(extra="allow", frozen=True))
    loose.model_json_schema = classmethod(lambda cls, *args, **kwargs: typing_only)  # type: ignore[assignment]
    return loose


def loosened(schema: Schema) -> Schema:
    """Return the schema with every rule left out but those that type a text."""
    return dataclasses.replace(schema, answer=_loosened(schema.answer))


def _without_rules(schema: Any) -> Any:
    """Return a JSON Schema less its assertions about values; names of properties are not keywords."""
    if not isinstance(schema, dict):
        return schema
    typing_only: dict[str, Any] = {}
    for keyword, inner in schema.items():
        if keyword in ("properties", "$defs"):
            typing_only[keyword] = {name: _without_rules(part) for name, part in inner.items()}
        elif keyword in ("anyOf", "oneOf", "prefixItems"):
            typing_only[keyword] = [_without_rules(part) for part in inner]
        elif keyword in _TYPES:
            typing_only[keyword] = _without_rules(inner)
    return typing_only
