"""Say what a schema has against a value, each with a JSON pointer and the keyword that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from dfkdata.common.json_schema._effort import CURT
from dfkdata.common.json_schema._preparation import pointer_step

_TYPE_NAMES: Final = {
    bool: "boolean", str: "string", int: "integer", float: "number",
    dict: "object", list: "array", type(None): "null",
}  # fmt: skip


class Issue(NamedTuple):
    """One reason why a value does not fit.

    Attributes:
        pointer: JSON pointer into the value.
        code: the keyword that failed; "false" for a schema that takes nothing.
        message: what is wrong, in words."""

    pointer: str
    code: str
    message: str


def type_of(value: Any) -> str:
    """Return the JSON type of a decoded value; a whole float is a "number", as it was written with a
    point."""
    return _TYPE_NAMES.get(type(value), type(value).__name__)


def cut(text: str) -> str:
    """Return the first line of `text`, at most 200 characters of it."""
    line = text.partition("\n")[0]
    return line if len(line) <= 200 else line[:197] + "..."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def issues_of(errors: Iterable[Any]) -> list[Issue]:
    """Return the engine's errors as issues."""
    issues = [issue for error in errors for issue in _issues(error)]
    return issues or [Issue("", "schema", "the value does not fit the schema")]


def _issues(error: Any) -> list[Issue]:
    kind = error.kind
    code = kind.name
    pointer = "".join(pointer_step(str(step)) for step in error.instance_path)
    if code in ("anyOf", "oneOf"):
        return _of_branches(pointer, code, error)
    if code == "additionalProperties" or code == "unevaluatedProperties":
        message = "no property of this name is allowed"
        return [Issue(pointer + pointer_step(key), code, message) for key in kind.unexpected]
    if code == "propertyNames":
        name = str(kind.error.instance)
        return [Issue(pointer + pointer_step(name), code, f"{name!r} is no allowed name of a property")]
    if code == "falseSchema":
        return [Issue(pointer, "false", "no value is allowed here")]
    if _is_curt(error):
        return [Issue(pointer, "allOf", f"{_shown(error.instance)} does not fit a part of the schema")]
    write = _MESSAGES.get(code)
    return [Issue(pointer, code, cut(error.message) if write is None else write(error.instance, kind))]


def _of_branches(pointer: str, code: str, error: Any) -> list[Issue]:
    """Return the issues of the branch that got deepest into the value, which is likely the one that was
    meant."""
    branches = error.kind.context
    if code == "oneOf" and not all(branches):
        fitting = sum(not branch for branch in branches)
        message = f"{_shown(error.instance)} fits {fitting} alternatives; it must fit one"
        return [Issue(pointer, code, message)]
    if all(_is_curt(inner) for branch in branches for inner in branch):
        return [Issue(pointer, code, f"{_shown(error.instance)} fits none of {len(branches)} alternatives")]
    read = [[issue for inner in branch for issue in _issues(inner)] for branch in branches]
    return max(read, key=_depth)


def _is_curt(error: Any) -> bool:
    """Return whether the schema that failed is one in two `not`, which gives no reason."""
    schema = error.kind.schema if error.kind.name == "not" else None
    return isinstance(schema, dict) and schema.get("$comment") == CURT


def _depth(issues: list[Issue]) -> int:
    return max(len(issue.pointer) for issue in issues)


def _type(value: Any, kind: Any) -> str:
    return f"{' or '.join(kind.types)} expected, got {type_of(value)} {_shown(value)}"


def _bound(side: str) -> Callable[[Any, Any], str]:
    return lambda value, kind: f"{_shown(value)} must be {side} {kind.limit}"


def _size(side: str, unit: str) -> Callable[[Any, Any], str]:
    return lambda value, kind: f"{side} {kind.limit} {unit} expected, got {len(value)}"


_MESSAGES: Final[dict[str, Callable[[Any, Any], str]]] = {
    "type": _type,
    "enum": lambda value, kind: f"{_shown(value)} is none of {', '.join(map(_shown, kind.options))}",
    "const": lambda value, kind: f"must be {_shown(kind.expected_value)}, got {_shown(value)}",
    "required": lambda value, kind: f"{kind.property!r} is required and missing",
    "pattern": lambda value, kind: f"{_shown(value)} does not match the pattern of the schema",
    "not": lambda value, kind: f"{_shown(value)} is excluded",
    "contains": lambda value, kind: "too few or too many items of the demanded kind",
    "uniqueItems": lambda value, kind: "the items must differ from each other",
    "multipleOf": lambda value, kind: f"{_shown(value)} must be a multiple of {kind.multiple_of}",
    "minimum": _bound("at least"),
    "maximum": _bound("at most"),
    "exclusiveMinimum": _bound("more than"),
    "exclusiveMaximum": _bound("less than"),
    "minLength": _size("at least", "characters"),
    "maxLength": _size("at most", "characters"),
    "minItems": _size("at least", "items"),
    "maxItems": _size("at most", "items"),
    "minProperties": _size("at least", "properties"),
    "maxProperties": _size("at most", "properties"),
}
