"""Find the JSON types that a schema allows at its top, which direct how bare text is read.

How it works: `type`, `enum` and `const` name types; references and `allOf` narrow them, `anyOf` and
`oneOf` widen them; keywords of objects and arrays imply a type if nothing names one. Each part of a
document is looked at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dfkdata.common.json_schema import SchemaDocument, type_of

Types = tuple[str, ...]

_OF_OBJECTS = ("properties", "required", "additionalProperties", "patternProperties")
_OF_ARRAYS = ("items", "prefixItems", "contains")


def possible_types(document: SchemaDocument, *schemas: Any) -> Types | None:
    """Return the JSON types of the values that any of `schemas` lets through, in the order of their names.

    Args:
        document: the prepared schema.
        schemas: parts of it.

    Returns:
        The names of the types, or None if the schema does not restrict the type."""
    return _Reader(document).union(schemas)


class _Reader:
    """Remembers the types of the parts that were looked at."""

    def __init__(self, document: SchemaDocument) -> None:
        self._document = document
        self._known: dict[int, Types | None] = {}

    def types(self, schema: Any) -> Types | None:
        if not isinstance(schema, dict):
            return None
        if id(schema) not in self._known:
            self._known[id(schema)] = self._read(schema)
        return self._known[id(schema)]

    def _read(self, schema: dict[str, Any]) -> Types | None:
        restrictions = [_literal_types(schema), _named_types(schema)]
        restrictions.append(self.types(self._document.target(schema)))
        restrictions += [self.types(part) for part in schema.get("allOf", [])]
        restrictions += [self.union(schema[key]) for key in ("anyOf", "oneOf") if key in schema]
        known = [types for types in restrictions if types is not None]
        if not known:
            return _implied(schema)
        first, *rest = known
        for types in rest:
            first = tuple(common for name in first for common in _common(name, types))
        return first

    def union(self, branches: Iterable[Any]) -> Types | None:
        """Return the types of a value that fits one of `branches`."""
        alternatives = [self.types(part) for part in branches]
        if any(types is None for types in alternatives):
            return None
        return tuple(dict.fromkeys(name for types in alternatives if types for name in types))


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


def _implied(schema: dict[str, Any]) -> Types | None:
    if any(key in schema for key in _OF_OBJECTS):
        return ("object",)
    if any(key in schema for key in _OF_ARRAYS):
        return ("array",)
    return None
