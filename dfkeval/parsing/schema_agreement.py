"""Two opinions on one answer: the JSON Schema decides, and the answer class (pydantic) is asked as well.

They differ where a class has rules that its JSON Schema does not show, or a JSON Schema is written by hand
and says more than the class. Both are faults of the schema, not of the model, so each is named with its place
instead of being hidden in a rate. On the schemas that ship with this package they never differ (tested by
fuzz)."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from dfkdata.schemas import Schema, json_schema
from dfkeval.parsing.decode import Decoded, Failure, Form, decode

#: What of a JSON Schema says how a text is typed; everything else only says which values are allowed.
_TYPES = ("type", "properties", "items", "prefixItems", "anyOf", "oneOf", "$ref", "$defs", "title", "default")


def refusal(value: dict[str, Any], answer: type[BaseModel]) -> str | None:
    """What the answer class has against `value`: JSON pointer and message; None if it takes it."""
    if answer.__pydantic_validator__.isinstance_python(value):  # ten times faster than building it
        return None
    try:
        answer.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        return "/" + "/".join(str(step) for step in first["loc"]) + ": " + first["msg"]
    return None


def difference(text: str, failure: Failure, schema: Schema, form: Form = "schema") -> str | None:
    """Where the two opinions differ on a refused answer, in words with the place; None where they agree."""
    if failure.kind == "class_refused":
        return _line(failure, "the answer class refuses what the JSON Schema takes")
    if failure.kind != "schema_invalid":
        return None
    read = decode(text, loosened(schema), form=form)
    if not isinstance(read, Decoded) or refusal(read.value, schema.answer) is not None:
        return None
    return _line(failure, "the JSON Schema refuses what the answer class takes")


def _line(failure: Failure, what: str) -> str:
    first = failure.problems[0]
    return f"{first.json_pointer or '/'}: {what}: {first.message}"


@lru_cache(maxsize=64)
def _loosened(answer: type[BaseModel]) -> type[BaseModel]:
    """A class that takes anything, whose JSON Schema types values as `answer`'s does and forbids nothing."""
    shape = _without_rules(json_schema(answer))
    shown = classmethod(lambda cls, *args, **kwargs: shape)
    made = create_model("Loose", __config__=ConfigDict(extra="allow", frozen=True))
    made.model_json_schema = shown  # type: ignore[assignment]
    return made


def loosened(schema: Schema) -> Schema:
    """The schema with every rule left out but those that type a text."""
    return dataclasses.replace(schema, answer=_loosened(schema.answer))


def _without_rules(shape: Any) -> Any:
    """A JSON Schema less its assertions about values; names of properties are no keywords."""
    if not isinstance(shape, dict):
        return shape
    found: dict[str, Any] = {}
    for key, inner in shape.items():
        if key in ("properties", "$defs"):
            found[key] = {name: _without_rules(each) for name, each in inner.items()}
        elif key in ("anyOf", "oneOf", "prefixItems"):
            found[key] = [_without_rules(each) for each in inner]
        elif key in _TYPES:
            found[key] = _without_rules(inner)
    return found
