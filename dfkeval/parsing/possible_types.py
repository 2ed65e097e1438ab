"""Find which values a schema allows at its top, which directs how bare text is read: their JSON types, and whether they
are a closed list.

How it works: `type`, `enum` and `const` name types; references and `allOf` narrow them, `anyOf` and
`oneOf` widen them; keywords of objects and arrays imply a type if nothing names one. Each part of a
document is looked at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dfkdata.common.json_schema import SchemaDocument, type_of
from dfkdata.common.recursion import Steps, run

Types = tuple[str, ...]

_ALL = ("string", "integer", "number", "boolean", "object", "array", "null")
_OF_OBJECTS = ("properties", "required", "additionalProperties", "patternProperties")
_OF_ARRAYS = ("items", "prefixItems", "contains")


class PossibleValues:
    """Tells which values the parts of one prepared schema let through, and remembers what it looked at.

    Args:
        document: the prepared schema.
        implied: whether keywords of objects and arrays say the type where nothing else does; JSON Schema lets values of
            other types through there."""

    def __init__(self, document: SchemaDocument, *, implied: bool = True) -> None:
        self._document = document
        self._implied = implied
        self._types: dict[int, Types | None] = {}
        self._closed: dict[int, bool] = {}

    def types(self, *schemas: Any) -> Types | None:
        """Return the JSON types of the values that any of `schemas` lets through, in the order of their names; None
        if the type is not restricted."""
        return run(self._union(schemas))

    def are_listed(self, *schemas: Any) -> bool:
        """Return whether all values of `schemas` are a closed list, or there is no text among them."""
        return all(run(self._is_closed(schema)) for schema in schemas)

    def _types_of(self, schema: Any) -> Steps[Types | None]:
        if not isinstance(schema, dict):
            return () if schema is False else None
        if id(schema) not in self._types:
            restrictions = [_literal_types(schema), _named_types(schema), _left_types(schema)]
            for part in (self._document.target(schema), *schema.get("allOf", ())):
                restrictions.append((yield self._types_of(part)))
            for key in ("anyOf", "oneOf"):
                if key in schema:
                    restrictions.append((yield self._union(schema[key])))
            known = [types for types in restrictions if types is not None]
            self._types[id(schema)] = _in_all(known) if known else _implied(schema) if self._implied else None
        return self._types[id(schema)]

    def _union(self, branches: Iterable[Any]) -> Steps[Types | None]:
        names: dict[str, None] = {}
        is_open = False
        for part in branches:
            types = yield self._types_of(part)
            is_open = is_open or types is None
            names |= dict.fromkeys(types or ())
        return None if is_open else tuple(names)

    def _is_closed(self, schema: Any) -> Steps[bool]:
        if not isinstance(schema, dict):
            return schema is False
        if id(schema) not in self._closed:
            closed = "enum" in schema or "const" in schema
            for part in (self._document.target(schema), *schema.get("allOf", ())):
                closed = closed or (part is not None and (yield self._is_closed(part)))
            for key in ("anyOf", "oneOf"):
                every = key in schema
                for part in schema.get(key, ()):
                    every = every and (part == {"type": "null"} or (yield self._is_closed(part)))
                closed = closed or every
            self._closed[id(schema)] = closed
        return self._closed[id(schema)]


def _in_all(restrictions: list[Types]) -> Types:
    """Return the types that all `restrictions` allow."""
    first, *rest = restrictions
    for types in rest:
        first = tuple(common for name in first for common in _common(name, types))
    return first


def _common(name: str, types: Types) -> Types:
    """What `name` and `types` have in common; integers are numbers."""
    if name in types or (name == "integer" and "number" in types):
        return (name,)
    return ("integer",) if name == "number" and "integer" in types else ()


def _literal_types(schema: dict[str, Any]) -> Types | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return None if values is None else tuple(dict.fromkeys(type_of(value) for value in values))


def _named_types(schema: dict[str, Any]) -> Types | None:
    names = schema.get("type")
    if names is None:
        return None
    return (names,) if isinstance(names, str) else tuple(names)


def _left_types(schema: dict[str, Any]) -> Types | None:
    """Return what `not` leaves of all types if it excludes whole types only."""
    excluded = schema.get("not")
    if excluded is True or excluded == {}:
        return ()
    if not isinstance(excluded, dict) or excluded.keys() != {"type"}:
        return None
    names = _named_types(excluded) or ()
    return tuple(name for name in _ALL if name not in names and not (name == "integer" and "number" in names))


def _implied(schema: dict[str, Any]) -> Types | None:
    if any(key in schema for key in _OF_OBJECTS):
        return ("object",)
    if any(key in schema for key in _OF_ARRAYS):
        return ("array",)
    return None
