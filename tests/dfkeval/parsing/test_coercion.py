"""Typing of parameter text and the validation behind it."""

from __future__ import annotations

import json
from itertools import permutations

import pytest
from hypothesis import given, settings

from dfkdata.common.json_schema import SchemaDocument
from dfkeval.parsing.coercion import Refused, compile_slot, read
from dfkeval.parsing.json_text import LiteralError, load_json, load_python, number_of, scan_json
from dfkeval.parsing.possible_types import PossibleValues
from dfkeval.testing.strategies import instances


def slot(schema):
    document = SchemaDocument(schema)
    return compile_slot(document, PossibleValues(document), document.root)


def value(schema, text, **options):
    return read(slot(schema), text, **options)[0]


def repairs(schema, text):
    return read(slot(schema), text, lenient=True)[1]


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
        ({"type": "any"}, "42", "42"),
        ({"type": "float"}, "9.81", 9.81),
        ({"type": "long"}, "7", 7),
        ({"type": ["HashMap", "null"]}, "null", None),
        ({"type": "tuple", "items": [INT, STR]}, '[1, "a"]', [1, "a"]),
        ({"$dynamicRef": "#n", "$defs": {"N": {"$dynamicAnchor": "n", "type": "integer"}}}, "5", 5),
        ({"$id": "http://x/r", "$ref": "n", "$defs": {"N": {"$id": "n", "type": "integer"}}}, "5", 5),
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
        ({"type": "array"}, '["a\nb\tc"]', ["a\nb\tc"], ["raw_line_break"]),
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
    made = slot(schema)
    for text in ("1e2", "1", '"[1]"', "['a']", "{'a': 1}", '"{}"', "[1]", "x", " 7 "):
        try:
            strict = read(made, text)
        except Refused:
            continue
        assert read(made, text, lenient=True) == strict


def test_the_dialect_decides_how_null_is_spelled_beside_a_string():
    assert value(MAYBE, "None", dialect="qwen3.5") is None
    assert value(MAYBE, "null", dialect="qwen3.5") == "null"
    for dialect in ("qwen3.6", "qwen3.8"):
        assert value(MAYBE, "null", dialect=dialect) is None
        assert value(MAYBE, "None", dialect=dialect) == "None"


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
    assert scan_json("[[1]] x", 0) == ([[1]], 5)
    assert load_json('"' + "x" * 200 + '"') == "x" * 200
    assert load_json('"' + "[" * 200 + '"') == "[" * 200
    assert number_of("-12") == -12
    for text in ("", "[1] x", '["\n"]', "nul"):
        with pytest.raises(LiteralError):
            load_json(text)


@pytest.mark.parametrize("pad", ["", " " * 5000])
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('[{"a": 1, "b": "x:y"}]', None),
        ('["a", [1]]', None),
        ('[{"a": 1}, {"a": {"b": []}}]', None),
        ('{"b": 0, "a": 1, "a": 2}', "duplicate_key"),
        ('[{"b": {"a": 1, "a": "::"}}]', "duplicate_key"),
        ('{"a": [1,}', "bad_json"),
        ('{"a": "x', "open_string"),
        ("[" * 101 + "]" * 101, "too_deep"),
        ('{"a":' * 101 + "1" + "}" * 101, "too_deep"),
        ("[" + "9" * 4301 + "]", "too_many_digits"),
        ("[1e999]", "not_finite"),
    ],
)
def test_long_texts_are_read_as_short_ones(text, code, pad):
    if code is None:
        assert load_json(text + pad) == json.loads(text)
        return
    with pytest.raises(LiteralError) as caught:
        scan_json(text if code == "open_string" else text + pad, 0)
    assert caught.value.code == code


def test_deep_but_allowed_values_pass():
    deep = "[" * 100 + "]" * 100
    assert value({"type": "array"}, deep) == load_json(deep)
    wide = '[{"a": [1, 2]}, {"b": {"c": []}}]' + " " * 200
    assert value({"type": "array"}, wide) == load_json(wide)


def test_the_possible_types_come_in_declared_order():
    def types(schema):
        document = SchemaDocument(schema)
        return PossibleValues(document).types(document.root)

    assert types({"type": ["string", "null"], "enum": ["a", None]}) == ("string", "null")
    assert types({"anyOf": [INT, STR]}) == ("integer", "string")
    assert types({"additionalProperties": False}) == ("object",)
    assert types({"prefixItems": [INT]}) == ("array",)
    assert types({"minimum": 1}) is None
    assert types({"enum": [1.5, {}]}) == ("number", "object")


def test_parts_that_share_parts_are_looked_at_once():
    schema = {
        "$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)},
        "$ref": "#/$defs/d0",
    }
    schema["$defs"]["d40"] = INT
    document = SchemaDocument(schema)
    assert PossibleValues(document).types(document.root) == ("integer",)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    instances({"type": "object", "properties": {"a": INT, "b": MAYBE, "c": {"enum": [1]}, "d": {"const": 2}}})
)
def test_instances_of_a_schema_fit_it(item):
    assert set(item) <= {"a", "b", "c", "d"}
    assert item.get("c", 1) == 1
