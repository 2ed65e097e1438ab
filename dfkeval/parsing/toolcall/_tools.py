"""Compile tool definitions into what the reader needs: names, slots, and the check of a whole call.

How it works: each tool's schema is prepared and compiled when the parser is made. The parameters that
parts of the schema declare (references, `allOf`, `anyOf`, `oneOf`, conditions, dependencies) count as
declared.

Guarantees:
- A definition that cannot be used raises `SchemaError` here and never while text is parsed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Final

from dfkdata.common.json_schema import SchemaDocument, SchemaError, Validator
from dfkdata.common.tool_definitions import DefinitionError, function_definitions
from dfkeval.parsing.coercion import Slot, compile_slot
from dfkeval.parsing.possible_types import PossibleValues
from dfkeval.parsing.tags import parameter_open

#: What a root schema may hold if its slots and its required names say all that it asserts.
_COVERED: Final = frozenset(
    ("type", "properties", "additionalProperties", "required", "title", "description", "$defs", "definitions")
)
#: Keywords whose schemas describe the same object, and may declare more of its parameters.
_ONE: Final = ("then", "else")
_LISTS: Final = ("allOf", "anyOf", "oneOf")
_TABLES: Final = ("dependentSchemas", "dependencies")


class Tool:
    """One function that can be called.

    Attributes:
        name: the name of the function.
        slots: parameter -> slot, for all parameters that the schema declares.
        has_choices: some parameter may be described by several parts of the schema.
        required: names of the parameters that every valid call holds.
        untyped: the definition declares no parameter, so that every name is as good as declared.
        usual: (opening tag, its length, parameter, slot) in declared order.
        validator: decides about the arguments as a whole.
        covered: slots and `required` say all that the schema asserts.
        unknown_types: JSON pointer of a `type` that names no type -> that name; it asserts nothing."""

    __slots__ = (
        "_compile", "_forbids", "_known", "_others", "_patterns", "_ways", "covered", "has_choices", "name",
        "required", "slots", "unknown_types", "untyped", "usual", "validator",
    )  # fmt: skip

    def __init__(self, name: str, parameters: Any) -> None:
        if not isinstance(parameters, dict):
            raise SchemaError(f"parameters must be a JSON Schema object, not {type(parameters).__name__}")
        document = SchemaDocument(parameters)
        root = document.root
        types = PossibleValues(document, implied=False).types(root)
        if types is not None and "object" not in types:
            raise SchemaError(
                f"parameters must describe an object; these take {' or '.join(types) or 'no value'}"
            )
        self._patterns = [
            (partial(document.matches, pattern), part)
            for schema in _same_object(document, root, always=True)
            for pattern, part in schema.get("patternProperties", {}).items()
        ]
        declared = {
            key: [*parts, *(part for part in self._matching(key) if part not in parts)]
            for key, parts in _declared(document, root).items()
        }
        extra = next((part for part in _chain(document, root) if "additionalProperties" in part), root)
        self._forbids = extra.get("additionalProperties", True) is False
        self._others = _other_parameters(document, root)
        self._compile = partial(compile_slot, document, PossibleValues(document))
        self._known: dict[tuple[int, ...], Slot] = {}
        self.name = name
        self.slots = {key: self._slot(*parts) for key, parts in declared.items()}
        several = {key: parts for key, parts in declared.items() if len(parts) > 1}
        self._ways = {key: [self._slot(part) for part in parts] for key, parts in several.items()}
        for part in (*(part for _, part in self._patterns), *self._others):
            self._slot(part)  # refused now or never
        self.has_choices = bool(self._ways) or len(self._patterns) + len(self._others) > 1
        self.required = frozenset(_required(document, root))
        self.untyped = not declared and not self._forbids
        openers = [(parameter_open(key), key, slot) for key, slot in self.slots.items()]
        self.usual = [(opener, len(opener), key, slot) for opener, key, slot in openers]
        self.validator: Validator = document.validator(root)
        self.covered = root.keys() <= _COVERED
        self.unknown_types = document.unknown_types

    def slot(self, key: str) -> Slot | None:
        """Return the slot for `key`; None if it is not declared and other keys are forbidden."""
        if key in self.slots:
            return self.slots[key]
        parts = self._undeclared(key)
        return self._slot(*parts) if parts else None

    def ways(self, key: str) -> list[Slot]:
        """Return the slots of each part of the schema that describes `key`, if there are several."""
        if key in self.slots:
            return self._ways.get(key, [])
        parts = self._undeclared(key)
        return [self._slot(part) for part in parts] if len(parts) > 1 else []

    def _slot(self, *parts: Any) -> Slot:
        """Return the slot of what `parts` of the schema describe."""
        key = tuple(map(id, parts))
        if key not in self._known:
            self._known[key] = self._compile(*parts)
        return self._known[key]

    def _matching(self, key: str) -> list[Any]:
        """Return the parts of the schema whose pattern `key` matches."""
        return [part for matches, part in self._patterns if matches(key)]

    def _undeclared(self, key: str) -> list[Any]:
        """Return what describes a parameter that no part of the schema declares; nothing if it is forbidden."""
        return self._matching(key) or ([] if self._forbids else self._others or [True])


def _chain(document: SchemaDocument, root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the root, and what references at its top lead to."""
    schema: Any = root
    while isinstance(schema, dict):
        yield schema
        schema = document.target(schema)


def _same_object(
    document: SchemaDocument, root: dict[str, Any], *, always: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield every schema that describes the same object as `root`, itself first; `always`: only those that
    apply to every object."""
    waiting: list[Any] = [root]
    seen: set[int] = set()
    for schema in waiting:  # it grows in the loop
        if not isinstance(schema, dict) or id(schema) in seen:
            continue
        seen.add(id(schema))
        yield schema
        waiting += [document.target(schema), *schema.get("allOf", ())]
        if always:
            continue
        waiting += [schema.get(key) for key in _ONE]
        for key in _LISTS[1:]:
            waiting += schema.get(key, ())
        for key in _TABLES:
            waiting += schema.get(key, {}).values()


def _declared(document: SchemaDocument, root: dict[str, Any]) -> dict[str, list[Any]]:
    """Return each declared name -> its schemas, also those of parts of the schema that apply to some calls only. A
    name that several declare may be what any of them says; the check of the whole object decides."""
    declared: dict[str, list[Any]] = {}
    for schema in _same_object(document, root):
        for key, part in schema.get("properties", {}).items():
            parts = declared.setdefault(key, [])
            if part not in parts:
                parts.append(part)
    return declared


def _other_parameters(document: SchemaDocument, root: dict[str, Any]) -> list[Any]:
    """Return the schemas that every undeclared parameter fits."""
    parts: list[Any] = []
    for schema in _same_object(document, root, always=True):
        for word in ("additionalProperties", "unevaluatedProperties"):
            if schema.get(word, True) not in (True, False, {}) and schema[word] not in parts:
                parts.append(schema[word])
    return parts


def _required(document: SchemaDocument, root: dict[str, Any]) -> set[str]:
    """Return the names that every valid object holds."""
    return {
        name for schema in _same_object(document, root, always=True) for name in schema.get("required", ())
    }


class AnyTool(Tool):
    """Stands for every function if no tools are given: any name is known, every value stays text."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("", {})


def compile_tools(tools: Any) -> dict[str, Tool]:
    """Return the compiled tools by name.

    Args:
        tools: definitions in any form that `dfkdata.common.tool_definitions` reads, or pydantic classes.

    Raises:
        SchemaError: if a definition cannot be used."""
    compiled: dict[str, Tool] = {}
    single = isinstance(tools, dict | type) or hasattr(tools, "model_dump")
    if not single and tools is not None and not isinstance(tools, Iterable):
        raise SchemaError(f"tools are a list of definitions, not {type(tools).__name__}")
    for number, tool in enumerate([tools] if single else tools or ()):
        for name, parameters in _definitions(tool, number):
            if name in compiled:
                raise SchemaError(f"two tools are named {name!r}")
            try:
                compiled[name] = Tool(name, parameters)
            except SchemaError as error:
                raise SchemaError(f"tool {name!r}: {error}") from None
    return compiled


def _definitions(tool: Any, number: int) -> list[tuple[str, Any]]:
    """Return (name, schema of the parameters) of each function that `tool` defines."""
    if isinstance(tool, type) and hasattr(tool, "model_json_schema"):
        try:
            return [(tool.__name__, tool.model_json_schema())]
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise SchemaError(f"tool {tool.__name__!r} has no JSON Schema: {error}") from None
    try:
        functions = [each["function"] for each in function_definitions(tool)]
    except DefinitionError as error:
        raise SchemaError(f"tool {number}: {error}") from None
    return [
        (each["name"], each.get("parameters") or {"type": "object", "properties": {}}) for each in functions
    ]
