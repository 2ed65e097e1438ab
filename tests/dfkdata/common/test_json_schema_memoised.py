"""Schemas that combine their parts in very many ways are read in linear time, with the engine's own verdicts."""

from __future__ import annotations

import random
from typing import Any

import jsonschema_rs
import pytest

from dfkdata.common.json_schema import SchemaDocument, SchemaError, schema_validator
from dfkdata.common.json_schema._memoised import Memoised
from dfkeval.parsing.possible_types import PossibleValues
from dfkeval.parsing.toolcall import ToolCallParser, write_tool_call
from tests.helpers.random_schemas import shared, value

NUM, STR = {"type": "number"}, {"type": "string"}


def ladder(keyword: str, count: int, *, of_objects: bool = False) -> dict[str, Any]:
    """A schema of `count` layers of two parts, each of which combines both parts of the next layer."""
    definitions: dict[str, Any] = {}
    for at in range(count):
        below = [{"$ref": f"#/$defs/l{at + 1}"}, {"$ref": f"#/$defs/r{at + 1}"}]
        sides = {"l": {f"l{at}": NUM}, "r": {f"r{at}": NUM, "x": {"type": "string", "maxLength": 9 + at % 3}}}
        for side, properties in sides.items():
            more = {"properties": properties} if of_objects else {"maxLength": 9 + at % 2}
            definitions[f"{side}{at}"] = {**more, keyword: below}
    ends = [{"required": ["x"]}, {"required": ["x", "y"]}] if of_objects else [STR, {"minLength": 2, **STR}]
    definitions |= {f"l{count}": ends[0], f"r{count}": ends[1]}
    root = {keyword: [{"$ref": "#/$defs/l0"}, {"$ref": "#/$defs/r0"}], "$defs": definitions}
    return {"type": "object", **root} if of_objects else root


@pytest.mark.parametrize("of_objects", [False, True])
@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
def test_the_work_grows_with_the_parts_and_not_with_the_ways_to_them(
    keyword: str, of_objects: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: dict[str, int] = {}

    def counted(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def count(*args: Any) -> Any:
            counts[name] = counts.get(name, 0) + 1
            return function(*args)

        monkeypatch.setattr(owner, name, count)

    counted(Memoised, "own_issues")
    counted(PossibleValues, "_types_of")
    counted(PossibleValues, "_is_closed")
    for depth in (50, 100, 200):
        counts.clear()
        made = ladder(keyword, depth, of_objects=of_objects)
        schema = (
            made
            if of_objects
            else {"properties": {"x": {"$ref": "#/$defs/root"}}, "$defs": made.pop("$defs")}
        )
        if not of_objects:
            schema["$defs"]["root"] = made
        parser = ToolCallParser([{"name": "f", "parameters": schema}])
        parser.parse(write_tool_call("f", {"x": "abc"}))
        assert counts["own_issues"] >= depth
        assert all(count < 80 * depth for count in counts.values()), counts


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
@pytest.mark.parametrize("depth", [1, 2, 5, 9, 100])
def test_the_verdicts_of_a_ladder_are_those_of_the_engine(keyword: str, depth: int) -> None:
    values: dict[bool, Any] = {
        False: ["", "a", "ab", "abcdefghij", "a" * 20, 5, None, {}],
        True: [
            {},
            {"x": ""},
            {"x": "ab", "y": 1},
            {"x": "ab", "l0": "a"},
            {"r0": "a", "x": "b"},
            {"x": "a" * 30},
            5,
        ],
    }
    for of_objects, tried in values.items():
        schema = ladder(keyword, depth, of_objects=of_objects)
        validator = schema_validator(schema)
        if depth < 12:  # 2 ** depth ways
            engine = jsonschema_rs.validator_for(schema)
            assert [validator.is_valid(each) for each in tried] == [engine.is_valid(each) for each in tried]
        assert [validator.is_valid(each) for each in tried] == [not validator.issues(each) for each in tried]
        if keyword != "oneOf":
            good = "ab" if not of_objects else {"x": "ab", "y": 1, "l0": 3}
            assert validator.is_valid(good)
            assert validator.issues("a" * 30 if not of_objects else {"y": 1})


@pytest.mark.parametrize("seed", range(4))
def test_random_schemas_that_share_parts_get_the_verdicts_of_the_engine(seed: int) -> None:
    rng = random.Random(seed)
    fits = 0
    for _ in range(60):
        schema = shared(rng, rng.randint(1, 8))
        document = SchemaDocument(schema)
        engine = jsonschema_rs.validator_for(schema)
        for each in [value(rng) for _ in range(15)]:
            assert (not document.memoised.issues((document.root,), each)) == engine.is_valid(each), (
                schema,
                each,
            )
            fits += engine.is_valid(each)
    assert 150 < fits < 750


def test_references_by_way_are_refused_in_such_schemas_only() -> None:
    for depth, refused in ((3, False), (30, True)):
        schema = ladder("anyOf", depth)
        schema["$defs"]["l0"]["properties"] = {"a": {"$dynamicRef": "#n"}}
        schema["$defs"]["n"] = {"$dynamicAnchor": "n"}
        if refused:
            with pytest.raises(SchemaError, match=r"#/\$defs/l0/properties/a/\$dynamicRef"):
                SchemaDocument(schema)
        else:
            assert schema_validator(schema).is_valid("ab")


def test_a_reference_that_stands_twice_in_a_list_counts_twice() -> None:
    twice = {"oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}], "$defs": {"a": STR}}
    assert not schema_validator(twice).is_valid("a")


def again(word: str, last: Any) -> dict[str, Any]:
    """A schema that refers to itself in each of two parts of a combination, and ends with `last`."""
    step = {"type": "object", "properties": {"a": {"$ref": "#/$defs/D"}}, "required": ["a"]}
    parts = [
        {"if": {"type": "object"}, "then": each, "else": last}
        for each in (step, {**step, "minProperties": 1})
    ]
    return {"properties": {"x": {"$ref": "#/$defs/D"}}, "$defs": {"D": {word: parts}}}


@pytest.mark.parametrize("depth", [10, 24, 60])
@pytest.mark.parametrize("word", ["anyOf", "oneOf", "allOf"])
def test_deep_values_under_repeated_references_are_explained_and_never_read_again_and_again(
    word: str, depth: int
) -> None:
    document = SchemaDocument(again(word, STR))
    value: Any = 5
    for _ in range(depth):
        value = {"a": value}
    part = document.root["properties"]["x"]
    for validator, wrong, place in (
        (document.validator(document.root), {"x": value}, "/x"),
        (document.validator(part), value, ""),
        (document.validator(part, document.root["$defs"]["D"][word][0]), value, ""),
    ):
        assert [issue[:2] for issue in validator.issues(wrong)] == [(place + "/a" * depth, "type")]


@pytest.mark.parametrize(
    "twice",
    [
        {"properties": {"a": {"$ref": "#"}}, "patternProperties": {"^a": {"$ref": "#"}}},
        {"properties": {"a": {"$ref": "#"}}, "dependentSchemas": {"a": {"properties": {"a": {"$ref": "#"}}}}},
        {
            "properties": {"a": {"$ref": "#"}},
            "$ref": "#/$defs/E",
            "$defs": {"E": {"properties": {"a": {"$ref": "#"}}}},
        },
    ],
)
def test_what_is_read_again_without_a_combination_is_explained(twice: Any) -> None:
    value: Any = 5
    for _ in range(60):
        value = {"a": value}
    validator = schema_validator({**twice, "type": "object"})
    assert [issue[:2] for issue in validator.issues(value)] == [("/a" * 60, "type")]
    assert validator.issues({"a": 5})[0][:2] == ("/a", "type")


def test_long_values_that_nest_little_are_explained_in_full() -> None:
    item = {"anyOf": [STR, {"type": "array", "items": {"type": "array", "items": {"anyOf": [STR, NUM]}}}]}
    value = {"x": [[[["a", 1]] for _ in range(2000)], [[[True]]], [[[1] * 5000]]]}
    schema = {"properties": {"x": {"items": {"items": item}}}}
    assert [issue.pointer for issue in schema_validator(schema).issues(value)] == ["/x/1/0/0/0"]


def test_a_reference_into_a_combination_is_explained_too() -> None:
    schema = again("anyOf", STR)
    schema["properties"]["y"] = {"$ref": "#/$defs/D/anyOf/0/else"}
    value: Any = 5
    for _ in range(24):
        value = {"a": value}
    issues = schema_validator(schema).issues({"x": value, "y": 5})
    assert [(issue.pointer, issue.code) for issue in issues] == [("/x" + "/a" * 24, "type"), ("/y", "type")]
