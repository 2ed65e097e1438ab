"""The keywords of JSON Schema that judge a value by itself: type, enum, const, numbers, sizes, patterns.

Each function takes a schema and returns its checks; a check returns None for a value that fits. `jsoncheck`
joins them with the keywords that look into a value. True is no integer, 1.0 is one, 1 equals 1.0, lengths
count code points."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, NamedTuple


class SchemaError(ValueError):
    """The schema itself cannot be used; the message says which part and why."""


class Issue(NamedTuple):
    """One reason why a value does not fit. `pointer`: JSON pointer into the value; `code`: the failed
    keyword."""

    pointer: str
    code: str
    message: str


Check = Callable[[Any], "list[Issue] | None"]


def escape(key: str) -> str:
    """`key` as one step of a JSON pointer."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


def type_of(value: Any) -> str:
    """The JSON type of a decoded value; whole floats are "number", as everything that is written with a
    point."""
    return _TYPE_NAMES.get(type(value), type(value).__name__)


_TYPE_NAMES: Final = {
    bool: "boolean", str: "string", int: "integer", float: "number",
    dict: "object", list: "array", type(None): "null",
}  # fmt: skip

_IS: Final[dict[str, Callable[[Any], bool]]] = {
    "string": lambda v: type(v) is str,
    "integer": lambda v: type(v) is int or (type(v) is float and v.is_integer()),
    "number": lambda v: type(v) is int or type(v) is float,
    "boolean": lambda v: type(v) is bool,
    "null": lambda v: v is None,
    "object": lambda v: type(v) is dict,
    "array": lambda v: type(v) is list,
}
TYPES: Final = frozenset(_IS)


def same(a: Any, b: Any) -> bool:
    """Equality of JSON values: 1 equals 1.0, True equals neither."""
    if type(a) is bool or type(b) is bool:
        return a is b
    if type(a) is list and type(b) is list:
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if type(a) is dict and type(b) is dict:
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    return bool(a == b)


def show(value: Any) -> str:
    """`value` for a message, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def accept(_: Any) -> None:
    """The check that every value passes."""


def single(code: str, holds: Callable[[Any], bool], message: Callable[[Any], str]) -> Check:
    """A check with one test and one issue."""

    def check(value: Any) -> list[Issue] | None:
        return None if holds(value) else [Issue("", code, message(value))]

    return check


def under(step: str, issues: list[Issue]) -> list[Issue]:
    """`issues` of an inner value, one step further out."""
    return [Issue(step + issue.pointer, issue.code, issue.message) for issue in issues]


Built = list[Check]


def type_checks(schema: dict[str, Any]) -> Built:
    """type (and nullable)."""
    names = schema.get("type", [])
    names = [names] if isinstance(names, str) else list(names)
    if not names or not TYPES.issuperset(names):
        return []  # an unknown type name asserts nothing that could be checked
    if schema.get("nullable") is True and "null" not in names:
        names.append("null")
    tests = [_IS[name] for name in names]
    wanted = " or ".join(names)

    def message(value: Any) -> str:
        return f"{wanted} expected, got {type_of(value)} {show(value)}"

    if len(tests) == 1:
        return [single("type", tests[0], message)]
    return [single("type", lambda v: any(test(v) for test in tests), message)]


def values_checks(schema: dict[str, Any]) -> Built:
    """enum and const."""
    made: Built = []
    if "enum" in schema:
        choices = list(schema["enum"])
        text = ", ".join(show(choice) for choice in choices)
        made.append(
            single(
                "enum", lambda v: any(same(v, c) for c in choices), lambda v: f"{show(v)} is none of {text}"
            )
        )
    if "const" in schema:
        const = schema["const"]
        made.append(
            single("const", lambda v: same(v, const), lambda v: f"must be {show(const)}, got {show(v)}")
        )
    return made


def _is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def _multiple(value: Any, step: Any) -> bool:
    return (
        Decimal(repr(value)) % Decimal(repr(step)) == 0 if not _both_int(value, step) else value % step == 0
    )


def _both_int(a: Any, b: Any) -> bool:
    return type(a) is int and type(b) is int


_NUMERIC: Final[dict[str, tuple[Callable[[Any, Any], bool], str]]] = {
    "minimum": (lambda v, n: v >= n, "at least"),
    "maximum": (lambda v, n: v <= n, "at most"),
    "exclusiveMinimum": (lambda v, n: v > n, "more than"),
    "exclusiveMaximum": (lambda v, n: v < n, "less than"),
    "multipleOf": (_multiple, "a multiple of"),
}


def numeric_checks(schema: dict[str, Any]) -> Built:
    """minimum, maximum, their exclusive forms and multipleOf."""
    return [_numeric(word, schema[word]) for word in _NUMERIC if _is_number(schema.get(word))]


def _numeric(word: str, bound: Any) -> Check:
    holds, text = _NUMERIC[word]
    return single(
        word, lambda v: not _is_number(v) or holds(v, bound), lambda v: f"{show(v)} must be {text} {bound}"
    )


_SIZES: Final[dict[str, tuple[Any, bool, str]]] = {
    "minLength": (str, True, "characters"), "maxLength": (str, False, "characters"),
    "minItems": (list, True, "items"), "maxItems": (list, False, "items"),
    "minProperties": (dict, True, "keys"), "maxProperties": (dict, False, "keys"),
}  # fmt: skip


def sizes_checks(schema: dict[str, Any]) -> Built:
    """lengths of strings, arrays and objects."""
    return [_size(word, int(schema[word])) for word in _SIZES if word in schema]


def _size(word: str, bound: int) -> Check:
    kind, least, unit = _SIZES[word]
    side = "at least" if least else "at most"

    def holds(value: Any) -> bool:
        return type(value) is not kind or (len(value) >= bound if least else len(value) <= bound)

    return single(word, holds, lambda v: f"{side} {bound} {unit} expected, got {len(v)}")


def regex(pattern: str) -> re.Pattern[str]:
    """`pattern` compiled; SchemaError where Python cannot read it."""
    try:
        return re.compile(pattern)
    except re.error as bad:
        raise SchemaError(
            f"the pattern {pattern!r} is not a regular expression that Python reads: {bad}"
        ) from None


def pattern_checks(schema: dict[str, Any]) -> Built:
    """pattern."""
    if "pattern" not in schema:
        return []
    search = regex(schema["pattern"]).search
    text = f"does not match the pattern {schema['pattern']!r}"
    return [
        single(
            "pattern", lambda v: type(v) is not str or search(v) is not None, lambda v: f"{show(v)} {text}"
        )
    ]
