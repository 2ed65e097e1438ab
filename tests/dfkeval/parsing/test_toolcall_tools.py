"""Tool definitions: what is read, what is refused when the parser is made, and what is told."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jsonschema_rs
import pytest
from pydantic import BaseModel

from dfkdata.common.json_schema import SchemaError
from dfkeval.parsing.toolcall import ToolCallParser, write_tool_call
from tests.helpers.random_schemas import shared, value

STR = {"type": "string"}
Item = TypeVar("Item")


class Trip(BaseModel):
    days: int


class Unresolved(BaseModel):
    there: Nowhere  # type: ignore[name-defined]  # noqa: F821


class Calls(BaseModel):
    back: Callable[[], int]


class Box(BaseModel, Generic[Item]):
    held: Item


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([BaseModel], "tool 'BaseModel' has no JSON Schema"),
        (BaseModel, "tool 'BaseModel' has no JSON Schema"),
        ([Unresolved], "tool 'Unresolved' has no JSON Schema"),
        ([Calls], "tool 'Calls' has no JSON Schema"),
        ([int], "a tool definition is an object, not type"),
        (int, "a tool definition is an object, not type"),
        (Trip(days=1), "a tool definition is an object, not Trip"),
        ([Trip(days=1)], "a tool definition is an object, not Trip"),
        (5, "tools are a list of definitions, not int"),
        (0, "tools are a list of definitions, not int"),
        ("trip", "a tool definition is an object, not str"),
        ([None], "a tool definition is an object, not NoneType"),
    ],
)
def test_what_is_no_tool_is_refused_by_name(tools: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        ToolCallParser(tools)


@pytest.mark.parametrize("tools", [Trip, [Trip], (Trip,), iter([Trip]), {"name": "Trip", "parameters": {}}])
def test_one_tool_needs_no_list(tools: Any) -> None:
    assert ToolCallParser(tools).parse(write_tool_call("Trip", {"days": 3})).ok


def test_a_filled_generic_class_is_a_tool() -> None:
    parser = ToolCallParser(Box[int])
    assert parser.parse(write_tool_call("Box[int]", {"held": 3})).calls[0].arguments == {"held": 3}


NEVER: list[Any] = [
    {"type": "array"}, {"type": ["string", "null"]}, {"not": {"type": "object"}}, {"not": {}}, {"not": True},
    {"enum": [1, 2]}, {"const": "x"}, {"allOf": [STR]}, {"anyOf": [STR, {"type": "array"}]}, {"oneOf": [STR]},
    {"allOf": [{"type": ["object", "string"]}, STR]}, {"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}},
    {"anyOf": [False, STR]}, {"allOf": [False]}, {"oneOf": [{"anyOf": [False]}]}, {"not": {"type": ["object", "null"]}},
]  # fmt: skip
OBJECTS: list[Any] = [
    {}, {"type": "object"}, {"type": ["object", "null"]}, {"enum": [{}, 1]}, {"not": STR}, {"items": STR},
    {"anyOf": [STR, {"type": "object"}]}, {"allOf": [{"minLength": 3}]},
    {"not": {"type": "object", "minProperties": 1}},
    {"anyOf": [{"items": STR}, STR]}, {"type": "dict"}, {"properties": {"a": STR}},
]  # fmt: skip


@pytest.mark.parametrize("schema", NEVER, ids=repr)
def test_parameters_that_are_never_an_object_are_refused(schema: Any) -> None:
    with pytest.raises(SchemaError, match="parameters must describe an object"):
        ToolCallParser([{"name": "f", "parameters": {"title": "t", **schema}}])


@pytest.mark.parametrize("schema", OBJECTS, ids=repr)
def test_parameters_that_may_be_an_object_are_read(schema: Any) -> None:
    parser = ToolCallParser([{"name": "f", "parameters": {"title": "t", **schema}}])
    assert parser.parse(write_tool_call("f", {})).ok


def test_parameters_are_refused_only_where_no_object_fits() -> None:
    rng = random.Random(15)
    refused = 0
    for _ in range(400):
        schema = shared(rng, rng.randint(1, 5))
        engine = jsonschema_rs.validator_for(schema)
        try:
            ToolCallParser([{"name": "f", "parameters": schema}], dialect="hermes")
        except SchemaError as error:
            assert "must describe an object" in str(error)
            refused += 1
            assert not any(engine.is_valid(each) for each in OBJECT_VALUES), schema
    assert 50 < refused < 200


OBJECT_VALUES = [
    each for each in (value(random.Random(seed)) for seed in range(300)) if isinstance(each, dict)
]


@pytest.mark.parametrize("seed", range(3))
def test_calls_get_the_verdicts_of_the_engine_under_random_schemas(seed: int) -> None:
    rng = random.Random(seed)
    fits = 0
    for _ in range(100):
        schema = {"type": "object", **shared(rng, rng.randint(1, 6))}
        engine = jsonschema_rs.validator_for(schema)
        try:
            parser = ToolCallParser([{"name": "f", "parameters": schema}], dialect="hermes")
        except SchemaError:
            assert not any(engine.is_valid(each) for each in OBJECT_VALUES)
            continue
        for each in rng.sample(OBJECT_VALUES, 12):
            result = parser.parse(write_tool_call("f", each, dialect="hermes"))
            assert result.ok == engine.is_valid(each), (schema, each, result.problems)
            assert [call.arguments for call in result.calls] == [each] * result.ok
            fits += result.ok
    assert fits > 100


@pytest.mark.parametrize(
    "schema",
    [
        STR, {"enum": ["a"]}, {"const": "a"}, {"$ref": "#/$defs/x"}, {"anyOf": [STR]}, {"oneOf": [STR]},
        {"allOf": [STR]}, {"type": "string", "enum": ["a", "b"]}, {"$ref": "#/$defs/x", "title": "t"},
        {"type": ["string", "integer"]},
        {"allOf": [{"$ref": "#/$defs/x"}], "anyOf": [STR, {"type": "integer"}]},
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("nullable", [True, "true", "True", " TRUE "])
def test_nullable_lets_null_through_wherever_it_stands(schema: Any, nullable: Any) -> None:
    def fits(more: Any, given: Any) -> bool:
        parameters = {"properties": {"a": {**schema, **more}}, "$defs": {"x": STR}}
        parser = ToolCallParser([{"name": "f", "parameters": parameters}], dialect="hermes")
        return parser.parse(write_tool_call("f", {"a": given}, dialect="hermes")).ok

    assert [fits({"nullable": nullable}, given) for given in (None, "a", [])] == [True, True, False]
    for off in (False, "false", None):
        assert [fits({"nullable": off}, given) for given in (None, "a", [])] == [False, True, False]


@pytest.mark.parametrize("nullable", [1, 0, "yes", "", [], {}])
def test_a_nullable_that_says_neither_is_refused(nullable: Any) -> None:
    parameters = {"properties": {"a": {"type": "string", "nullable": nullable}}}
    with pytest.raises(SchemaError, match="/properties/a/nullable: nullable is true or false"):
        ToolCallParser([{"name": "f", "parameters": parameters}])


def test_a_type_of_no_such_name_is_told_once_and_asserts_nothing() -> None:
    tools = [{"name": "f", "parameters": {"properties": {"d": {"type": "mystery"}, "n": {"type": "float"}}}}]
    with pytest.warns(
        UserWarning, match="tool 'f': /properties/d/type: 'mystery' is no type of JSON Schema"
    ) as told:
        parser = ToolCallParser(tools)
    assert len(told) == 1
    assert parser.unknown_types == {("f", "/properties/d/type"): "mystery"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parser.parse(write_tool_call("f", {"d": 42, "n": 1.5})).calls[0].arguments == {
            "d": "42",
            "n": 1.5,
        }
        ToolCallParser([{"name": "f", "parameters": {"properties": {"d": {"type": "List[int]"}}}}])


@pytest.mark.parametrize(
    "written", [{"type": "mystery"}, {"items": {"type": "mystery[]"}}, {"$ref": "#/$defs/d"}]
)
def test_a_type_of_no_such_name_is_refused_by_name_where_that_is_asked_for(written: Any) -> None:
    tool = {
        "name": "f",
        "parameters": {"properties": {"d": written}, "$defs": {"d": {"type": "int | mystery"}}},
    }
    with pytest.raises(
        SchemaError, match=r"tool 'f': /.*/type: '.*mystery.*' is no type of JSON Schema; use one of"
    ):
        ToolCallParser([tool], on_unknown_type="refuse")
    known = {"name": "f", "parameters": {"properties": {"d": {"type": "uint8?"}}}}
    parser = ToolCallParser([known], on_unknown_type="refuse")
    assert parser.parse(write_tool_call("f", {"d": 7})).calls[0].arguments == {"d": 7}


INT = {"type": "integer"}
BY_PATTERN = {"patternProperties": {"^n": INT}}


@pytest.mark.parametrize(
    "parameters",
    [
        BY_PATTERN,
        {"allOf": [BY_PATTERN]},
        {"$ref": "#/$defs/a", "$defs": {"a": BY_PATTERN}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": BY_PATTERN}},
        {"additionalProperties": INT},
        {"allOf": [{"additionalProperties": INT}]},
        {"unevaluatedProperties": INT},
        {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"unevaluatedProperties": INT}}},
        {"patternProperties": {"^n": {"minimum": 3}, "1$": INT}},
        {"patternProperties": {"^n": {"minimum": 3}}, "allOf": [{"patternProperties": {"1$": INT}}]},
        {"additionalProperties": {"minimum": 3}, "allOf": [{"additionalProperties": INT}]},
        {"properties": {"n1": {"minimum": 3}}, **BY_PATTERN},
        {"properties": {"n1": {"minimum": 3}}, "allOf": [BY_PATTERN]},
    ],
)
@pytest.mark.parametrize("before", ["", "note: "])
def test_a_parameter_has_the_type_that_any_part_for_every_call_gives_it(parameters: Any, before: str) -> None:
    parser = ToolCallParser([{"name": "f", "parameters": {"type": "object", **parameters}}])
    assert parser.parse(before + write_tool_call("f", {"n1": 5})).calls[0].arguments == {"n1": 5}
    found = parser.parse(before + write_tool_call("f", {"n1": "five"}))
    assert not found.calls and found.problems[0].json_pointer == "/n1"
