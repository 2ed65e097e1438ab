"""Decide about values where the engine would read the same part of a schema again and again.

How it works: the engine checks what a schema asserts by itself (`type`, `minLength`, `required`, ...). The keywords
that hold schemas (`allOf`, `properties`, `$ref`, ...) are followed here, and each pair of a schema and a value is read
once. So parts that share parts cost as much as there are parts, and not as many ways as lead to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Final, NamedTuple

from dfkdata.common.json_schema._issues import Issue, deepest, issues_of, shown
from dfkdata.common.json_schema._preparation import DRAFT_URIS, Prepared, pointer_step
from dfkdata.common.json_schema._rewriting import SchemaError
from dfkdata.common.recursion import Steps, run

#: Keywords that are followed here -> the first draft that has them, and the last.
_FOLLOWED: Final = {
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "not", "items", "properties"), (4, 2020)),
    **dict.fromkeys(("patternProperties", "additionalProperties", "dependencies"), (4, 2020)),
    "additionalItems": (4, 2019),
    **dict.fromkeys(("contains", "propertyNames"), (6, 2020)),
    **dict.fromkeys(("if", "then", "else"), (7, 2020)),
    **dict.fromkeys(("minContains", "maxContains", "dependentSchemas"), (2019, 2020)),
    **dict.fromkeys(("unevaluatedProperties", "unevaluatedItems"), (2019, 2020)),
    "prefixItems": (2020, 2020),
}
_NAMES: Final = frozenset(
    ("$ref", "$id", "id", "$schema", "$anchor", "$defs", "definitions", "$dynamicAnchor", "$recursiveAnchor")
)
#: Assertions that look into a container; all others see only its size and keys.
_DEEP: Final = ("enum", "const", "uniqueItems")
_DYNAMIC: Final = ("$dynamicRef", "$recursiveRef")
#: How many issues of one value are kept.
_KEPT: Final = 50


class _Reading(NamedTuple):
    """What a schema says about a value.

    Attributes:
        issues: what it has against the value, at most _KEPT.
        seen: the names or numbers of the items that it has looked at, for `unevaluatedProperties`."""

    issues: tuple[Issue, ...] = ()
    seen: frozenset[Any] = frozenset()


_FITS: Final = _Reading()


class Memoised:
    """Reads values with a prepared schema, each part of it once for each part of a value.

    Args:
        prepared: the schema.
        compiled: makes an engine of a schema without references.
        matches: whether a name of a property is one of a pattern.

    Raises:
        SchemaError: if the schema has references whose targets depend on the way to them."""

    def __init__(
        self,
        prepared: Prepared,
        compiled: Callable[[dict[str, Any]], Any],
        matches: Callable[[str, str], bool],
    ) -> None:
        for schema in prepared.parts:
            for word in _DYNAMIC:
                if word in schema:
                    place = prepared.places[id(schema)]
                    raise SchemaError(
                        f"#{place}/{word}: {word} cannot be read in a schema that combines its parts in as many ways "
                        "as this one; use $ref"
                    )
        self._prepared = prepared
        self._compiled = compiled
        self.matches = matches
        self._engines: dict[Any, Any] = {}

    def issues(self, parts: tuple[Any, ...], value: Any) -> list[Issue]:
        """Return what each of `parts`, any of which may describe `value`, has against it; [] if one has nothing."""
        walk = _Walk(self)
        readings = [run(walk.read(part, value)) for part in parts]
        if not all(reading.issues for reading in readings):
            return []
        return list(deepest([list(reading.issues) for reading in readings]))

    def keyword(self, schema: dict[str, Any], word: str) -> Any:
        """Return what `schema` writes under a keyword that is followed here; None if its draft has no such
        keyword."""
        first, last = _FOLLOWED[word]
        return schema.get(word) if first <= self._prepared.draft <= last else None

    def target(self, schema: dict[str, Any]) -> Any:
        """Return the schema that the reference in `schema` leads to; True if there is none."""
        return self._prepared.targets.get(id(schema), True)

    def own_issues(self, schema: dict[str, Any], value: Any) -> tuple[Issue, ...]:
        """Return what `schema` has against `value` without the schemas that it holds."""
        if id(schema) not in self._engines:
            own = {
                word: part for word, part in schema.items() if word not in _FOLLOWED and word not in _NAMES
            }
            engine = self._engine(own) if own else None
            self._engines[id(schema)] = engine, any(word in own for word in _DEEP)
        engine, is_deep = self._engines[id(schema)]
        if engine is None or engine.is_valid(value if is_deep else _flat(value)):
            return ()
        return tuple(issues_of(engine.iter_errors(value)))[:_KEPT]

    def _engine(self, schema: dict[str, Any]) -> Any:
        return self._compiled({"$schema": DRAFT_URIS[self._prepared.draft], **schema})

    @cached_property
    def looks_back(self) -> bool:
        """Return whether any part asks what the others have looked at."""
        words = ("unevaluatedProperties", "unevaluatedItems")
        return any(word in schema for schema in self._prepared.parts for word in words)

    @property
    def contains_counts(self) -> bool:
        """Return whether an item that `contains` takes counts as looked at."""
        return self._prepared.draft >= 2020


class _Walk:
    """One value that is read."""

    def __init__(self, schema: Memoised) -> None:
        self._schema = schema
        self._known: dict[tuple[int, int], _Reading] = {}

    def read(self, schema: Any, value: Any) -> Steps[_Reading]:
        if not isinstance(schema, dict):
            return (
                _FITS if schema is not False else _Reading((Issue("", "false", "no value is allowed here"),))
            )
        key = id(schema), id(value)
        if key not in self._known:
            issues: list[Issue] = list(self._schema.own_issues(schema, value))
            seen: set[Any] = set()
            for group in (self._together, self._alternatives, self._condition, self._inside):
                reading = yield group(schema, value)
                issues += reading.issues
                seen |= reading.seen
            if self._schema.looks_back:
                reading = yield self._left_over(schema, value, seen)
                issues += reading.issues
                seen |= reading.seen
            kept = tuple(dict.fromkeys(issues))[:_KEPT]
            self._known[key] = _Reading(kept, frozenset() if kept else frozenset(seen))
        return self._known[key]

    def _all(self, parts: Iterable[Any], value: Any) -> Steps[_Reading]:
        """Read what must fit as a whole."""
        issues: list[Issue] = []
        seen: set[Any] = set()
        for part in parts:
            reading = yield self.read(part, value)
            issues += reading.issues
            seen |= reading.seen
        return _Reading(tuple(issues), frozenset(seen))

    def _together(self, schema: dict[str, Any], value: Any) -> Steps[_Reading]:
        keyword = self._schema.keyword
        parts = [self._schema.target(schema), *(keyword(schema, "allOf") or ())]
        if isinstance(value, dict):
            dependents = (keyword(schema, "dependentSchemas") or {}) | (keyword(schema, "dependencies") or {})
            for name in value:
                needed = dependents.get(name, True)
                parts.append({"required": needed} if isinstance(needed, list) else needed)
        reading: _Reading = yield self._all(parts, value)
        return reading

    def _alternatives(self, schema: dict[str, Any], value: Any) -> Steps[_Reading]:
        issues: list[Issue] = []
        seen: set[Any] = set()
        for word in ("anyOf", "oneOf"):
            parts = self._schema.keyword(schema, word)
            if parts is None:
                continue
            readings = []
            for part in parts:
                readings.append((yield self.read(part, value)))
            fitting = [reading for reading in readings if not reading.issues]
            if not fitting:
                issues += deepest([list(reading.issues) for reading in readings])
            elif word == "oneOf" and len(fitting) > 1:
                message = f"{shown(value)} fits {len(fitting)} alternatives; it must fit one"
                issues.append(Issue("", word, message))
            seen.update(*(reading.seen for reading in fitting))
        return _Reading(tuple(issues), frozenset(seen))

    def _condition(self, schema: dict[str, Any], value: Any) -> Steps[_Reading]:
        keyword = self._schema.keyword
        excluded, test = keyword(schema, "not"), keyword(schema, "if")
        if excluded is not None and not (yield self.read(excluded, value)).issues:
            return _Reading((Issue("", "not", f"{shown(value)} is excluded"),))
        if test is None:
            return _FITS
        tested = yield self.read(test, value)
        then = keyword(schema, "else" if tested.issues else "then")
        reading = yield self.read(True if then is None else then, value)
        return _Reading(reading.issues, reading.seen | tested.seen)

    def _inside(self, schema: dict[str, Any], value: Any) -> Steps[_Reading]:
        if not isinstance(value, dict | list):
            return _FITS
        inside = self._members(schema, value) if isinstance(value, dict) else self._items(schema, value)
        reading: _Reading = yield inside
        return reading

    def _members(self, schema: dict[str, Any], value: dict[str, Any]) -> Steps[_Reading]:
        keyword = self._schema.keyword
        named = keyword(schema, "properties") or {}
        patterns = keyword(schema, "patternProperties") or {}
        others, names = keyword(schema, "additionalProperties"), keyword(schema, "propertyNames")
        pairs: list[tuple[Any, Any]] = []
        issues: list[Issue] = []
        for name in value:
            parts = [part for pattern, part in patterns.items() if self._schema.matches(pattern, name)]
            parts += [named[name]] if name in named else []
            if not parts and others is False:
                issues.append(Issue(pointer_step(name), "additionalProperties", _NO_NAME))
            elif not parts and others is not None:
                parts.append(others)
            pairs += [(name, part) for part in parts]
            if names is not None and (yield self.read(names, name)).issues:
                message = f"{name!r} is no allowed name of a property"
                issues.append(Issue(pointer_step(name), "propertyNames", message))
        reading = yield self._each(value, pairs)
        return _Reading((*issues, *reading.issues), reading.seen)

    def _items(self, schema: dict[str, Any], value: list[Any]) -> Steps[_Reading]:
        keyword = self._schema.keyword
        first, rest = keyword(schema, "prefixItems") or [], keyword(schema, "items")
        if isinstance(rest, list):
            first, rest = rest, keyword(schema, "additionalItems")
        pairs = list(enumerate(first[: len(value)]))
        if rest is not None:
            pairs += [(at, rest) for at in range(len(first), len(value))]
        reading: _Reading = yield self._each(value, pairs)
        wanted = keyword(schema, "contains")
        if wanted is None:
            return reading
        found = set()
        for at, item in enumerate(value):
            if not (yield self.read(wanted, item)).issues:
                found.add(at)
        least, most = keyword(schema, "minContains"), keyword(schema, "maxContains")
        enough = (1 if least is None else least) <= len(found) <= (len(value) if most is None else most)
        issues = () if enough else (Issue("", "contains", "too few or too many items of the demanded kind"),)
        seen = reading.seen | found if self._schema.contains_counts else reading.seen
        return _Reading((*reading.issues, *issues), seen)

    def _each(self, value: Any, pairs: Iterable[tuple[Any, Any]]) -> Steps[_Reading]:
        """Read items of `value`, each with the schema beside its name or number."""
        issues: list[Issue] = []
        seen = set()
        for name, part in pairs:
            reading = yield self.read(part, value[name])
            issues += [
                issue._replace(pointer=pointer_step(str(name)) + issue.pointer) for issue in reading.issues
            ]
            seen.add(name)
        return _Reading(tuple(issues), frozenset(seen))

    def _left_over(self, schema: dict[str, Any], value: Any, seen: set[Any]) -> Steps[_Reading]:
        is_object = isinstance(value, dict)
        word = "unevaluatedProperties" if is_object else "unevaluatedItems"
        part = self._schema.keyword(schema, word) if isinstance(value, dict | list) else None
        if part is None:
            return _FITS
        left = [name for name in (value if is_object else range(len(value))) if name not in seen]
        if part is False and left:
            message = _NO_NAME if is_object else "no more items are allowed"
            places = [pointer_step(str(name)) for name in left] if is_object else [""]
            return _Reading(tuple(Issue(place, word, message) for place in places))
        reading: _Reading = yield self._each(value, ((name, part) for name in left))
        return reading


_NO_NAME: Final = "no property of this name is allowed"


def _flat(value: Any) -> Any:
    """Return a container with nothing in its items, which is all that most assertions look at."""
    if isinstance(value, dict):
        return dict.fromkeys(value)
    return [None] * len(value) if isinstance(value, list) else value
