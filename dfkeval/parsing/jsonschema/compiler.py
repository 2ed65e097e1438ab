"""JSON Schema (draft 2020-12, the assertions that tool definitions use) compiled to plain functions.

Strategy: a schema is walked once; each keyword is a function in a table that returns a check, and a check
returns None for a value that fits, so that a good value costs no allocation. `$ref` is resolved inside the
document and compiled lazily, which makes recursive schemas finite; a schema that refers to itself without
descending is refused.

Promises: standard library only; what is asserted is asserted exactly as the specification says (True is no
integer, 1.0 is one, 1 and 1.0 are equal, lengths count code points); what this module cannot assert it
refuses to compile (`SchemaError`) instead of ignoring it. Annotations (title, format, default, ...) assert
nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

from dfkeval.parsing.jsonschema.keywords import (
    TYPES,
    Built,
    Check,
    Issue,
    SchemaError,
    accept,
    escape,
    numeric_checks,
    pattern_checks,
    regex,
    show,
    single,
    sizes_checks,
    type_checks,
    type_of,
    under,
    values_checks,
)

_UNSUPPORTED: Final = ("$dynamicRef", "$recursiveRef", "unevaluatedItems", "unevaluatedProperties")


def all_of(checks: list[Check]) -> Check:
    """One check that reports what every one of `checks` reports."""
    if not checks:
        return accept
    if len(checks) == 1:
        return checks[0]
    first, *rest = checks

    def check(value: Any) -> list[Issue] | None:
        found = first(value)
        for other in rest:
            more = other(value)
            if more is not None:
                found = more if found is None else found + more
        return found

    return check


class Document:
    """One schema document. `check(schema)` compiles any part of it; `resolve(ref)` finds the part a `$ref`
    names."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self._by_ref: dict[str, Check] = {}

    def resolve(self, ref: str) -> Any:
        """The subschema at `ref`, a JSON pointer fragment. Raises SchemaError for anything else."""
        if ref != "#" and not ref.startswith("#/"):
            raise SchemaError(
                f"$ref {ref!r}: only references inside the same schema ('#/...') can be resolved"
            )
        found = self.root
        for step in ref[2:].split("/") if len(ref) > 1 else []:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                raise SchemaError(f"$ref {ref!r} points to nothing: no {key!r}")
        return found

    def check(self, schema: Any) -> Check:
        """The compiled form of `schema`, a part of this document."""
        if schema is True:
            return accept
        if schema is False:
            return single("false", lambda v: False, lambda v: "no value is allowed here")
        if not isinstance(schema, dict):
            raise SchemaError(f"a schema must be an object or a boolean, not {show(schema)}")
        for keyword in _UNSUPPORTED:
            if keyword in schema:
                raise SchemaError(f"the keyword {keyword!r} is not supported; remove it or write it out")
        self._descends(schema, ())
        return all_of([made for build in _KEYWORDS for made in build(self, schema)])

    def ref(self, ref: str) -> Check:
        """A check that follows `ref` when it is first used, so that recursive schemas compile."""
        target = self.resolve(ref)

        def check(value: Any) -> list[Issue] | None:
            made = self._by_ref.get(ref)
            if made is None:
                made = self._by_ref[ref] = self.check(target)
            return made(value)

        return check

    def _descends(self, schema: Any, path: tuple[str, ...]) -> None:
        """Raises SchemaError where a chain of references comes back to itself without entering a value."""
        if not isinstance(schema, dict):
            return
        if "$ref" in schema:
            ref = schema["$ref"]
            if ref in path:
                raise SchemaError(f"$ref {ref!r} refers to itself and describes nothing")
            self._descends(self.resolve(ref), (*path, ref))
        inner = [schema[key] for key in ("not", "if", "then", "else") if key in schema]
        for key in ("allOf", "anyOf", "oneOf"):
            inner += schema.get(key, [])
        for part in inner:
            self._descends(part, path)


def _build_ref(doc: Document, schema: dict[str, Any]) -> Built:
    return [doc.ref(schema["$ref"])] if "$ref" in schema else []


def _build_items(doc: Document, schema: dict[str, Any]) -> Built:
    heads = [doc.check(part) for part in schema.get("prefixItems", [])]
    items = schema.get("items", True)
    if isinstance(items, list):  # the older spelling of prefixItems
        heads, items = [doc.check(part) for part in items], schema.get("additionalItems", True)
    if not heads and items is True:
        return []
    tail = doc.check(items)
    n_heads = len(heads)

    def check(value: Any) -> list[Issue] | None:
        if type(value) is not list:
            return None
        found: list[Issue] | None = None
        for index, item in enumerate(value):
            bad = tail(item) if index >= n_heads else heads[index](item)
            if bad is not None:
                found = (found or []) + under(f"/{index}", bad)
        return found

    return [check]


def _frozen(value: Any) -> Any:
    """A hashable stand-in that is equal exactly where JSON values are equal."""
    if type(value) is list:
        return ("list", tuple(_frozen(item) for item in value))
    if type(value) is dict:
        return ("dict", frozenset((key, _frozen(item)) for key, item in value.items()))
    return (type(value) is bool, value)


def _unique(value: Any) -> bool:
    return type(value) is not list or len({_frozen(item) for item in value}) == len(value)


def _build_array(doc: Document, schema: dict[str, Any]) -> Built:
    made: Built = []
    if schema.get("uniqueItems") is True:
        made.append(single("uniqueItems", _unique, lambda v: "the items must differ from each other"))
    if "contains" in schema:
        made.append(
            _contains(doc.check(schema["contains"]), schema.get("minContains", 1), schema.get("maxContains"))
        )
    return made


def _contains(inner: Check, least: int, most: int | None) -> Check:
    def holds(value: Any) -> bool:
        if type(value) is not list:
            return True
        count = sum(inner(item) is None for item in value)
        return count >= least and (most is None or count <= most)

    return single("contains", holds, lambda v: "too few or too many items of the demanded kind")


def _build_object(doc: Document, schema: dict[str, Any]) -> Built:
    required = [key for key in schema.get("required", []) if isinstance(key, str)]
    properties = {key: doc.check(part) for key, part in schema.get("properties", {}).items()}
    patterns = [(regex(key), doc.check(part)) for key, part in schema.get("patternProperties", {}).items()]
    extra = schema.get("additionalProperties", True)
    made: Built = []
    if required:
        made.append(_required(required))
    if properties or patterns or extra is not True:
        made.append(_properties(properties, patterns, None if extra is False else doc.check(extra)))
    return made


def _required(names: list[str]) -> Check:
    def check(value: Any) -> list[Issue] | None:
        if type(value) is not dict:
            return None
        found = [
            Issue("", "required", f"{name!r} is required and missing") for name in names if name not in value
        ]
        return found or None

    return check


def _properties(
    known: dict[str, Check], patterns: list[tuple[re.Pattern[str], Check]], extra: Check | None
) -> Check:
    def applying(key: str) -> list[Check]:
        found = [known[key]] if key in known else []
        found += [inner for pattern, inner in patterns if pattern.search(key)]
        return found or ([_closed(known)] if extra is None else [extra])

    def check(value: Any) -> list[Issue] | None:
        if type(value) is not dict:
            return None
        found: list[Issue] | None = None
        for key, item in value.items():
            inner = known.get(key)
            alone = inner is not None and not patterns
            bad = inner(item) if inner is not None and alone else all_of(applying(key))(item)
            if bad is not None:
                found = (found or []) + under(escape(key), bad)
        return found

    return check


def _closed(known: dict[str, Check]) -> Check:
    names = ", ".join(known) or "none"
    return single("additionalProperties", lambda v: False, lambda v: f"not a known key; known are: {names}")


def _build_dependent(doc: Document, schema: dict[str, Any]) -> Built:
    made: Built = []
    for key, names in schema.get("dependentRequired", {}).items():
        made.append(_when_present(key, _required(list(names))))
    for key, part in schema.get("dependentSchemas", {}).items():
        made.append(_when_present(key, doc.check(part)))
    if "propertyNames" in schema:
        made.append(_names(doc.check(schema["propertyNames"])))
    return made


def _when_present(key: str, inner: Check) -> Check:
    return lambda value: inner(value) if type(value) is dict and key in value else None


def _names(inner: Check) -> Check:
    def check(value: Any) -> list[Issue] | None:
        if type(value) is not dict:
            return None
        bad = [key for key in value if inner(key) is not None]
        return [Issue(escape(key), "propertyNames", f"{key!r} is no allowed key") for key in bad] or None

    return check


def _build_logic(doc: Document, schema: dict[str, Any]) -> Built:
    made: Built = [doc.check(part) for part in schema.get("allOf", [])]
    if "anyOf" in schema:
        made.append(_any_of([doc.check(part) for part in schema["anyOf"]]))
    if "oneOf" in schema:
        made.append(_one_of([doc.check(part) for part in schema["oneOf"]]))
    if "not" in schema:
        inner = doc.check(schema["not"])
        made.append(single("not", lambda v: inner(v) is not None, lambda v: f"{show(v)} is excluded"))
    if "if" in schema:
        made.append(_choose(doc, schema))
    return made


def _any_of(branches: list[Check]) -> Check:
    def check(value: Any) -> list[Issue] | None:
        closest: list[Issue] | None = None
        for branch in branches:
            bad = branch(value)
            if bad is None:
                return None
            if closest is None or max(len(i.pointer) for i in bad) > max(len(i.pointer) for i in closest):
                closest = bad  # the branch that got deepest into the value is the one that was meant
        return closest or [Issue("", "anyOf", "no value is allowed here")]

    return check


def _one_of(branches: list[Check]) -> Check:
    any_of = _any_of(branches)

    def check(value: Any) -> list[Issue] | None:
        count = sum(branch(value) is None for branch in branches)
        if count == 1:
            return None
        return any_of(value) or [
            Issue("", "oneOf", f"{show(value)} fits {count} alternatives; it must fit one")
        ]

    return check


def _choose(doc: Document, schema: dict[str, Any]) -> Check:
    condition = doc.check(schema["if"])
    then, otherwise = doc.check(schema.get("then", True)), doc.check(schema.get("else", True))
    return lambda value: then(value) if condition(value) is None else otherwise(value)


def _build_rules(doc: Document, schema: dict[str, Any]) -> Built:
    return [check for rule in _RULES for check in rule(schema)]


_RULES: Final = (type_checks, values_checks, numeric_checks, sizes_checks, pattern_checks)
_KEYWORDS: Final[tuple[Callable[[Document, dict[str, Any]], Built], ...]] = (
    _build_rules, _build_ref, _build_items, _build_array, _build_object, _build_dependent, _build_logic,
)  # fmt: skip

__all__ = ["TYPES", "Check", "Document", "Issue", "SchemaError", "all_of", "escape", "regex", "type_of"]
