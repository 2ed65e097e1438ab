"""A quick yes for the values that JSON schemas of tools usually get. Strategy: the plain shapes (typed
scalars, strings with a length, enumerated strings, arrays, objects, references between them) become
predicates without any reporting; a schema that says more gets no predicate.

Promises: True means that `jsoncheck` finds nothing wrong and that the value nests no deeper than the schema
does; False means nothing, so the full check must be asked. Recursive schemas get no predicate."""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from dfkeval.parsing.jsonschema.compiler import Document

Fits = Callable[[Any], bool]

_KIND: Final[dict[str, type]] = {"string": str, "integer": int, "boolean": bool, "null": type(None)}
_NOTES: Final = frozenset(
    {"title", "description", "default", "examples", "$defs", "definitions", "$comment", "deprecated"}
)
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_DICT: Final = frozenset({dict}).issuperset
_LIST: Final = frozenset({list}).issuperset
#: Lists from this length on are checked column by column.
_MANY: Final = 64
_OBJECT: Final = _NOTES | {"type", "properties", "required", "additionalProperties"}
_ARRAY: Final = _NOTES | {"type", "items", "minItems", "maxItems"}
_STRING: Final = _NOTES | {"type", "minLength", "maxLength"}


def compile_fits(doc: Document, schema: Any, path: tuple[str, ...] = ()) -> Fits | type | None:
    """A predicate for `schema`; a bare type where every value of exactly that type fits; None where neither
    is possible."""
    if not isinstance(schema, dict):
        return None
    if "$ref" in schema:
        ref = schema["$ref"]
        plain = isinstance(ref, str) and ref not in path and _NOTES.issuperset(schema.keys() - {"$ref"})
        return compile_fits(doc, doc.resolve(ref), (*path, ref)) if plain else None
    kind = schema.get("type")
    keys = schema.keys()
    if kind == "object" and keys <= _OBJECT:
        return _object(doc, schema, path)
    if kind == "array" and keys <= _ARRAY:
        return _array(doc, schema, path)
    if kind == "string" and "enum" in schema and keys <= _NOTES | {"type", "enum"}:
        choices = frozenset(value for value in schema["enum"] if type(value) is str)
        return lambda value: type(value) is str and value in choices
    if kind == "string" and keys <= _STRING and len(keys - _NOTES) > 1:
        return _string(schema)
    return _KIND.get(kind) if isinstance(kind, str) and keys <= _NOTES | {"type"} else None


def compile_keys(doc: Document, schema: Any) -> Callable[[Any], int]:
    """Counts the object keys in a value that the predicate of `schema` has passed; -1 where that is not
    simple.

    A text with as many colons as its value has keys holds no key twice."""
    inner = _followed(doc, schema)
    if inner.get("type") == "object" and _flat(doc, inner):
        return len
    if inner.get("type") == "array":
        items = _followed(doc, inner.get("items"))
        if items.get("type") == "object" and _flat(doc, items):
            return lambda value: sum(map(len, value))
        if _scalar(items):
            return lambda value: 0
    return lambda value: -1


def _followed(doc: Document, schema: Any) -> dict[str, Any]:
    while isinstance(schema, dict) and "$ref" in schema:
        schema = doc.resolve(schema["$ref"])
    return schema if isinstance(schema, dict) else {}


def _flat(doc: Document, schema: dict[str, Any]) -> bool:
    """Whether no property holds an object."""
    parts = [_followed(doc, part) for part in schema.get("properties", {}).values()]
    return all(
        _scalar(part) or (part.get("type") == "array" and _scalar(_followed(doc, part.get("items"))))
        for part in parts
    )


def _scalar(schema: dict[str, Any]) -> bool:
    return isinstance(schema.get("type"), str) and schema["type"] in _KIND


def _string(schema: dict[str, Any]) -> Fits:
    least, most = schema.get("minLength", 0), schema.get("maxLength", float("inf"))
    return lambda value: type(value) is str and least <= len(value) <= most


def _array(doc: Document, schema: dict[str, Any], path: tuple[str, ...]) -> Fits | None:
    items = compile_fits(doc, schema.get("items"), path)
    least, most = schema.get("minItems", 0), schema.get("maxItems", float("inf"))
    if items is None:
        return None
    if isinstance(items, type):
        alike = {items}.issuperset
        if "minItems" not in schema and "maxItems" not in schema:
            return lambda value: type(value) is list and alike(map(type, value))
        return lambda value: type(value) is list and least <= len(value) <= most and alike(map(type, value))
    inner = items

    @cache
    def column() -> Fits:
        return _column(doc, schema["items"], path) or (lambda value: False)

    return lambda value: (
        type(value) is list
        and least <= len(value) <= most
        and (all(map(inner, value)) if len(value) < _MANY else column()(value))
    )


def _column(doc: Document, schema: Any, path: tuple[str, ...]) -> Fits | None:
    """A predicate for a list of which every entry must fit `schema`. Entries are checked side by side, key by
    key, which takes a fraction of the time for long lists of equal shape."""
    one = compile_fits(doc, schema, path)
    if one is None:
        return None
    if isinstance(one, type):
        alike = {one}.issuperset
        return lambda column: alike(map(type, column))
    inner = _followed(doc, schema)
    if inner.get("type") == "object":
        return _rows(doc, inner, path, one)
    items = _column(doc, inner["items"], path) if inner.get("type") == "array" else None
    if items is None:
        return lambda column: all(map(one, column))
    least, most, below = inner.get("minItems", 0), inner.get("maxItems", float("inf")), items
    bounded = "minItems" in inner or "maxItems" in inner

    def lists(column: Any) -> bool:
        if not _LIST(map(type, column)):
            return False
        if bounded and not least <= min(map(len, column)) <= max(map(len, column)) <= most:
            return False
        flat = list(chain.from_iterable(column))
        return not flat or below(flat)

    return lists


def _rows(doc: Document, schema: dict[str, Any], path: tuple[str, ...], one: Fits) -> Fits:
    """`_column` for objects. Objects of unequal shape, or with undeclared keys, are asked one by one."""
    columns = {key: _column(doc, part, path) for key, part in schema.get("properties", {}).items()}
    required = frozenset(schema.get("required", ()))

    def fits(column: Any) -> bool:
        if not _DICT(map(type, column)):
            return False
        keys = column[0].keys()
        if not required <= keys <= columns.keys() or len(set(map(len, column))) > 1:
            return all(map(one, column))
        try:
            sides = {key: list(map(itemgetter(key), column)) for key in keys}
        except KeyError:
            return all(map(one, column))
        return all((below := columns[key]) is not None and below(side) for key, side in sides.items())

    return fits


def _object(doc: Document, schema: dict[str, Any], path: tuple[str, ...]) -> Fits | None:
    extra = schema.get("additionalProperties", True)
    if not isinstance(extra, bool):
        return None
    made = {key: compile_fits(doc, part, path) for key, part in schema.get("properties", {}).items()}
    kinds = {key: fits for key, fits in made.items() if isinstance(fits, type)}
    inner = {key: fits for key, fits in made.items() if fits is not None and not isinstance(fits, type)}
    required = frozenset(schema.get("required", ()))
    closed = made.keys() if extra else None

    def fits(value: Any) -> bool:
        if type(value) is not dict or not required <= value.keys():
            return False
        for key, item in value.items():
            if type(item) is kinds.get(key):
                continue
            deeper = inner.get(key)
            if not (_harmless(key, item, closed) if deeper is None else deeper(item)):
                return False
        return True

    return fits


def _harmless(key: str, item: Any, known: Container[str] | None) -> bool:
    """Whether an undeclared key may hold `item`. `known`: declared keys, None where others are forbidden."""
    return known is not None and key not in known and type(item) in _SCALARS
