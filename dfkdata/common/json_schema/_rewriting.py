"""Rewrite one schema in place: other spellings become those of its draft.

Rewritten are `nullable`, the type names of other languages, tuples written as a list of `items`, boolean
`exclusiveMinimum`, and patterns. What moves to another place is remembered, since references may name it."""

from __future__ import annotations

from typing import Any, Final

from dfkdata.common.json_schema._patterns import PatternError, needs_looks, translated
from dfkdata.common.json_schema._spellings import is_nullable, rewrite_type

COMBINATIONS: Final = ("allOf", "anyOf", "oneOf")
REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
#: What drafts up to 7 read beside `$ref`.
_BESIDE_REF: Final = frozenset(("$ref", "$schema", "$defs", "definitions", "title", "description"))
#: Keywords beside `type` and `enum` that can refuse null.
_REFUSES_NULL: Final = ("const", "not", "if", "then", "else", *COMBINATIONS, *REFERENCES)


class SchemaError(ValueError):
    """A JSON Schema cannot be used; the message says which part of it and why."""


class Rewriting:
    """Rewrites the schemas of one document.

    Attributes:
        unknown_types: JSON pointer of a `type` that names no type -> that name. It asserts nothing."""

    def __init__(self, draft: int, looks: bool) -> None:
        self._draft = draft
        self._looks = looks
        self.unknown_types: dict[str, str] = {}
        #: (id of an object, key) -> the steps from that object to what stood under the key.
        self._moved: dict[tuple[int, str], tuple[str, ...]] = {}

    def now_at(self, container: Any, key: str) -> tuple[str, ...]:
        """Return the steps from `container` to what stood under `key` before it was rewritten."""
        return self._moved.get((id(container), key), (key,))

    def around_ref(self, schema: dict[str, Any], pointer: str) -> None:
        """Read `nullable: true`, also beside a reference, and drop what the draft does not read there."""
        try:
            nullable = is_nullable(schema)
        except ValueError as bad:
            raise SchemaError(f"{pointer}/nullable: {bad}") from None
        if nullable:
            self._allow_null(schema)
        if self._draft <= 7 and "$ref" in schema:
            for key in schema.keys() - _BESIDE_REF:
                del schema[key]

    def _allow_null(self, schema: dict[str, Any]) -> None:
        """Let `nullable: true` allow null whatever stands beside it; `rewrite_type` does the same for `type`."""
        if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
            schema["enum"] = [*schema["enum"], None]
        refusing = {word: schema.pop(word) for word in _REFUSES_NULL if word in schema}
        if refusing:
            schema["anyOf"] = [refusing, {"type": "null"}]
            self._moved |= {(id(schema), word): ("anyOf", "0", word) for word in refusing}

    def rewrite(self, schema: dict[str, Any], pointer: str) -> None:
        """Put other spellings in `schema`, which stands at `pointer`, into the terms of the draft."""
        if "type" in schema and (unknown := rewrite_type(schema)) is not None:
            self.unknown_types[f"{pointer}/type"] = unknown
        if self._draft >= 2020 and isinstance(schema.get("items"), list) and "prefixItems" not in schema:
            schema["prefixItems"] = schema.pop("items")
            self._moved[id(schema), "items"] = ("prefixItems",)
            if "additionalItems" in schema:
                schema["items"] = schema.pop("additionalItems")
                self._moved[id(schema), "additionalItems"] = ("items",)
        if self._draft > 4:
            for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
                if isinstance(schema.get(exclusive), bool):
                    _rewrite_bound(schema, exclusive, inclusive, pointer)
        self._rewrite_patterns(schema, pointer)
        if schema.get("additionalProperties") is False:
            schema.setdefault("properties", {})  # so that the engine names the keys that are not allowed

    def _rewrite_patterns(self, schema: dict[str, Any], pointer: str) -> None:
        """Write the patterns of `schema` as the engine reads them."""

        def written(pattern: str, place: str) -> str:
            try:
                return translated(pattern, looks=self._looks)
            except PatternError as bad:
                raise SchemaError(
                    f"{pointer}/{place}: the pattern {pattern!r:.200} cannot be read: {bad}"
                ) from None

        if isinstance(schema.get("pattern"), str):
            schema["pattern"] = written(schema["pattern"], "pattern")
        if isinstance(schema.get("patternProperties"), dict):
            table: dict[str, Any] = {}
            for key, part in schema["patternProperties"].items():
                pattern = written(key, "patternProperties")
                while pattern in table:  # two patterns of one meaning
                    pattern += "(?:)"
                table[pattern] = part
                self._moved[id(table), key] = (pattern,)
            schema["patternProperties"] = table


def has_looks(schema: Any, draft: int) -> bool:
    """Return whether any pattern in `schema` needs the engine that looks around."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            tables = part.get("patternProperties")
            patterns = [part.get("pattern"), *(tables if isinstance(tables, dict) else ())]
            if any(isinstance(pattern, str) and needs_looks(pattern, draft) for pattern in patterns):
                return True
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return False


def _rewrite_bound(schema: dict[str, Any], exclusive: str, inclusive: str, pointer: str) -> None:
    """Read `minimum: 5, exclusiveMinimum: true` of draft 4."""
    if not schema.pop(exclusive):
        return
    if inclusive not in schema:
        raise SchemaError(
            f"{pointer}/{exclusive}: true needs {inclusive!r} beside it; write the number itself"
        )
    schema[exclusive] = schema.pop(inclusive)
