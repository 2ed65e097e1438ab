"""Say what a schema has against a value, each with a JSON pointer and the keyword that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

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


def shown(value: Any) -> str:
    """Return `value` as messages show it, at most 60 characters of it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def foreign_issue(value: Any) -> Issue | None:
    """Return where the first part of `value` stands that JSON cannot write, such as a date or a key that is no text;
    None if there is none."""
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        pointer, item = waiting.pop()
        if isinstance(item, dict):
            strange = [key for key in item if not isinstance(key, str)]
            if strange:
                message = (
                    f"the key {shown(strange[0])} of an object is {_kind(strange[0])}; JSON has texts only"
                )
                return Issue(pointer, "not_json", message)
            waiting += [(pointer + pointer_step(key), part) for key, part in reversed(item.items())]
        elif isinstance(item, list | tuple):
            waiting += [(f"{pointer}/{at}", part) for at, part in reversed([*enumerate(item)])]
        elif not (item is None or isinstance(item, str | int | float)):
            return Issue(pointer, "not_json", f"{shown(item)} is {_kind(item)}, which JSON cannot write")
    return None


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def issues_of(errors: Iterable[Any]) -> list[Issue]:
    """Return the engine's errors as issues."""
    issues = dict.fromkeys(issue for error in errors for issue in _issues(error))
    return [*issues] or [Issue("", "schema", "the value does not fit the schema")]


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
    if code == "pattern" and "backtracking" in error.message:
        return [Issue(pointer, code, f"the pattern of the schema takes too long on {shown(error.instance)}")]
    write = _MESSAGES.get(code)
    return [Issue(pointer, code, cut(error.message) if write is None else write(error.instance, kind))]


def _of_branches(pointer: str, code: str, error: Any) -> list[Issue]:
    """Return the issues of a combination of which one branch should fit."""
    branches = error.kind.context
    if code == "oneOf" and not all(branches):
        fitting = sum(not branch for branch in branches)
        message = f"{shown(error.instance)} fits {fitting} alternatives; it must fit one"
        return [Issue(pointer, code, message)]
    return deepest([[issue for inner in branch for issue in _issues(inner)] for branch in branches])


def deepest(branches: list[list[Issue]]) -> list[Issue]:
    """Return the issues of the branch that got deepest into the value, which is likely the one that was meant."""
    return max(branches, key=_depth)


def _depth(issues: list[Issue]) -> int:
    return max(len(issue.pointer) for issue in issues)


def _type(value: Any, kind: Any) -> str:
    return f"{' or '.join(kind.types)} expected, got {type_of(value)} {shown(value)}"


def _bound(side: str) -> Callable[[Any, Any], str]:
    return lambda value, kind: f"{shown(value)} must be {side} {kind.limit}"


def _size(side: str, unit: str) -> Callable[[Any, Any], str]:
    return lambda value, kind: f"{side} {kind.limit} {unit} expected, got {len(value)}"


_MESSAGES: Final[dict[str, Callable[[Any, Any], str]]] = {
    "type": _type,
    "enum": lambda value, kind: f"{shown(value)} is none of {', '.join(map(shown, kind.options))}",
    "const": lambda value, kind: f"must be {shown(kind.expected_value)}, got {shown(value)}",
    "required": lambda value, kind: f"{kind.property!r} is required and missing",
    "pattern": lambda value, kind: f"{shown(value)} does not match the pattern of the schema",
    "not": lambda value, kind: f"{shown(value)} is excluded",
    "contains": lambda value, kind: "too few or too many items of the demanded kind",
    "uniqueItems": lambda value, kind: "the items must differ from each other",
    "multipleOf": lambda value, kind: f"{shown(value)} must be a multiple of {kind.multiple_of}",
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
