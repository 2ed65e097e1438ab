"""The one JSON Schema engine: what is prepared, what is refused, and whose verdicts it gives."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfkdata.common.json_schema import TYPE_ALIASES, SchemaDocument, SchemaError, schema_validator

INT, NUM, BOOL, STR = ({"type": name} for name in ("integer", "number", "boolean", "string"))
DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def issues(schema: Any, value: Any) -> list[tuple[str, str]]:
    return [(issue.pointer, issue.code) for issue in schema_validator(schema).issues(value)]


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (5, "an object or a boolean"),
        ({1: INT}, "cannot be read"),
        ({"$ref": "#"}, "refers to itself"),
        ({"$ref": "#/$defs/x"}, "points to nothing"),
        ({"$ref": "#x"}, "no anchor"),
        ({"$ref": "http://example.org/s"}, "inside the same schema"),
        ({"$ref": "file:///etc/passwd"}, "inside the same schema"),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "inside the same schema"),
        ({"$ref": "#/prefixItems/9", "prefixItems": [True]}, "points to nothing"),
        ({"$ref": "#/foo", "foo": {"type": "integer", "minLength": "x"}}, "minLength"),
        ({"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"pattern": "("}}}, "pattern"),
        ({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}, "refers to itself"),
        ({"not": {"$ref": "#"}}, "refers to itself"),
        ({"items": {"$defs": {"b": {"anyOf": [{"$ref": "#/items/$defs/b"}]}}}}, "refers to itself"),
        ({"pattern": "("}, "pattern"),
        ({"items": 5}, "an object or a boolean"),
        ({"properties": 5}, "properties"),
        ({"anyOf": []}, "anyOf"),
        ({"type": []}, "type"),
        ({"type": [1]}, "type"),
        ({"multipleOf": 0}, "multipleOf"),
        ({"minLength": "x"}, "minLength"),
        ({"exclusiveMinimum": True}, "exclusiveMinimum"),
        ({"$defs": {"a": {"$id": "s", "type": "integer"}, "b": {"$id": "s"}}, "$ref": "s"}, "are named 's'"),
        ({"$defs": {"a": {"$anchor": "s"}, "b": {"$anchor": "s", "type": "null"}}}, "have the anchor 's'"),
        ({"items": [INT], "prefixItems": [INT]}, "items"),
        ({"$schema": "http://example.org/mine"}, "is not known"),
        ({"$schema": 7}, "is not known"),
        ({"$ref": "http://[x"}, "not a URI"),
        ({"items": {"$id": "http://[x"}}, "not a URI"),
        (nested(5000), "nested deeper"),
        (nested(130), "nested deeper"),
        ({"$defs": {f"{n}": {"$ref": f"#/$defs/{n + 1}"} for n in range(1100)} | {"1100": INT},
          "$ref": "#/$defs/0"}, "follow each other"),
    ],
)  # fmt: skip
def test_a_schema_that_cannot_be_used_is_refused_when_it_is_compiled(schema: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        SchemaDocument(schema)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("multipleOf", 0), ("multipleOf", -1), ("multipleOf", "2"), ("uniqueItems", "yes"), ("minContains", -1),
        ("required", ["a", "a"]), ("$id", 5), ("$anchor", "1 2"), ("title", 5), ("minLength", -1), ("enum", 5),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "around",
    [
        lambda part: {"properties": {"n": part}},
        lambda part: {"$defs": {"a": part}},
        lambda part: {"properties": {"n": {"$ref": "#/parts/a"}}, "parts": {"a": part}},
        lambda part: {"$ref": "#/parts/a", "parts": {"a": {"items": [{"not": part}]}}},
    ],
)
def test_what_is_no_schema_is_refused_wherever_it_stands(around: Any, keyword: str, value: Any) -> None:
    with pytest.raises(SchemaError, match=f"{re.escape(keyword)}"):
        SchemaDocument(around({keyword: value}))


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"items": [INT, STR], "additionalItems": False}, ([1, "a"], [1], "no array"), ([1, "a", 2], ["a"])),
        ({"$schema": DRAFT_7, "items": [INT], "additionalItems": STR}, ([1, "a"],), ([1, 2],)),
        ({"minimum": 5, "exclusiveMinimum": True}, (6,), (5,)),
        ({"maximum": 5, "exclusiveMaximum": False}, (5,), (6,)),
        ({"type": "string", "nullable": True}, ("a", None), (1,)),
        ({"type": ["dict", "None"]}, ({}, None), (1,)),
        ({"type": "any", "minimum": 3}, ("a", 3), (2,)),
        ({"dependencies": {"bar": ["foo"]}}, ({"bar": 1, "foo": 2}, {}), ({"bar": 2},)),
        ({"$schema": DRAFT_7, "properties": {"a": {"$ref": "#/definitions/N", "minimum": 9}},
          "definitions": {"N": INT}}, ({"a": 1},), ({"a": "x"},)),
        ({"$schema": DRAFT_7, "definitions": {"a": {"$id": "#n", "type": "integer"}},
          "items": {"$ref": "#n"}}, ([1],), (["x"],)),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "id": "http://x/y", "minimum": 5,
          "exclusiveMinimum": True}, (6,), (5,)),
        ({"$id": "http://x/root", "items": {"$ref": "item"},
          "$defs": {"i": {"$id": "item", "type": "integer"}}}, ([1],), (["x"],)),
        ({"$id": "urn:example:root", "items": {"$ref": "#n"},
          "$defs": {"i": {"$anchor": "n", "type": "integer"}}}, ([1],), (["x"],)),
        ({"prefixItems": [INT], "items": {"$ref": "#/prefixItems/0"}}, ([1, 2],), ([1, "a"],)),
        ({"$ref": "#/a~1b%25", "a/b%": INT}, (1,), ("a",)),
        ({"format": "date", "type": "string"}, ("no date",), (1,)),
        ({"$schema": DRAFT_7, "format": "date", "type": "string"}, ("no date",), (1,)),
        ({"type": "integer"}, (1, 1.0, 10**400), (1.5, True, float("inf"))),
        ({"multipleOf": 0.01}, (1.13, 1e27), (0.001,)),
        ({"pattern": "^[a-z]+$"}, ("abc",), ("abc\n",)),
        ({"pattern": r"^\d+$"}, ("1",), ("\u0663",)),
        ({"enum": ["\ud800"]}, ("\ud800",), ("\ud801",)),
        ({"maxLength": 1}, ("\udfff", "\U0001f600"), ("\ud800\ud800",)),
        ({"items": {"maxLength": 1}}, (["\ud800"],), (["\ud800a"],)),
        ({"additionalProperties": INT}, ({"\ud800": 1},), ({"\ud800": "a"},)),
        ({"items": {"$schema": "http://127.0.0.1:9/not-fetched", "type": "integer"}}, ([1],), (["x"],)),
        (False, (), (1,)),
        (True, (1,), ()),
    ],
)  # fmt: skip
def test_other_spellings_and_drafts_are_read_as_documented(schema: Any, good: Any, bad: Any) -> None:
    validator = schema_validator(schema)
    assert [value for value in good if not validator.is_valid(value) or validator.issues(value)] == []
    assert [value for value in bad if validator.is_valid(value) or not validator.issues(value)] == []


def test_the_names_of_types_in_other_languages_are_read_and_unknown_ones_are_told() -> None:
    for name, meant in TYPE_ALIASES.items():
        assert SchemaDocument({"items": {"type": name}}).root == {"items": {"type": meant}}
    document = SchemaDocument({"properties": {"a": {"type": "mystery"}, "b": {"type": ["any", "string"]}}})
    assert document.root["properties"] == {"a": {}, "b": {}}
    assert document.unknown_types == {"/properties/a/type": "mystery"}


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("STRING", {"type": "string"}),
        ("Boolean", {"type": "boolean"}),
        ("HashMap", {"type": "object"}),
        ("List[int]", {"type": "array", "items": {"type": "integer"}}),
        ("typing.List[float]", {"type": "array", "items": {"type": "number"}}),
        ("Array<string>", {"type": "array", "items": {"type": "string"}}),
        ("list[list[int]]", {"type": "array", "items": {"type": "array"}}),
        ("List[mystery]", {"type": "array"}),
        ("List[any]", {"type": "array"}),
        ("List[]", {"type": "array"}),
        ("any[]", {"type": "array"}),
        ("float[3]", {"type": "array", "items": {"type": "number"}}),
        ("int[][]", {"type": "array", "items": {"type": "array"}}),
        ("List<String>[]", {"type": "array", "items": {"type": "array"}}),
        ("Optional[str][]", {"type": "array"}),
        ("int[], optional", {"type": "array", "items": {"type": "integer"}}),
        ("string[] | null", {"type": ["array", "null"]}),
        (["string[]", "null"], {"type": ["array", "null"], "items": {"type": "string"}}),
        ("decimal(10, 2)", {"type": "number"}),
        ("Tuple[int, str]", {"type": "array"}),
        ("Dict[str, int]", {"type": "object"}),
        ("Optional[str]", {"type": ["string", "null"]}),
        ("Union[int, str]", {"type": ["integer", "string"]}),
        ("int | None", {"type": ["integer", "null"]}),
        ("Union[int, any]", {}),
        ("str, optional", {"type": "string"}),
        ("Any", {}),
        (["int", "None"], {"type": ["integer", "null"]}),
        (["int", "any"], {}),
        ("int?", {"type": ["integer", "null"]}),
        ("string or null", {"type": ["string", "null"]}),
        ("int or float", {"type": ["integer", "number"]}),
        ("[]uint8", {"type": "array", "items": {"type": "integer"}}),
        ("np.ndarray", {"type": "array"}),
        ("datetime.date", {"type": "string"}),
        ("varchar(255)", {"type": "string"}),
        ("any?", {}),
        ("", None),
        ("?", None),
        (".", None),
        ("a.mystery", None),
        ("mystery?", None),
        ("enum", None),
        ("mystery", None),
        ("mystery[int]", None),
        ("mystery[]", None),
        ("optional[]", None),
        ("int<>", None),
        ("[]", None),
        ("int | mystery", None),
        ("List[" * 60 + "int" + "]" * 60, None),
        ("x" * 300 + "|int", None),
    ],
)
def test_type_names_of_other_languages_are_read_or_told(name: Any, schema: Any) -> None:
    document = SchemaDocument({"properties": {"a": {"type": name}}})
    assert document.root["properties"]["a"] == (schema or {})
    assert document.unknown_types == ({"/properties/a/type": name} if schema is None else {})


TUPLE = {"items": [{"type": "integer"}, False], "additionalItems": {"type": "string"}}
KEYED = {"patternProperties": {r"^\w.$": {"type": "integer"}}}
NULLABLE = {"nullable": True, "anyOf": [{"const": 2}, {"const": 1}]}


@pytest.mark.parametrize(
    ("part", "reference", "good", "bad"),
    [
        (TUPLE, "/items/0", 1, "a"),
        (TUPLE, "/items/1", ..., 1),
        (TUPLE, "/additionalItems", "a", 1),
        (KEYED, "/patternProperties/%5E%5Cw.%24", 1, "a"),
        (NULLABLE, "/anyOf/1", 1, 2),
        ({"nullable": True, "not": TUPLE}, "/not/items/0", 1, "a"),
        ({"nullable": True, "$ref": "#/$defs/n"}, "", None, "a"),
    ],
)
@pytest.mark.parametrize("place", ["$defs", "others", "resource"])
def test_a_reference_finds_a_part_that_reading_moved(
    place: str, part: Any, reference: str, good: Any, bad: Any
) -> None:
    named: dict[str, Any] = {
        "$defs": {"n": {"type": "integer"}},
        "properties": {"a": {"$ref": f"#/{place}/x{reference}"}},
    }
    named.setdefault(place, {})["x"] = part
    if place == "resource":
        named["$defs"] |= {"r": {"$id": "http://e/x", **part, "$defs": {"n": {"type": "integer"}}}}
        named["properties"]["a"]["$ref"] = f"http://e/x#{reference}"
    validator = schema_validator(named)
    assert good is ... or validator.is_valid({"a": good})
    assert not validator.is_valid({"a": bad})


def test_a_type_enum_says_no_more_than_the_keyword_enum() -> None:
    document = SchemaDocument({"type": "Enum", "enum": ["a", 1]})
    assert (document.root, document.unknown_types) == ({"enum": ["a", 1]}, {})


@pytest.mark.parametrize("brackets", ["[]", " []", "[ ]", "[4]"])
def test_a_type_with_empty_brackets_is_an_array_of_it(brackets: str) -> None:
    names = {**TYPE_ALIASES, **{name: name for name in ("string", "integer", "number", "boolean", "object")}}
    for name, meant in names.items():
        for spelled in (name, name.upper(), name.title()):
            items = {} if meant == "array" else {"items": {"type": meant}}
            document = SchemaDocument({"items": {"type": spelled + brackets}})
            assert document.root["items"] == {"type": "array", **items}
            assert document.unknown_types == {}


@pytest.mark.parametrize(
    ("pattern", "fits", "others"),
    [
        ("^.$", "ax\u0085\U0001f600", "\n\r\u2028\u2029"),
        (r"^\.$", ".", "a\r"),
        (r"^[.]$", ".", "a\u2028"),
        (r"^[\].]$", "].", "a"),
        (r"^\\.$", (), "a"),
        (r"^a|.b$", "a", "\r"),
    ],
)
def test_the_dot_of_a_pattern_is_that_of_ecma_262(pattern: str, fits: Any, others: str) -> None:
    validators = [
        schema_validator({"pattern": pattern}),
        schema_validator({"propertyNames": {"pattern": pattern}}),
    ]
    table = schema_validator({"patternProperties": {pattern: False}})
    for sign in fits:
        assert validators[0].is_valid(sign)
        assert validators[1].is_valid({sign: 1})
        assert not table.is_valid({sign: 1})
    for sign in others:
        assert not validators[0].is_valid(sign)
        assert not validators[1].is_valid({sign: 1})
        assert table.is_valid({sign: 1})


def test_names_and_literals_that_look_like_keywords_are_not_rewritten() -> None:
    schema = {
        "properties": {"type": {"const": {"type": "float"}}, "items": {"enum": [{"items": [1]}]}},
        "default": {"type": "float", "$ref": "#/nowhere"},
    }
    assert SchemaDocument(schema).root == schema


def test_the_callers_schema_is_not_changed() -> None:
    schema = {"type": "float", "items": [{"nullable": True, "type": "string"}]}
    SchemaDocument(schema)
    assert schema == {"type": "float", "items": [{"nullable": True, "type": "string"}]}


@pytest.mark.parametrize(
    ("schema", "value", "places"),
    [
        ({"properties": {"a/b": {"type": "array", "items": INT}}, "required": ["z"]}, {"a/b": [1, "x"]},
         [("", "required"), ("/a~1b/1", "type")]),
        ({"additionalProperties": False}, {"a": 1, "b": 2},
         [("/a", "additionalProperties"), ("/b", "additionalProperties")]),
        ({"properties": {"x": False}}, {"x": 1}, [("/x", "false")]),
        ({"unevaluatedProperties": False}, {"x": 1}, [("/x", "unevaluatedProperties")]),
        ({"unevaluatedItems": False}, [1], [("", "unevaluatedItems")]),
        ({"propertyNames": {"maxLength": 1}}, {"ab": 1}, [("/ab", "propertyNames")]),
        ({"anyOf": [STR, {"items": INT}]}, [1, "x"], [("/1", "type")]),
        ({"oneOf": [STR, BOOL]}, 1, [("", "type")]),
        ({"oneOf": [INT, NUM]}, 1, [("", "oneOf")]),
        ({"contains": STR, "minContains": 2}, ["a"], [("", "contains")]),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, [("", "required")]),
        ({"not": INT}, 1, [("", "not")]),
        ({"const": 1}, 2, [("", "const")]),
        ({"enum": ["x" * 100]}, "y" * 100, [("", "enum")]),
        ({"uniqueItems": True}, [1, 1.0], [("", "uniqueItems")]),
        ({"multipleOf": 3}, 4, [("", "multipleOf")]),
        ({"minimum": 3, "exclusiveMaximum": 1}, 2, [("", "exclusiveMaximum"), ("", "minimum")]),
        ({"minLength": 3, "pattern": "b"}, "a", [("", "minLength"), ("", "pattern")]),
        ({"maxItems": 0}, [1], [("", "maxItems")]),
        ({"minProperties": 1}, {}, [("", "minProperties")]),
    ],
)  # fmt: skip
def test_an_issue_names_the_keyword_and_points_into_the_value(schema: Any, value: Any, places: Any) -> None:
    assert sorted(issues(schema, value)) == places
    assert all(len(issue.message) < 300 for issue in schema_validator(schema).issues(value))


def test_a_value_that_nests_too_deeply_to_be_compared_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(400):
        deep = [deep]
    assert issues({"uniqueItems": True}, [deep, deep]) == [("", "too_deep")]
    assert issues({"const": 1}, deep) == [("", "too_deep")]


def test_a_part_is_judged_as_it_is_judged_inside_the_whole() -> None:
    schema = {
        "$id": "http://x/tool",
        "properties": {"a b%/~": {"$ref": "#/$defs/N"}, "é": {"$ref": "other"}, "no": False, "any": {}},
        "$defs": {"N": INT, "o": {"$id": "other", "type": "string"}},
    }
    document = SchemaDocument(schema)
    parts = document.root["properties"]
    for name in parts:
        for value in (1, "a"):
            alone = document.validator(parts[name]).is_valid(value)
            assert alone == document.validator(document.root).is_valid({name: value})
    either = document.validator(parts["a b%/~"], parts["é"])
    assert [either.is_valid(value) for value in (1, "a", None)] == [True, True, False]


def test_no_pattern_takes_exponential_time() -> None:
    url = r"^(https?:\/\/)?([\da-z\.-]+)\.([a-z\.]{2,6})([\/\w \.-]*)*\/?$"
    for pattern in (url, "^(a+)+$", "^(?=a)(a|aa)+$"):
        validator = schema_validator({"pattern": pattern})
        assert not validator.is_valid("http://" + "a" * 5000 + "!")


def test_the_engine_is_imported_for_the_first_schema_that_asserts_something() -> None:
    code = (
        "import sys; from dfkdata.common.json_schema import schema_validator; schema_validator({}); "
        "print('jsonschema_rs' in sys.modules); schema_validator({'type': 'string'}); "
        "print('jsonschema_rs' in sys.modules, {'pydantic', 'msgspec', 'yaml'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[:2] == ["False", "True set()"]


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": INT, "b": {"type": "array", "items": STR}}, "required": ["a"]},
    {"type": "object", "properties": {"a": INT}, "additionalProperties": False, "minProperties": 1},
    {
        "type": "object",
        "patternProperties": {"^x": INT},
        "additionalProperties": STR,
        "properties": {"xa": NUM},
    },
    {"type": "object", "additionalProperties": {"type": "integer"}, "propertyNames": {"maxLength": 2}},
    {
        "type": "array",
        "items": {"type": "object", "properties": {"n": STR}, "required": ["n"]},
        "maxItems": 2,
    },
    {"type": "array", "prefixItems": [INT, STR], "items": BOOL, "uniqueItems": True},
    {"type": "array", "contains": INT, "minContains": 1, "maxContains": 2},
    {"type": ["integer", "string", "null"], "minimum": 2, "maxLength": 3},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 9, "multipleOf": 0.5},
    {"type": "integer", "multipleOf": 3, "maximum": 12},
    {"enum": [1, "a", None, [1], {"a": True}]},
    {"const": {"a": [1.0]}},
    {"anyOf": [INT, {"type": "array", "items": INT}]},
    {"oneOf": [INT, {"type": "number", "minimum": 3}]},
    {"allOf": [{"minimum": 1}, {"maximum": 5}]},
    {"not": STR},
    {"if": INT, "then": {"minimum": 3}, "else": STR},
    {"if": STR},
    {"type": "string", "pattern": "^a+$", "minLength": 2},
    {"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"c": {"required": ["a"]}}},
    {
        "$ref": "#/$defs/T",
        "$defs": {
            "T": {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/T"}}}}
        },
    },
    {"type": "object", "properties": {"p": False, "q": True}},
    {"type": "string", "enum": ["a", "b"]},
    {"type": "array", "items": False},
    {"type": "object", "properties": {"r": {"$ref": "#/$defs/N"}}, "$defs": {"N": STR}},
]

JSON: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 13)
    | st.sampled_from([0.5, 1.0, 3.0, 2.25])
    | st.text("abxé", max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "b", "c", "n", "xa", "xyz", "kids", "p", "q", "r"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("schema", SCHEMAS, ids=repr)
@settings(derandomize=True, deadline=None, max_examples=50)
@given(data=st.data())
def test_the_verdict_is_that_of_the_reference_validator(schema: Any, data: Any) -> None:
    value = data.draw(JSON)
    validator = schema_validator(schema)
    assert validator.is_valid(value) == jsonschema.Draft202012Validator(schema).is_valid(value)
    assert validator.is_valid(value) == (not validator.issues(value))
