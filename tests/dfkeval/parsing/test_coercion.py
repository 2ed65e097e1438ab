"""Typing of parameter text and the validation behind it."""

from __future__ import annotations

from itertools import permutations

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfkeval.parsing.coercion import Refused, compile_slot, possible_types, read
from dfkeval.parsing.json_text import LiteralError, load_json, load_python, number_of, scan_any_depth
from dfkeval.parsing.jsonschema.compiler import Document, SchemaError
from dfkeval.parsing.jsonschema.fast_path import compile_fits
from dfkeval.testing.strategies import instances


def value(schema, text, **options):
    return read(compile_slot(Document(schema), schema), text, **options)[0]


def repairs(schema, text):
    return read(compile_slot(Document(schema), schema), text, lenient=True)[1]


def refused(schema, text, **options) -> str:
    with pytest.raises(Refused) as caught:
        value(schema, text, **options)
    return caught.value.issues[0].code


INT, NUM, BOOL, STR = ({"type": name} for name in ("integer", "number", "boolean", "string"))
MAYBE = {"anyOf": [STR, {"type": "null"}]}


@pytest.mark.parametrize(
    ("schema", "text", "wanted"),
    [
        (INT, "42", 42),
        (INT, " 7", 7),
        (INT, "007", 7),
        (INT, "3.0", 3),
        (INT, "-0", 0),
        (INT, str(2**70), 2**70),
        (NUM, "5.0", 5.0),
        (NUM, "1.25e3", 1250.0),
        (NUM, "9007199254740993", 9007199254740993),
        (NUM, "007", 7),
        (BOOL, "true", True),
        (BOOL, "False", False),
        (BOOL, "TRUE", True),
        (BOOL, "0", False),
        (STR, " 7 ", " 7 "),
        (STR, "null", "null"),
        (STR, '"q"', '"q"'),
        (MAYBE, "null", None),
        (MAYBE, "None", None),
        (MAYBE, "NULL", "NULL"),
        (MAYBE, " None", " None"),
        ({"type": ["integer", "null"]}, " null ", None),
        ({"type": ["integer", "string"]}, "42", 42),
        ({"type": ["string", "integer"]}, "42", "42"),
        ({"type": ["integer", "string"]}, " 42", " 42"),
        ({"type": ["integer", "string"]}, "01234", "01234"),
        ({"type": ["number", "string"]}, "-007", "-007"),
        ({"type": ["number", "string"]}, "0.50", 0.5),
        ({"type": ["null", "integer"]}, "01234", 1234),
        ({"type": ["string", "boolean"]}, "false", False),
        ({"type": ["boolean", "integer"]}, "1", 1),
        ({"type": "mystery"}, "42", "42"),
        ({}, "x", "x"),
        (True, "x", "x"),
        ({"enum": [None, "auto"]}, "None", None),
        ({"enum": ["None", "auto"]}, "None", "None"),
        ({"const": 7}, "7", 7),
        ({"enum": ["a", 1]}, "1", 1),
        ({"type": ["object", "array"]}, "[1]", [1]),
        ({"items": INT}, "[1,2]", [1, 2]),
        ({"properties": {"x": INT}}, '{"x": 1}', {"x": 1}),
        ({"type": "integer", "nullable": True}, "null", None),
        ({"anyOf": [{"type": "object"}, STR]}, "{not json", "{not json"),
        ({"type": ["string", "object"]}, "{}", {}),
        ({"allOf": [NUM, INT]}, "7", 7),
        ({"oneOf": [INT, BOOL]}, "true", True),
        ({"anyOf": [{"type": "string", "maxLength": 2}, INT]}, "12345", 12345),
        ({"anyOf": [{}, INT]}, "5", "5"),
        ({"$ref": "#/$defs/N", "$defs": {"N": INT}}, "5", 5),
        ({"type": "array"}, ' ["a"] ', ["a"]),
    ],
)
def test_a_text_becomes_the_value_its_schema_describes(schema, text, wanted):
    got = value(schema, text)
    assert got == wanted
    assert type(got) is type(wanted)


@pytest.mark.parametrize(
    ("schema", "text", "code"),
    [
        (INT, "3.5", "type"),
        (INT, "+5", "type"),
        (INT, "1_000", "type"),
        (INT, "٣", "type"),
        (INT, "True", "type"),
        (INT, "1e2", "type"),
        (INT, "", "type"),
        (INT, "null", "type"),
        (INT, "9" * 5000, "too_many_digits"),
        (NUM, "inf", "type"),
        (NUM, "1e999", "not_finite"),
        (NUM, "3.14.159", "type"),
        (NUM, ".5", "type"),
        (BOOL, "yes", "type"),
        (BOOL, '"true"', "type"),
        ({"enum": ["a", "b"]}, "c", "enum"),
        ({"const": "v"}, "w", "const"),
        ({"type": "array"}, "[1, 2", "bad_json"),
        ({"type": "object"}, "[1]", "type"),
        ({"type": "array"}, "prose", "bad_json"),
        ({"type": "array"}, "[NaN]", "not_finite"),
        ({"type": "array"}, "[1e999]", "not_finite"),
        ({"type": "object"}, '{"a": 1, "a": 2}', "duplicate_key"),
        ({"type": "array"}, "[" * 5000 + "]" * 5000, "too_deep"),
        ({"type": "array"}, "[" * 101 + "]" * 101, "too_deep"),
        ({"type": "array"}, "[" + "9" * 5000 + "]", "too_many_digits"),
        ({"type": "array"}, "[1] two", "extra_text"),
        ({"type": "array"}, "[1,]", "bad_json"),
        ({"type": "array"}, "5", "type"),
        ({"type": "integer", "minimum": 3}, "2", "minimum"),
        ({"type": "array", "items": INT}, '["1"]', "type"),
    ],
)
def test_a_text_that_does_not_fit_is_refused_with_a_reason(schema, text, code):
    assert refused(schema, text) == code


@pytest.mark.parametrize(
    ("schema", "text", "wanted", "names"),
    [
        (INT, "1e2", 100, ["integer_from_exponent"]),
        (INT, "1e23", 10**23, ["integer_from_exponent"]),
        ({"type": "array"}, "[True, None, 'a']", [True, None, "a"], ["python_literal"]),
        ({"type": "object"}, "\"{'k': 1}\"", {"k": 1}, ["double_encoded", "python_literal"]),
        ({"type": "object"}, '"{\\"k\\": 1}"', {"k": 1}, ["double_encoded"]),
        ({"enum": ["a", "b"]}, " a\n", "a", ["outer_blanks"]),
    ],
)
def test_lenient_mends_and_names_what_it_mends_and_strict_refuses(schema, text, wanted, names):
    assert value(schema, text, lenient=True) == wanted
    assert repairs(schema, text) == names
    refused(schema, text)


@pytest.mark.parametrize("text", ["1.5e0", "1e400", "nope"])
def test_lenient_does_not_make_an_integer_of_anything_else(text):
    refused(INT, text, lenient=True)


@pytest.mark.parametrize("kinds", [*permutations(("string", "array", "object", "integer", "number"), 3)])
def test_lenient_reads_what_strict_reads_wherever_strict_reads_anything(kinds):
    schema = {"type": list(kinds)}
    slot = compile_slot(Document(schema), schema)
    for text in ("1e2", "1", '"[1]"', "['a']", "{'a': 1}", '"{}"', "[1]", "x", " 7 "):
        try:
            strict = read(slot, text)
        except Refused:
            continue
        assert read(slot, text, lenient=True) == strict


def test_the_dialect_decides_how_null_is_spelled_beside_a_string():
    assert value(MAYBE, "None", dialect="qwen3.5") is None
    assert value(MAYBE, "null", dialect="qwen3.5") == "null"
    assert value(MAYBE, "null", dialect="qwen3.6") is None
    assert value(MAYBE, "None", dialect="qwen3.6") == "None"


def test_the_first_coder_dialect_writes_containers_as_python_does():
    assert value({"type": "array"}, "[True, {'a': None}]", dialect="qwen3-coder-2507") == [True, {"a": None}]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[]", []),
        ("{}", {}),
        (" {'a': [1, -2.5, 'x']} ", {"a": [1, -2.5, "x"]}),
        (r"""['\n\t\\\'\x41\u00e9\U0001F600', "it's"]""", ["\n\t\\'Aé😀", "it's"]),
    ],
)
def test_python_literals_are_read_as_python_writes_them(text, wanted):
    assert load_python(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "b'x'",
        "1+2j",
        "(1, 2)",
        "{1, 2}",
        "[b'x']",
        "{1: 2}",
        "{'a' 1}",
        "{'a': 1, 'a': 2}",
        "['\x00']",
        "['a",
        r"['\q']",
        "[1 2]",
        "[,]",
        "['a', ]",
        "[" * 200,
        "{'a': " * 200,
        "[1] x",
        r"['\U00110000']",
        "[nan]",
        "[1e999]",
        "[abc]",
        "['a\\",
        "",
    ],
)
def test_anything_else_is_no_python_literal(text):
    with pytest.raises(LiteralError):
        load_python(text)


def test_json_text_is_read_strictly():
    assert load_json(' {"a": [1, 2.5, "é"]} ') == {"a": [1, 2.5, "é"]}
    assert scan_any_depth("[[1]] x", 0) == ([[1]], 5)
    assert number_of("-12") == -12
    for text in ("", "[1] x", '["\n"]', "nul"):
        with pytest.raises(LiteralError):
            load_json(text)


def test_deep_but_allowed_values_pass():
    deep = "[" * 100 + "]" * 100
    assert value({"type": "array"}, deep) == load_json(deep)
    wide = '[{"a": [1, 2]}, {"b": {"c": []}}]' + " " * 200
    assert value({"type": "array"}, wide) == load_json(wide)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/x"},
        {"$ref": "http://example.org/s"},
        {"$ref": "#/items/9", "items": [1]},
        {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
        {"unevaluatedProperties": False},
        {"pattern": "("},
        {"items": 5},
        {"not": {"$ref": "#"}},
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_when_it_is_compiled(schema):
    with pytest.raises(SchemaError):
        Document(schema).check(schema)(1)


SCHEMAS = [
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
    {"anyOf": []},
    {"type": "array", "items": False},
    {"type": "object", "properties": {"r": {"$ref": "#/$defs/N"}}, "$defs": {"N": STR}},
]

JSON = st.recursive(
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
@settings(derandomize=True, deadline=None, max_examples=120)
@given(data=st.data())
def test_our_verdict_is_that_of_the_reference_validator(schema, data):
    if "anyOf" in schema and not schema["anyOf"]:
        assert Document(schema).check(schema)(1) is not None  # draft 2020-12 leaves an empty anyOf undefined
        return
    item = data.draw(JSON)
    issues = Document(schema).check(schema)(item)
    assert (issues is None) == jsonschema.Draft202012Validator(schema).is_valid(item), issues
    quick = compile_fits(Document(schema), schema)
    if callable(quick) and not isinstance(quick, type):
        assert not quick(item) or issues is None


def test_an_issue_points_into_the_value():
    schema = {"properties": {"a/b": {"type": "array", "items": INT}}, "required": ["z"]}
    issues = Document(schema).check(schema)({"a/b": [1, "x"]})
    assert {(issue.pointer, issue.code) for issue in issues} == {("", "required"), ("/a~1b/1", "type")}


def test_older_spelling_of_tuples_is_understood():
    schema = {"items": [INT, STR], "additionalItems": False}
    check = Document(schema).check(schema)
    assert check([1, "a"]) is None
    assert check([1, "a", 2])
    assert check("no array") is None


def test_the_possible_types_come_in_declared_order():
    def types(schema):
        return possible_types(Document(schema), schema)

    assert types({"type": ["string", "null"], "enum": ["a", None]}) == ("string", "null")
    assert types({"anyOf": [INT, STR]}) == ("integer", "string")
    assert types({"additionalProperties": False}) == ("object",)
    assert types({"prefixItems": []}) == ("array",)
    assert types({"minimum": 1}) is None
    assert types({"enum": [1.5, {}]}) == ("number", "object")


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    instances({"type": "object", "properties": {"a": INT, "b": MAYBE, "c": {"enum": [1]}, "d": {"const": 2}}})
)
def test_instances_of_a_schema_fit_it(item):
    assert set(item) <= {"a", "b", "c", "d"}
    assert item.get("c", 1) == 1


def test_small_corners_of_schemas_are_understood():
    tuple_schema = {"prefixItems": [INT], "items": {"$ref": "#/prefixItems/0"}}
    assert Document(tuple_schema).check(tuple_schema)([1, 2]) is None
    assert Document({"allOf": [True]}).check({"allOf": [True]})(1) is None
    assert compile_fits(Document({}), {"type": "object", "additionalProperties": STR}) is None
    assert load_json('"' + "x" * 200 + '"') == "x" * 200


#: Long lists are checked column by column.
ROWS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "n": STR,
            "many": {"type": "array", "items": {"type": "array", "items": INT}, "maxItems": 2},
            "open": {"type": "object", "properties": {"k": {"type": "string", "minLength": 2}}},
            "odd": {"not": STR},
        },
        "required": ["n"],
    },
}
ROW = {"n": "x", "many": [[1], []], "open": {"k": "ab"}}


@pytest.mark.parametrize(
    ("row", "quick"),
    [
        (ROW, True),
        ({**ROW, "many": []}, True),
        ({**ROW, "extra": 1}, True),
        ({"n": "x", "many": []}, True),
        ({"n": "x", "many": [], "other": None}, True),
        ({**ROW, "n": 1}, False),
        ({**ROW, "many": [[1], [2], [3]]}, False),
        ({**ROW, "many": [[1], ["x"]]}, False),
        ({**ROW, "many": [1]}, False),
        ({**ROW, "many": {}}, False),
        ({**ROW, "open": {"k": "a"}}, False),
        ({**ROW, "odd": 1}, False),
        ({"many": []}, False),
        ("no object", False),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_a_long_list_gets_the_verdict_that_its_entries_get(row, quick, alone):
    doc = Document(ROWS)
    rows = [row] * 100 if alone else [*[ROW] * 99, row]
    fits = compile_fits(doc, ROWS)
    assert fits(rows) is quick
    assert fits(rows) is all(fits([entry]) for entry in rows)
    assert not quick or doc.check(ROWS)(rows) is None


def test_a_long_list_of_empty_lists_fits():
    nested = {"type": "array", "items": {"type": "array", "items": {"type": "array", "items": ROWS["items"]}}}
    assert compile_fits(Document(nested), nested)([[]] * 100) is True
    assert compile_fits(Document(nested), nested)([[[ROW]]] * 100) is True
    assert compile_fits(Document(nested), nested)([[[{}]]] * 100) is False
