"""Nulls that columnar files add to tool arguments are left out; nulls that a tool declares stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert, load_rows
from dfkdata.common.json_schema import SchemaDocument
from dfkdata.rows.filled_nulls import without_filled_nulls, without_null_keywords

TEXT = {"type": "string"}


def tool(name: str, properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties} | more
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def call_of(arguments: Any, name: str = "f") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def cleaned(arguments: dict[str, Any], definition: dict[str, Any]) -> Any:
    turns, _ = without_filled_nulls([{"role": "assistant", "tool_calls": [call_of(arguments)]}], [definition])
    return turns[0]["tool_calls"][0]["function"]["arguments"]


SCHEMAS: list[Any] = [
    {},
    True,
    False,
    TEXT,
    {"type": "null"},
    {"type": ["string", "null"]},
    {"const": None},
    {"const": "a"},
    {"type": "string", "const": None},
    {"enum": ["a", None]},
    {"enum": ["a"]},
    {"anyOf": [TEXT, {"type": "null"}]},
    {"anyOf": [TEXT, {"type": "integer"}]},
    {"oneOf": [TEXT, {"$ref": "#/$defs/none"}]},
    {"$ref": "#/$defs/text"},
    {"$ref": "#/$defs/none"},
    {"allOf": [{"type": ["string", "null"]}, {"type": ["integer", "null"]}]},
    {"allOf": [{"type": ["string", "null"]}, TEXT]},
    {"not": {"type": "null"}},
    {"not": TEXT},
    {"description": "anything"},
    {"type": "object", "properties": {"a": {"type": "null"}}},
    {"type": "string", "nullable": True},
    {"type": "string", "nullable": False},
    {"type": "string", "nullable": True, "enum": ["a"]},
    {"type": "str | None"},
    {"type": "Optional[str]"},
    {"$ref": "#/$defs/text", "nullable": True},
    {"$ref": "#/$defs/nullable"},
    {"$ref": "#/$defs/renamed"},
    {"allOf": [{"$ref": "#/$defs/text"}], "nullable": True},
    {"anyOf": [{"$ref": "#/$defs/text"}, {"$ref": "#/$defs/nullable"}]},
    {"if": {"type": "null"}, "then": False},
]
DECLARED = [schema for schema in SCHEMAS if isinstance(schema, dict) and schema.get("nullable") is True]


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_a_null_stays_exactly_if_the_json_schema_engine_accepts_it(schema: Any) -> None:
    definitions = {"none": {"type": "null"}, "text": TEXT, "nullable": {"type": "integer", "nullable": True}}
    definitions["renamed"] = {"$ref": "#/$defs/nullable"}
    document = SchemaDocument({"properties": {"key": schema}, "$defs": definitions})
    accepted = not document.validator(document.root).issues({"key": None})
    arguments = cleaned({"key": None}, tool("f", {"key": schema}, **{"$defs": definitions}))
    assert arguments == ({"key": None} if accepted else {})
    assert accepted or schema not in DECLARED, "nullable: true says it"


def test_nested_objects_and_lists_are_held_to_their_own_schemas() -> None:
    inner = {"type": "object", "properties": {"a": {"type": ["string", "null"]}, "b": TEXT}}
    definition = tool(
        "f", {"one": inner, "many": {"type": "array", "items": inner}, "list": {"type": "array"}}
    )
    filled = {"a": None, "b": None, "c": None}
    arguments = {"one": filled, "many": [filled, {"b": "x", "a": "y"}], "list": [None, 1]}
    assert cleaned(arguments, definition) == {
        "one": {"a": None},
        "many": [{"a": None}, {"b": "x", "a": "y"}],
        "list": [None, 1],
    }


def test_keys_by_pattern_and_by_additional_properties_are_declared_keys() -> None:
    nullable = {"type": ["integer", "null"]}
    assert cleaned({"x_1": None, "y": None}, tool("f", {}, patternProperties={"^x_": nullable})) == {
        "x_1": None
    }
    assert cleaned({"y": None}, tool("f", {}, additionalProperties=nullable)) == {"y": None}
    assert cleaned({"y": None}, tool("f", {}, additionalProperties=True)) == {}


def test_a_schema_that_refers_to_itself_ends() -> None:
    node = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}
    definition = tool("f", {"first": {"$ref": "#/$defs/node"}}, **{"$defs": {"node": node}})
    assert cleaned({"first": {"next": {"next": None, "z": None}}}, definition) == {
        "first": {"next": {"next": None}}
    }
    loop = {"$ref": "#/$defs/loop"}
    assert cleaned({"a": None}, tool("f", {"a": loop}, **{"$defs": {"loop": loop}})) == {}


def test_turns_without_nulls_are_the_same_object() -> None:
    turns = [{"role": "assistant", "tool_calls": [call_of({"a": [1, {"b": ""}]})]}]
    assert without_filled_nulls(turns, []) == (turns, [])
    assert without_filled_nulls(turns, [])[0] is turns


def test_null_keywords_of_definitions_are_left_out_and_null_values_stay() -> None:
    declared = {"type": ["string", "null"], "const": None, "enum": None, "default": None, "examples": [None]}
    plain = {"type": "string", "const": None, "description": None}
    filled = tool("f", {"a": declared, "b": plain, "c": None})
    expected = tool("f", {"a": {key: declared[key] for key in declared if key != "enum"}, "b": TEXT})
    assert without_null_keywords([filled]) == [expected]


TOOLS = [tool("cuaca", {"kota": TEXT}), tool("waktu", {"zona": TEXT, "musim": {"type": ["string", "null"]}})]
ARGUMENTS = {"cuaca": {"kota": "Bogor"}, "waktu": {"zona": "WIB", "musim": None}}


def rows(definitions: Any) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"tanya {name}"},
                {"role": "assistant", "content": None, "tool_calls": [call_of(arguments, name)]},
            ],
            "tools": definitions,
        }
        for name, arguments in ARGUMENTS.items()
    ]


@pytest.mark.parametrize("layout", ["messages", "openai"])
@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("source", ["file", "dataset"])
def test_a_columnar_file_gives_the_arguments_as_they_were_written(
    layout: str, as_text: bool, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = rows(json.dumps(TOOLS) if as_text else TOOLS)
    table = pa.Table.from_pylist(raw)
    pq.write_table(table, "x.parquet")
    given: Any = "x.parquet" if source == "file" else datasets.Dataset(table)
    result = convert(given, "o", format=layout, validation=0.0)
    written = [*load_rows("o/train.jsonl")]
    calls = [row["messages"][-1]["tool_calls"][0]["function"] for row in written]
    assert {call["name"]: call["arguments"] for call in calls} == ARGUMENTS
    assert all(row["tools"] == TOOLS for row in written)
    assert result.warnings["TOOL_ARGS_NULL"]["count"] == 2


@pytest.mark.parametrize("key", ["parameters", "args", "input", "Arguments"])
def test_arguments_under_another_key_do_not_become_a_call_without_any(key: str, tmp_path: Path) -> None:
    row = rows(TOOLS)[0]
    row["messages"][1]["tool_calls"] = [{"name": "cuaca", key: {"kota": "Solo"}}]
    convert([row], tmp_path / "o", format="messages", validation=0.0, max_rejects=1)
    reject = json.loads((tmp_path / "o/quarantine.jsonl").read_text())
    assert (reject["code"], reject["path"]) == (
        "TOOL_ARGS_NOT_OBJECT",
        f"messages.1.tool_calls.0.function.{key}",
    )


@pytest.mark.parametrize("arguments", [None, [], ["a"], 3, True, "null", "[1]", "3", ""], ids=repr)
def test_arguments_that_are_no_object_are_quarantined_by_name(arguments: Any, tmp_path: Path) -> None:
    row = rows(TOOLS)[0]
    row["messages"][1]["tool_calls"] = [call_of(arguments, "cuaca")]
    convert([row], tmp_path / "o", format="messages", validation=0.0, max_rejects=1)
    reject = json.loads((tmp_path / "o/quarantine.jsonl").read_text())
    assert (reject["code"], reject["path"]) == (
        "TOOL_ARGS_NOT_OBJECT",
        "messages.1.tool_calls.0.function.arguments",
    )
