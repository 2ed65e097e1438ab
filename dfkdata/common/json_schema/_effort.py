"""Tell which values the engine would take exponential time to explain.

The engine decides about a value in a time that grows with it, but to say what is wrong it reads every
alternative of `anyOf` anew in every alternative around it: two alternatives that refer to the same schema
double the work with each level. `_memoised` explains such values."""

from __future__ import annotations

from typing import Any, Final

from dfkdata.common.json_schema._preparation import in_place

#: How many times a pair of schema and value may be read on average, and how many readings are always done.
_AGAIN, _ALWAYS = 8, 2_000
#: Values that nest less are explained in full.
_NESTED: Final = 3


def takes_long(parts: tuple[Any, ...], value: Any, targets: dict[int, Any]) -> bool:
    """Return whether what `parts` of a schema have against `value` would be read again and again."""
    if not _nests(value, _NESTED):
        return False
    readings: dict[tuple[int, int], int] = {}
    plain: dict[int, int] = {}  # what a schema costs for a value without items
    once = 0  # what would be read if nothing were read again

    def read(schema: Any, value: Any) -> int:
        nonlocal once
        if not isinstance(schema, dict):
            return 1
        has_items = isinstance(value, dict | list)
        known = readings.get((id(schema), id(value))) if has_items else plain.get(id(schema))
        if known is None:
            known = 1 + sum(read(part, value) for part in (targets.get(id(schema)), *in_place(schema)))
            if has_items:
                known += sum(read(part, item) for part, item in _inside(schema, value))
                readings[id(schema), id(value)] = known
                once += 1
            else:
                plain[id(schema)] = known
        once += 0 if has_items else known
        return known

    try:
        total = sum(read(part, value) for part in parts)
    except RecursionError:
        return True
    return total > _ALWAYS + _AGAIN * once


def _nests(value: Any, levels: int) -> bool:
    """Return whether objects and arrays in `value` stand in each other on more than `levels` levels."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return items is not None and (levels == 0 or any(_nests(item, levels - 1) for item in items))


def _inside(schema: dict[str, Any], value: Any) -> list[tuple[Any, Any]]:
    """Return what may be read of an object or array: each part of `schema` with the item it sees."""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        table = schema.get("properties")
        named = table if isinstance(table, dict) else {}
        patterns = schema.get("patternProperties")
        others = [*patterns.values()] if isinstance(patterns, dict) else []
        for key, item in value.items():
            pairs += [(part, item) for part in others]
            pairs.append((named[key] if key in named else schema.get("additionalProperties"), item))
            pairs.append((schema.get("unevaluatedProperties"), item))
    elif isinstance(value, list):
        first = schema.get("prefixItems", schema.get("items"))
        first = first if isinstance(first, list) else []
        rest = schema.get("additionalItems") if isinstance(schema.get("items"), list) else schema.get("items")
        pairs += zip(first, value, strict=False)
        pairs += [(rest, item) for item in value[len(first) :]]
        pairs += [
            (schema[word], item)
            for word in ("contains", "unevaluatedItems")
            if word in schema
            for item in value
        ]
    return pairs
