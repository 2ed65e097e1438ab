"""Tool definitions -> what the reader needs to know about each: declared names, the slot of each, checks on
the whole.

Strategy: compile every schema once, when the parser is made, and resolve `$ref` against the parameters object
that holds it. Promises: a definition that cannot be used raises SchemaError here and never while text is
parsed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from dfkeval.parsing.coercion import Issue, SchemaError, Slot, compile_slot
from dfkeval.parsing.jsonschema.compiler import Check, Document, regex
from dfkeval.parsing.tags import parameter_open

_SAYS_NOTHING: Final = {"required", "$defs", "definitions", "title", "description"}
_ANYTHING: Final[dict[str, Any]] = {}


class Tool:
    """One function. `slots`: declared parameter -> slot. `required`: names that must be there. `check`:
    assertions on the whole object that reading parameter by parameter leaves open; `whole`: all assertions.
    `untyped`: the definition names no parameter, so that every name is as good as declared."""

    __slots__ = (
        "_extra",
        "_patterns",
        "check",
        "fast",
        "name",
        "only_required",
        "required",
        "several",
        "slots",
        "untyped",
        "whole",
    )

    def __init__(self, name: str, parameters: Any) -> None:
        if not isinstance(parameters, dict):
            raise SchemaError(
                f"tool {name!r}: parameters must be a JSON Schema object, not {type(parameters).__name__}"
            )
        self.name = name
        doc = Document(parameters)
        root = _root(doc, parameters)
        declared = _properties(doc, root)
        properties = {
            key: parts[0] if len(parts) == 1 else {"anyOf": parts} for key, parts in declared.items()
        }
        extra = root.get("additionalProperties", True)
        self.slots = {key: compile_slot(doc, part) for key, part in properties.items()}
        #: The slots of names that parts of the schema describe in more than one way.
        self.several = {
            key: [compile_slot(doc, part) for part in parts]
            for key, parts in declared.items()
            if len(parts) > 1
        }
        self._extra = None if extra is False else compile_slot(doc, {} if extra is True else extra)
        patterns = root.get("patternProperties", {})
        self._patterns = [(regex(key), compile_slot(doc, part)) for key, part in patterns.items()]
        self.required = frozenset(_required(doc, root))
        self.untyped = not properties and extra is not False
        #: Key -> (its opening tag as written, the tag's length, slot), in declared order, for the usual case.
        openers = [(parameter_open(key) + "\n", key, slot) for key, slot in self.slots.items()]
        self.fast = [(opener, len(opener), key, slot) for opener, key, slot in openers]
        self.whole: Check = doc.check(root)
        rest = _rest(root)
        self.check = self.whole if patterns or self.several else doc.check(rest)
        #: Nothing but `required` is asserted on the whole object.
        self.only_required = self.check is not self.whole and rest.keys() <= _SAYS_NOTHING

    def slot(self, key: str) -> Slot | None:
        """The slot for `key`; None where an undeclared key is forbidden."""
        if key in self.slots:
            return self.slots[key]
        return next((slot for pattern, slot in self._patterns if pattern.search(key)), self._extra)


def _root(doc: Document, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters object with a `$ref` at its top written out."""
    doc.check(parameters)  # refuses references that go in a circle
    while "$ref" in parameters:
        own = {key: part for key, part in parameters.items() if key != "$ref"}
        parameters = {**doc.resolve(parameters["$ref"]), **own}
    return parameters


def _branches(doc: Document, schema: Any, keywords: tuple[str, ...]) -> list[dict[str, Any]]:
    """The objects that stand under `keywords` of `schema`, references written out."""
    found: list[Any] = []
    for keyword in keywords:
        under = schema.get(keyword, ())
        found += [under] if keyword in ("then", "else") else under
    return [_root(doc, part) for part in found if isinstance(part, dict)]


def _properties(doc: Document, root: dict[str, Any]) -> dict[str, list[Any]]:
    """Declared name -> schemas, also those that only a part of an allOf, anyOf, oneOf, then or else declares.
    A name that several declare may be what any of them says; the check of the whole object decides."""
    found: dict[str, list[Any]] = {key: [part] for key, part in root.get("properties", {}).items()}
    for branch in _branches(doc, root, ("allOf", "anyOf", "oneOf", "then", "else")):
        for key, more in _properties(doc, branch).items():
            parts = found.setdefault(key, [])
            parts += [part for part in more if part not in parts]
    return found


def _required(doc: Document, root: dict[str, Any]) -> set[str]:
    """The names that every valid object holds."""
    names = set(root.get("required", ()))
    return names.union(*(_required(doc, branch) for branch in _branches(doc, root, ("allOf",))))


def _rest(root: dict[str, Any]) -> dict[str, Any]:
    return {
        key: part for key, part in root.items() if key not in ("properties", "type", "additionalProperties")
    }


class AnyTool(Tool):
    """Stands for every function when no tools are given: any name, every value stays text."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("", _ANYTHING)


def compile_tools(tools: Iterable[Any] | None) -> dict[str, Tool]:
    """Name -> Tool for OpenAI-style dicts and pydantic classes. Raises SchemaError for a definition that
    cannot be used."""
    made: dict[str, Tool] = {}
    for number, tool in enumerate(tools or ()):
        name, parameters = _definition(tool, number)
        if name in made:
            raise SchemaError(f"two tools are named {name!r}")
        try:
            made[name] = Tool(name, parameters)
        except (AttributeError, KeyError, TypeError) as bad:
            raise SchemaError(f"tool {name!r}: its JSON Schema is not well formed: {bad}") from bad
    return made


def _definition(tool: Any, number: int) -> tuple[str, Any]:
    if isinstance(tool, type) and hasattr(tool, "model_json_schema"):
        return tool.__name__, tool.model_json_schema()
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise SchemaError(
            f"tool {number} is neither an OpenAI-style definition with a name nor a pydantic class: {tool!r}"
        )
    return function["name"], function.get("parameters") or {"type": "object", "properties": {}}


__all__ = ["AnyTool", "Issue", "Tool", "compile_tools"]
