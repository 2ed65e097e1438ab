"""Drop the nulls that columnar files add to tool arguments.

Arrow (Parquet, `datasets`) gives every object of a column the keys of all others: the arguments of one tool come
back with the keys of the other tools, filled with null. A template would print them, and a model would learn
to write them.

How it works: a null stays if the tool's own JSON Schema declares its key and allows null there, as the one engine
(`dfkdata.common.json_schema`) decides; any other is dropped, and conversion warns of it (`TOOL_ARGS_NULL`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from dfkdata.common.json_schema import SchemaDocument, SchemaError, encoded_document
from dfkdata.common.tool_definitions import DefinitionError, function_definitions
from dfkdata.rows.record import RowError

_VALUES = ("default", "const", "enum", "examples")
"""Keywords of a JSON Schema whose values are data, in which null is null."""

_MAX_DEPTH = 64
"""References deeper than this go in circles."""


def without_filled_nulls(
    messages: list[dict[str, Any]], tools: Sequence[Any] | None
) -> tuple[list[dict[str, Any]], list[RowError]]:
    """Return the turns without the nulls that no tool declares, and a warning for each call that lost some.

    Args:
        messages: The turns, with tool arguments as objects.
        tools: The row's tool definitions.
    """
    turns, warnings = messages, list[RowError]()
    for number, turn in enumerate(messages):
        calls = turn.get("tool_calls")
        if not calls or not any(map(_holds_null, map(_arguments, calls))):
            continue
        cleaned = []
        for at, call in enumerate(calls):
            call, keys = _cleaned_call(call, tools or ())
            cleaned.append(call)
            if keys:
                warnings.append(_warning(f"messages.{number}.tool_calls.{at}.function.arguments", keys))
        if turns is messages:
            turns = [*messages]
        turns[number] = turn | {"tool_calls": cleaned}
    return turns, warnings


def without_null_keywords(tools: list[Any]) -> list[Any]:
    """Return tool definitions without the keywords that a columnar file filled with null.

    `default` and `const` may mean null, so they stay, except for a `const` that the schema's type forbids."""
    try:
        if b":null" not in msgspec.json.encode(tools):
            return tools
    except UnicodeEncodeError:  # refused later, by name
        return tools
    return [_definition(tool) for tool in tools]


def _definition(value: Any) -> Any:
    if isinstance(value, list):
        return [_definition(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if item is not None or key in ("default", "const")}
    if kept.get("const", "") is None and "type" in kept:
        document = _document({key: kept[key] for key in ("type", "nullable") if key in kept})
        if document is None or not document.allows_null(document.root):
            del kept["const"]
    return {key: item if key in _VALUES else _definition(item) for key, item in kept.items()}


def _warning(path: str, keys: list[str]) -> RowError:
    reason = f"null in {', '.join(keys)}, where the tool does not allow it; left out"
    hint = "columnar files fill absent keys with null; declare the key as nullable to keep it"
    return RowError("TOOL_ARGS_NULL", reason, path=path, value=keys, hint=hint)


def _arguments(call: Any) -> Any:
    function = call.get("function", call) if isinstance(call, dict) else None
    return function.get("arguments") if isinstance(function, dict) else None


def _holds_null(value: Any) -> bool:
    if not isinstance(value, dict | list):
        return False
    items = value.values() if isinstance(value, dict) else value
    nested = [item for item in items if isinstance(item, dict | list)]
    return (isinstance(value, dict) and None in items) or any(map(_holds_null, nested))


def _cleaned_call(call: Any, tools: Sequence[Any]) -> tuple[Any, list[str]]:
    """Return the call without filled nulls, and the paths of the keys that went."""
    arguments = _arguments(call)
    if not isinstance(arguments, dict) or not _holds_null(arguments):
        return call, []
    function = call.get("function", call)
    document = _document(_parameters(function.get("name"), tools))
    keys: list[str] = []
    schemas = [] if document is None else [document.root]
    cleaned = function | {"arguments": _cleaned(arguments, schemas, document, "", keys)}
    return (call | {"function": cleaned} if "function" in call else cleaned), keys


def _document(schema: Any) -> SchemaDocument | None:
    """Return a schema as the engine reads it; None for one that it cannot use, which declares nothing."""
    try:
        document = encoded_document(msgspec.json.encode(schema))
    except UnicodeEncodeError:  # lone surrogates, which rows with such texts are refused for
        return None
    return None if isinstance(document, SchemaError) else document


def _parameters(name: Any, tools: Sequence[Any]) -> Any:
    for tool in tools:
        try:
            functions = [definition["function"] for definition in function_definitions(tool)]
        except DefinitionError:
            continue
        for function in functions:
            if function["name"] == name:
                return function.get("parameters") or {}
    return {}


def _cleaned(
    value: Any, schemas: list[Any], document: SchemaDocument | None, path: str, keys: list[str]
) -> Any:
    """Return `value` without the nulls that `schemas`, parts of the document that speak about it, do not declare."""
    if isinstance(value, list):
        return [
            _cleaned(item, [*_item_schemas(schemas, document, at)], document, f"{path}{at}.", keys)
            if isinstance(item, dict | list)
            else item
            for at, item in enumerate(value)
        ]
    kept = {}
    for key, item in value.items():
        declared = [*_key_schemas(schemas, document, key)]
        if item is None and (document is None or not document.allows_null(*declared)):
            keys.append(f"{path}{key}")
        else:
            nested = isinstance(item, dict | list)
            kept[key] = _cleaned(item, declared, document, f"{path}{key}.", keys) if nested else item
    return kept


def _branches(
    schemas: list[Any], document: SchemaDocument | None, depth: int = 0
) -> Iterator[dict[str, Any]]:
    """Yield the schemas with those that they are put together from."""
    for schema in schemas:
        if not isinstance(schema, dict) or document is None or depth > _MAX_DEPTH:
            continue
        yield schema
        parts = [document.target(schema)]
        for word in ("anyOf", "oneOf", "allOf"):
            parts += schema[word] if isinstance(schema.get(word), list) else []
        parts += [schema[word] for word in ("if", "then", "else") if word in schema]
        yield from _branches(parts, document, depth + 1)


def _key_schemas(schemas: list[Any], document: SchemaDocument | None, key: str) -> Iterator[Any]:
    for schema in _branches(schemas, document):
        properties = schema.get("properties")
        if isinstance(properties, dict) and key in properties:
            yield properties[key]
            continue
        patterns = schema.get("patternProperties")
        matches = [
            value
            for pattern, value in (patterns.items() if isinstance(patterns, dict) else ())
            if document is not None and document.matches(pattern, key)
        ]
        yield from matches
        if not matches and isinstance(schema.get("additionalProperties"), dict):
            yield schema["additionalProperties"]


def _item_schemas(schemas: list[Any], document: SchemaDocument | None, at: int) -> Iterator[Any]:
    for schema in _branches(schemas, document):
        first = schema.get("prefixItems")
        if isinstance(first, list) and at < len(first):
            yield first[at]
        elif "items" in schema and not isinstance(schema["items"], list):
            yield schema["items"]
