"""Read tool definitions as catalogues and APIs write them, in the terms of OpenAI's form.

    {"type": "function", "function": {"name", "description", "parameters"}}    OpenAI; the form that rows hold
    {"name", "description", "parameters"}                                       the same, bare
    {"name", "description", "inputSchema"}                                      MCP; {"tools": [...]} around it too
    {"name", "description", "input_schema"}                                     Anthropic
    {"function_declarations": [{"name", "description", "parameters"}]}          Gemini; camel case too
    {"toolSpec": {"name", "description", "inputSchema": {"json": ...}}}         Bedrock

Guarantees:
- A definition in OpenAI's form is returned as it is.
- No schema is lost: a definition that holds one under a key that is not known, or two of them, is refused."""

from __future__ import annotations

from typing import Any, Final

#: Keys, in small letters, under which the arguments of a call are written; "arguments" is the right one.
ARGUMENT_KEYS: Final = ("arguments", "parameters", "args", "input", "params", "kwargs")

_SCHEMAS: Final = (
    "parameters",
    "inputSchema",
    "input_schema",
    "parametersJsonSchema",
    "parameters_json_schema",
)
_DECLARATIONS: Final = ("function_declarations", "functionDeclarations", "tools")
_TYPES: Final = ("function", "custom")
#: Keys that may hold an object and are no schema of the parameters.
_OBJECTS: Final = frozenset(
    (
        "name", "description", "return", "returns", "response", "output", "outputs", "outputSchema",
        "output_schema", "responseJsonSchema", "response_json_schema", "annotations", "metadata", "meta", "_meta",
        "cache_control", "cachePoint", "execution", "icons", "examples", "input_examples",
    )
)  # fmt: skip
#: Keywords of JSON Schema that hold an object; a schema with one of them is not a table of parameters.
_KEYWORDS: Final = frozenset(
    ("properties", "patternProperties", "additionalProperties", "unevaluatedProperties", "propertyNames",
     "$defs", "definitions", "dependentSchemas", "dependencies", "not", "if", "then", "else")
)  # fmt: skip
#: Keywords that are likely names of parameters too.
_EITHER: Final = frozenset(("items", "contains", "default", "const"))


class DefinitionError(ValueError):
    """A tool definition cannot be read; the message says why."""


def function_definitions(tool: Any) -> list[dict[str, Any]]:
    """Return what `tool` defines, each function in OpenAI's form; Gemini's and MCP's wrappers hold several.

    Raises:
        DefinitionError: if it is no definition, has no name, or its schema cannot be read.

    Example:
        >>> from dfkdata.common.tool_definitions import function_definitions
        >>> function_definitions({"name": "f", "inputSchema": {"type": "object"}})
        [{'type': 'function', 'function': {'name': 'f', 'parameters': {'type': 'object'}}}]"""
    if not isinstance(tool, dict):
        raise DefinitionError(f"a tool definition is an object, not {type(tool).__name__}")
    declared = next((tool[key] for key in _DECLARATIONS if isinstance(tool.get(key), list)), None)
    if declared is not None and "name" not in tool:
        return [definition for each in declared for definition in function_definitions(each)]
    inner = next((tool[key] for key in ("function", "toolSpec") if tool.get(key) is not None), tool)
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise DefinitionError(f"a tool definition needs a name: {_shown(tool)}")
    beside = [key for key in _SCHEMAS if inner is not tool and tool.get(key) not in (None, {})]
    if beside:
        raise DefinitionError(
            f"tool {inner['name']!r}: {beside[0]!r} stands beside the function; write it inside, as 'parameters'"
        )
    function = _function(inner)
    if inner is tool.get("function"):
        return [tool if function is inner else tool | {"function": function}]
    return [{"type": "function", "function": function}]


def _function(inner: dict[str, Any]) -> dict[str, Any]:
    """Return the function with its schema under "parameters"; the same object if nothing has to change."""
    name = inner["name"]
    kind = inner.get("type")
    if kind is not None and kind not in _TYPES:
        raise DefinitionError(f"tool {name!r} is of type {kind!r}, which has no schema here")
    held = [key for key in _SCHEMAS if inner.get(key) not in (None, {})]
    if len(held) > 1 and any(inner[key] != inner[held[0]] for key in held):
        raise DefinitionError(f"tool {name!r} has two schemas, {' and '.join(map(repr, held))}; keep one")
    unknown = [
        key for key, value in inner.items() if _schema_like(value) and key not in {*_OBJECTS, *_SCHEMAS}
    ]
    if unknown and not held:
        raise DefinitionError(
            f"tool {name!r}: {unknown[0]!r} is not read; write the schema under 'parameters'"
        )
    parameters = _parameters(inner[held[0]]) if held else None
    if held in ([], ["parameters"]) and kind is None and (not held or parameters is inner["parameters"]):
        return inner
    function: dict[str, Any] = {}
    for key, value in inner.items():
        if held and key == held[0]:
            function["parameters"] = parameters
        elif key != "type" and key not in _SCHEMAS:
            function[key] = value
    return function


def _schema_like(value: Any) -> bool:
    return isinstance(value, dict) and bool(value)


def _parameters(schema: Any) -> Any:
    """Return a schema without the wrapper of Bedrock; a bare table of parameters becomes its properties."""
    if isinstance(schema, dict) and schema.keys() == {"json"} and isinstance(schema["json"], dict):
        schema = schema["json"]
    return {"type": "object", "properties": schema} if _is_table(schema) else schema


def _is_table(schema: Any) -> bool:
    """Return whether `schema` is {parameter: schema, …} and no JSON Schema of an object."""
    if not isinstance(schema, dict) or not all(isinstance(part, dict) for part in schema.values()):
        return False
    names = [key for key in schema if key not in _EITHER]
    return bool(names) and not any(key in _KEYWORDS or key.startswith(("$", "x-")) for key in names)


def _shown(tool: Any) -> str:
    text = repr(tool)
    return text if len(text) <= 200 else text[:197] + "..."
