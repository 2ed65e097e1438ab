"""Definitions in every form are read with their schema, or refused by name; none loses its schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from dfkdata.common.tool_definitions import DefinitionError, function_definitions
from dfkdata.rows.chat_turns import tools
from dfkdata.rows.record import RowError
from dfkeval.parsing.toolcall import SchemaError, ToolCallParser, write_tool_call

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
CANONICAL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
BASE = {"name": "f", "description": "d"}
FORMS: dict[str, Any] = {
    "OpenAI": CANONICAL,
    "OpenAI without its type": {"function": CANONICAL["function"]},
    "OpenAI Responses": {"type": "function", **BASE, "parameters": SCHEMA},
    "bare": {**BASE, "parameters": SCHEMA},
    "MCP": {**BASE, "inputSchema": SCHEMA},
    "MCP list": {"tools": [{**BASE, "inputSchema": SCHEMA}]},
    "MCP with notes": {**BASE, "inputSchema": SCHEMA, "annotations": {"readOnlyHint": True},
                       "outputSchema": {"type": "object"}},
    "Anthropic": {**BASE, "input_schema": SCHEMA},
    "Anthropic custom": {"type": "custom", **BASE, "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}},
    "Gemini": {"function_declarations": [{**BASE, "parameters": SCHEMA}]},
    "Gemini, camel case": {"functionDeclarations": [{**BASE, "parametersJsonSchema": SCHEMA}]},
    "Gemini, its types": {"function_declarations": [
        {**BASE, "parameters": {"type": "OBJECT", "properties": {"n": {"type": "INTEGER"}}, "required": ["n"]}}
    ]},
    "Bedrock": {"toolSpec": {**BASE, "inputSchema": {"json": SCHEMA}}},
    "MCP in OpenAI's wrapper": {"type": "function", "function": {**BASE, "inputSchema": SCHEMA}},
    "filled by columns": {"function": None, "toolSpec": None, "tools": None, "type": None, **BASE,
                          "parameters": None, "inputSchema": SCHEMA, "input_schema": {}},
    "twice the same": {**BASE, "parameters": SCHEMA, "inputSchema": SCHEMA},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_with_its_schema(form: str) -> None:
    for parser in (ToolCallParser([FORMS[form]]), ToolCallParser(FORMS[form])):
        assert parser.parse(write_tool_call("f", {"n": 5})).calls[0].arguments == {"n": 5}
        assert [p.code for p in parser.parse(write_tool_call("f", {"n": "x"})).problems] == ["type"]
        assert [p.code for p in parser.parse(write_tool_call("f", {})).problems] == ["required"]


@pytest.mark.parametrize("form", FORMS)
def test_rows_hold_every_form_as_openais(form: str) -> None:
    definitions = tools([FORMS[form]])
    assert definitions is not None
    function = definitions[0]["function"]
    assert (function["name"], function["description"]) == ("f", "d")
    assert function["parameters"]["properties"].keys() == {"n"}
    assert not function.keys() & {"inputSchema", "input_schema", "parametersJsonSchema", "type"}
    assert tools(definitions) == definitions


def test_openais_form_is_returned_as_it_is() -> None:
    assert function_definitions(CANONICAL)[0] is CANONICAL
    bare = {"name": "f"}
    assert function_definitions({"function": bare}) == [{"function": bare}]


def test_wrappers_hold_several_functions() -> None:
    wrapped = {"function_declarations": [{"name": "f", "parameters": SCHEMA}, {"name": "g"}]}
    assert [each["function"]["name"] for each in function_definitions(wrapped)] == ["f", "g"]
    parser = ToolCallParser([wrapped, {"name": "h"}])
    assert all(parser.parse(write_tool_call(name, {"n": 1})).calls for name in "fgh")
    with pytest.raises(SchemaError, match="two tools are named 'f'"):
        ToolCallParser([wrapped, {"name": "f"}])


@pytest.mark.parametrize(
    ("table", "valid", "invalid"),
    [
        ({"n": {"type": "int", "description": "how many"}}, {"n": 5}, {"n": "x"}),
        ({"type": {"type": "str"}, "n": {"type": "List[int]"}}, {"type": "a", "n": [1]}, {"n": ["x"]}),
        ({"items": {"type": "array"}, "n": {"type": "float, optional"}}, {"items": [], "n": 2.5}, {"n": "x"}),
    ],
)
def test_a_bare_table_of_parameters_is_read_as_properties(table: Any, valid: Any, invalid: Any) -> None:
    parser = ToolCallParser([{"name": "f", "parameters": table}])
    assert parser.parse(write_tool_call("f", valid)).calls[0].arguments == valid
    assert parser.parse(write_tool_call("f", invalid)).problems[0].status == "invalid"


@pytest.mark.parametrize(
    "schema",
    [{}, {"properties": {}}, {"additionalProperties": {"type": "integer"}}, {"$defs": {"a": {}}}, {"not": {}},
     {"x-note": {"a": 1}}, {"type": "object"}, {"items": {}}, {"default": {}}],
    ids=repr,
)  # fmt: skip
def test_a_json_schema_is_not_taken_for_a_table(schema: Any) -> None:
    definition = {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert function_definitions(definition) == [definition]


@pytest.mark.parametrize(
    ("tool", "reason"),
    [
        (5, "an object, not int"),
        ("f", "an object, not str"),
        ({"description": "d"}, "needs a name"),
        ({"name": 5}, "needs a name"),
        ({"function": "f"}, "needs a name"),
        ({"name": "f", "schema": SCHEMA}, "'schema' is not read"),
        ({"type": "function", "function": {"name": "f"}, "parameters": SCHEMA}, "stands beside the function"),
        ({"function": {"name": "f", "parameters": {}}, "input_schema": SCHEMA}, "stands beside the function"),
        ({"name": "f", "parameter_definitions": {"n": {"type": "int"}}}, "'parameter_definitions' is not read"),
        ({"name": "f", "parameters": {}, "arguments": SCHEMA}, "'arguments' is not read"),
        ({"name": "f", "parameters": SCHEMA, "inputSchema": {"type": "object"}}, "two schemas, 'parameters' and"),
        ({"name": "w", "type": "web_search_20250305"}, "of type 'web_search_20250305'"),
        ({"function_declarations": [{"parameters": SCHEMA}]}, "needs a name"),
        ({"description": "x" * 500}, "needs a name"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_name(tool: Any, reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason):
        function_definitions(tool)
    with pytest.raises(SchemaError, match=reason):
        ToolCallParser([tool])
    if isinstance(tool, dict):
        with pytest.raises(RowError, match=reason) as refused:
            tools([tool])
        assert refused.value.code == "TOOLS_INVALID"


def test_a_class_without_a_json_schema_is_refused_by_name() -> None:
    class Odd(BaseModel):
        call: Callable[[int], int]

    with pytest.raises(SchemaError, match="tool 'Odd' has no JSON Schema"):
        ToolCallParser([Odd])


def test_a_schema_that_is_text_or_a_list_is_refused_when_the_parser_is_made() -> None:
    for schema in ("x", [1], 5):
        with pytest.raises(SchemaError, match="parameters must be a JSON Schema object"):
            ToolCallParser([{"name": "f", "inputSchema": schema}])
