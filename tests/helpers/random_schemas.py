"""Draw small JSON Schemas whose parts share parts, and values for them."""

from __future__ import annotations

import random
from typing import Any

from dfkdata.common.json_schema import pointer_step

NAMES = ("a", "b", "c")
_ASSERTIONS: tuple[dict[str, Any], ...] = (
    {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}, {"type": "null"},
    {"type": "object"}, {"type": "array"}, {"type": ["string", "null"]}, {"type": ["integer", "array"]},
    {"minimum": 1}, {"maxLength": 1}, {"enum": ["x", 1, None, True]}, {"const": {"a": 1}}, {"required": ["a"]},
    {"minItems": 1}, {"uniqueItems": True}, {"pattern": "^x"}, {"maxProperties": 1}, {"multipleOf": 2}, {},
    {"dependentRequired": {"a": ["b"]}},
)  # fmt: skip
_VALUES: tuple[Any, ...] = ("", "x", "xy", "y", 0, 1, 2, 1.5, 2.0, True, False, None, [], {})


def value(rng: random.Random, depth: int = 3) -> Any:
    """Return a JSON value."""
    kind = rng.random()
    if depth and kind < 0.35:
        return {name: value(rng, depth - 1) for name in rng.sample(NAMES, rng.randint(0, 3))}
    if depth and kind < 0.55:
        return [value(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    return rng.choice(_VALUES)


def shared(rng: random.Random, layers: int = 4, *, nested: bool = True) -> dict[str, Any]:
    """Return a schema of layers, each of which combines parts of the layers below it in random ways; `nested`: some
    look into the value."""
    definitions: dict[str, Any] = {"d0": dict(rng.choice(_ASSERTIONS)), "d1": dict(rng.choice(_ASSERTIONS))}
    for number in range(2, 2 + layers):
        definitions[f"d{number}"] = _layer(rng, [*definitions], nested)
    root = _layer(rng, [*definitions], nested)
    return {**root, "$defs": definitions}


def _layer(rng: random.Random, names: list[str], nested: bool) -> dict[str, Any]:
    below = names[-4:]

    def part() -> Any:
        return rng.choice((True, {"$ref": f"#/$defs{pointer_step(rng.choice(below))}"})) if rng.random() < 0.9 else {
            "title": "t", **rng.choice(_ASSERTIONS), "$ref": f"#/$defs/{rng.choice(below)}"
        }  # fmt: skip

    def parts() -> list[Any]:
        return [part() for _ in range(rng.randint(1, 3))]

    def some() -> Any:
        return rng.choice((False, part()))

    words: dict[str, Any] = {"allOf": parts, "anyOf": parts, "oneOf": parts, "not": part}
    if nested:
        words |= {
            "prefixItems": parts, "items": part, "contains": part, "propertyNames": part,
            "properties": lambda: {name: part() for name in rng.sample(NAMES, 2)},
            "patternProperties": lambda: {"^[ab]": part()}, "dependentSchemas": lambda: {"a": part()},
            "additionalProperties": some, "unevaluatedProperties": some, "unevaluatedItems": some,
        }  # fmt: skip
    made: dict[str, Any] = dict(rng.choice(_ASSERTIONS)) if rng.random() < 0.4 else {}
    for word in rng.sample([*words], rng.randint(1, 3)):
        made[word] = words[word]()
    if rng.random() < 0.2:
        made |= {"if": part(), "then": part(), "else": part()}
    return made
