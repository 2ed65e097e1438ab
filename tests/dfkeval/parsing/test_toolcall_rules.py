"""The rules one by one: options, tools, statuses, spans, think blocks, code, Hermes calls, streams."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from dfkdata.common.json_schema import Validator
from dfkeval.parsing.json_call import KEY_REPAIRS
from dfkeval.parsing.toolcall import (
    REPAIRS,
    SchemaError,
    ToolCallError,
    ToolCallParser,
    parse_tool_call,
    parse_tool_calls,
    write_tool_call,
)
from tests.helpers.tool_calls import PING, PING_CALL, STR, TOOLS, arguments, body, codes, lenient, note, tool

# --- options and tools
# -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", [{"mode": "loose"}, {"dialect": "qwen9"}, {"prefill": "yes"}])
def test_an_unknown_option_is_refused_with_the_choices(option):
    with pytest.raises(ValueError, match="use one of"):
        ToolCallParser(TOOLS, **option)


@pytest.mark.parametrize(
    "tools",
    [
        [42],
        [{"type": "function", "function": {}}],
        [PING, PING],
        [tool("f", {"a": {"$ref": "#/nowhere"}})],
        [{"function": {"name": "f", "parameters": []}}, 1],
        [{"name": "f", "parameters": [1]}],
        [{"name": "f", "parameters": {"properties": 5}}],
    ],
)
def test_a_tool_that_cannot_be_used_is_refused_when_the_parser_is_made(tools):
    with pytest.raises(SchemaError):
        ToolCallParser(tools)


def test_a_pydantic_class_is_a_tool():
    class Trip(BaseModel):
        city: str
        days: int = 1

    assert parse_tool_call(write_tool_call("Trip", {"city": "Lyon", "days": 3}), [Trip]) == {
        "city": "Lyon",
        "days": 3,
    }


def test_parameters_may_stand_behind_a_reference():
    root = {"$ref": "#/$defs/T", "$defs": {"T": {"type": "object", "properties": {"n": {"type": "integer"}}}}}
    assert parse_tool_call(
        body("<parameter=n>\n1\n</parameter>\n", "f"), [{"name": "f", "parameters": root}]
    ) == {"n": 1}


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
def test_parameters_may_be_declared_in_parts_of_the_schema(keyword):
    parts = [{"properties": {"n": {"type": "integer"}}, "required": ["n"]}, {"$ref": "#/$defs/more"}]
    more = {"properties": {"n": {"minimum": 2, "type": "integer"}, "l": {"type": "array"}}}
    shaped = {
        "name": "f",
        "parameters": {"type": "object", keyword: [*parts, True, parts[0]], "$defs": {"more": more}},
    }
    if keyword == "oneOf":
        parts.pop()
        shaped["parameters"][keyword] = parts
    good = write_tool_call("f", {"n": 3, "l": ["</parameter>"]} if keyword != "oneOf" else {"n": 3})
    assert parse_tool_call(good, [shaped])["n"] == 3
    assert codes(parse_tool_calls(write_tool_call("f", {"n": "x"}), [shaped])) == [("invalid", "type")]
    needed = set() if keyword == "anyOf" else {("invalid", "required")}
    assert set(codes(parse_tool_calls(write_tool_call("f", {}), [shaped]))) == needed


def _typed_by_kind(as_number: dict, as_text: dict) -> list[dict]:
    """A tool whose `v` is typed by one part of the schema where `k` is "a", by another where it is "b"."""
    first = {"properties": {"k": {"const": "a"}, "v": as_number}, "required": ["k", "v"]}
    second = {"properties": {"k": {"const": "b"}, "v": as_text}, "required": ["k", "v"]}
    return [{"name": "f", "parameters": {"type": "object", "oneOf": [first, second]}}]


@pytest.mark.parametrize("mode", ["strict", "lenient"])
@pytest.mark.parametrize("as_text", [{"type": "string"}, {}])
def test_a_name_that_parts_of_the_schema_type_differently_is_read_as_the_part_that_fits(mode, as_text):
    tools = _typed_by_kind({"type": "integer"}, as_text)
    for kind, text, value in (("a", "5", 5), ("b", "5", "5"), ("b", "x", "x")):
        read = parse_tool_calls(write_tool_call("f", {"k": kind, "v": text}), tools, mode)
        assert (read.problems, read.calls[0].arguments) == ([], {"k": kind, "v": value})
        assert type(read.calls[0].arguments["v"]) is type(value)
    assert (
        parse_tool_calls(write_tool_call("f", {"k": "a", "v": "x"}), tools, mode).problems[0].status
        == "invalid"
    )
    assert (
        parse_tool_calls(write_tool_call("f", {"k": "c", "v": "5"}), tools, mode).problems[0].status
        == "invalid"
    )


def test_a_name_that_only_then_or_else_declares_is_typed():
    chosen = {
        "then": {"properties": {"v": {"type": "integer"}}},
        "else": {"properties": {"v": {"type": "string"}}},
    }
    schema = {"type": "object", "required": ["k"], "if": {"properties": {"k": {"const": "a"}}}, **chosen}
    tools = [{"name": "f", "parameters": {**schema, "properties": {"k": {"type": "string"}}}}]
    for kind, value in (("a", 5), ("b", "5")):
        assert parse_tool_call(write_tool_call("f", {"k": kind, "v": 5}), tools) == {"k": kind, "v": value}


def test_of_the_ways_to_read_names_typed_differently_a_bounded_number_is_tried(monkeypatch):
    names = [f"p{number}" for number in range(12)]
    parts = [{"properties": {name: {"type": kind} for name in names}} for kind in ("integer", "string")]
    never = {"type": "object", "anyOf": parts, "not": {"required": ["p0"]}}
    parser = ToolCallParser([{"name": "f", "parameters": never}])
    asked = []
    is_valid = Validator.is_valid
    monkeypatch.setattr(Validator, "is_valid", lambda self, value: asked.append(1) or is_valid(self, value))
    assert not parser.parse(write_tool_call("f", dict.fromkeys(names, 1))).calls
    assert len(asked) < 70 + 4 * len(names)  # each parameter is read alone first, as one part or another


@pytest.mark.parametrize("parameters", [{"allOf": [{"$ref": "#"}]}, {"anyOf": [{"allOf": [{"$ref": "#"}]}]}])
def test_parameters_that_refer_to_themselves_are_refused(parameters):
    with pytest.raises(SchemaError, match="refers to itself"):
        ToolCallParser([{"name": "f", "parameters": parameters}])


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "array"},
        {"type": ["string", "null"]},
        {"$ref": "#/$defs/A", "$defs": {"A": {"type": "array"}}},
        [1],
    ],
)
def test_parameters_that_are_no_object_are_refused(parameters):
    with pytest.raises(SchemaError, match="object"):
        ToolCallParser([{"name": "f", "parameters": parameters}])


def test_undeclared_keys_follow_the_patterns_and_the_extra_schema():
    shaped = tool("f", {"a": STR}, patternProperties={"^n_": {"type": "integer"}}, additionalProperties=False)
    one = "<parameter=a>\nx\n</parameter>\n<parameter={}>\n1\n</parameter>\n"
    assert arguments(lenient(body(one.format("n_x"), "f"), [shaped])) == [("f", {"a": "x", "n_x": 1})]
    assert codes(lenient(body(one.format("z"), "f"), [shaped])) == [("invalid", "additionalProperties")]
    extra = tool("f", {"a": STR}, additionalProperties={"type": "integer"})
    assert arguments(lenient(body(one.format("z"), "f"), [extra])) == [("f", {"a": "x", "z": 1})]


def test_assertions_on_the_whole_object_are_checked():
    pair = tool("f", {"a": STR, "b": STR}, dependentRequired={"a": ["b"]})
    result = parse_tool_calls(body("<parameter=a>\nx\n</parameter>\n", "f"), [pair])
    assert codes(result) == [("invalid", "required")]
    keys = tool("f", {"a": STR}, propertyNames={"maxLength": 1})
    result = lenient(body("<parameter=a>\nx\n</parameter>\n<parameter=zz>\n1\n</parameter>\n", "f"), [keys])
    assert result.problems[0].json_pointer == "/zz"


def test_without_tools_every_name_is_accepted_and_values_stay_text():
    assert arguments(parse_tool_calls(body("<parameter=n>\n1\n</parameter>\n", "any"), None)) == [
        ("any", {"n": "1"})
    ]


# --- one call
# --------------------------------------------------------------------------------------------------------


def test_parse_tool_call_gives_the_arguments_or_says_what_is_wrong():
    assert parse_tool_call(PING_CALL, TOOLS) == {}
    with pytest.raises(ToolCallError, match="one tool call expected, 2 found"):
        parse_tool_call(PING_CALL + PING_CALL, TOOLS)
    with pytest.raises(ToolCallError, match="truncated at 0") as caught:
        parse_tool_call(PING_CALL[:-20], TOOLS)
    assert caught.value.problems[0].status == "truncated"


@pytest.mark.parametrize("between", ["", "\n", " ", "\n\n", "\nand\n"])
@pytest.mark.parametrize("first", [PING_CALL, body("<parameter=name>\nLyon\n</parameter>\n")])
def test_two_calls_are_two_calls_in_strict_mode_whatever_stands_between_them(first, between):
    result = parse_tool_calls(first + between + PING_CALL, TOOLS)
    assert len(result.calls) == 2
    assert result.ok
    assert result.content.strip() == between.strip()


def test_a_parameter_given_many_times_is_one_problem_with_its_pointer_escaped():
    twice = tool("f", {"a/b": STR})
    one = "<parameter=a/b>\nx\n</parameter>\n"
    result = lenient(body(one * 3, "f"), [twice])
    assert [(p.code, p.json_pointer) for p in result.problems] == [("duplicate_parameter", "/a~1b")]


def test_of_many_calls_opened_in_one_another_and_never_closed_a_hundred_are_reported():
    text = (HEAD + "<parameter=name>\n") * 300
    result = lenient(text + PING_CALL)
    assert arguments(result) == [("ping", {})]
    assert (
        codes(result) == [("malformed", "unclosed_call")] * 101
    )  # and the innermost, which holds the good call
    assert [segment.kind for segment in result.segments] == ["broken_call"] * 101 + ["call"]
    assert len(result.segments[99].source) == 200 * len(text) // 300


def test_an_unreadable_call_in_a_closed_think_block_is_an_example():
    result = lenient(f"<think>\nI write <tool_call><function= now\n </think> x\n{PING_CALL}")
    assert arguments(result) == [("ping", {})]


def test_an_invalid_value_has_a_pointer_and_the_span_of_the_value():
    text = body("<parameter=name>\nLyon\n</parameter>\n<parameter=days>\nsoon\n</parameter>\n")
    problem = parse_tool_calls(text, TOOLS).problems[0]
    assert (problem.status, problem.json_pointer, text[slice(*problem.span)]) == ("invalid", "/days", "soon")


def test_spans_stand_on_the_values():
    text = "Yes.\n\n" + body("<parameter=name>\n Lyon\n\n</parameter>\n<parameter=days>\n3\n</parameter>\n")
    call = parse_tool_calls(text, TOOLS).calls[0]
    assert {key: text[slice(*span)] for key, span in call.spans.items()} == {"name": " Lyon\n", "days": "3"}
    assert text[slice(*call.span)] == text.removeprefix("Yes.\n\n")


def test_one_bad_call_does_not_lose_the_others():
    bad = body("<parameter=days>\nx\n</parameter>\n")
    for mode in ("strict", "lenient"):
        for wrong in (bad, body("", "nobody"), body("junk\n"), "<tool_call>\n</tool_call>"):
            result = parse_tool_calls(f"{PING_CALL}\n{wrong}\n{PING_CALL}", TOOLS, mode)
            assert arguments(result) == [("ping", {}), ("ping", {})]
            assert not result.ok
            assert [segment.kind for segment in result.segments].count("broken_call") == 1


# --- repairs
# ---------------------------------------------------------------------------------------------------------

NAME = "<parameter=name>\nLyon\n</parameter>\n"
HEAD = "<tool_call>\n<function=city>\n"
MENDED = [
    (
        HEAD + "<parameter=name>\nLyon\n<parameter=region>\nA\n</parameter>\n</function>\n</tool_call>",
        "missing_close_parameter",
    ),
    (HEAD + "<parameter=name>\nLyon\n</function>\n</tool_call>", "missing_close_parameter"),
    (
        HEAD + "<parameter=days>\n3\n<parameter=name>\nA\n</parameter>\n</function>\n</tool_call>",
        "missing_close_parameter",
    ),
    (HEAD + NAME + "<parameter=days>\n3\n</function>\n</tool_call>", "missing_close_parameter"),
    (HEAD + NAME + "<parameter=days>\n3</parameter1>\n</function>\n</tool_call>", "drifted_closer"),
    (HEAD + "<parameter=name>\nLyon\n</param>\n</function>\n</tool_call>", "drifted_closer"),
    (
        HEAD
        + "<parameter=name>\nLyon\n</name>\n<parameter=region>\nA\n</parameter>\n</function>\n</tool_call>",
        "drifted_closer",
    ),
    (HEAD + "<parameter=name>\nLyon\n</name>\n</function>\n</tool_call>", "drifted_closer"),
    (HEAD + "<parameter=name>\nLyon\n</name>\n</tool_call>", "drifted_closer"),
    (HEAD + NAME + "</function_call>\n</tool_call>", "drifted_closer"),
    (HEAD + NAME + "</function>\n</tool_calls>", "drifted_closer"),
    (HEAD + NAME + "</parameter>\n</function>\n</tool_call>", "duplicate_closer"),
    (
        HEAD + NAME + "<parameter=days>\n3\n</parameter>\n</parameter>\n</function>\n</tool_call>",
        "duplicate_closer",
    ),
    (HEAD + NAME + "</function>\n</function>\n</tool_call>", "stray_closer"),
    (HEAD + NAME + "</function>\n</tool_call>\n</tool_call>", "orphan_closer"),
    (HEAD + NAME + "</tool_call>", "missing_close_function"),
    (
        HEAD
        + "<parameter=days>\n3\n</parameter>\n"
        + NAME.replace("\n</p", "\n</p")
        + "</tool_call>\n"
        + PING_CALL,
        "missing_close_function",
    ),
    (HEAD + "<parameter=name>\nLyon\n</tool_call>", "missing_close_function"),
    (HEAD + NAME + "</function>", "missing_close_tool_call"),
    (HEAD + NAME + "</function>\nDone.", "missing_close_tool_call"),
    (HEAD + NAME + "<parameter=days>\n3\n</parameter>\n</function>\nDone.", "missing_close_tool_call"),
    (HEAD + NAME + "</function>\n" + PING_CALL, "missing_close_tool_call"),
    (HEAD + NAME + PING_CALL, "missing_close_tool_call"),
    (HEAD + NAME + "</function><|im_end|>", "missing_close_tool_call"),
    ("<function=city>\n" + NAME + "</function>\n</tool_call>", "missing_open_tool_call"),
    ("<function=city>\n" + NAME + "</function>", "missing_tool_call_tags"),
    ("<tool_call>\n" + HEAD + NAME + "</function>\n</tool_call>", "duplicate_opener"),
    (HEAD + NAME + "</function>\n<function=ping>\n</function>\n</tool_call>", "shared_tool_call"),
    (HEAD + NAME, "unclosed_call"),
    (HEAD + "<parameter=name>\nLyon\n</par", "unclosed_call"),
    (HEAD + "<parameter=name>\nLyon\n</parameter", "unclosed_call"),
    (HEAD + NAME + "</func", "unclosed_call"),
    ((HEAD + NAME + "</function>\n</tool_call>").replace("\n", "\r\n"), "crlf_framing"),
    ("```\n" + HEAD + NAME + "</function>\n</tool_call>", "unclosed_fence"),
    (HEAD + NAME + "<parameter=region/>\n</function>\n</tool_call>", "self_closed_opener"),
    (HEAD + NAME + "<parameter=days>\n1e1\n</parameter>\n</function>\n</tool_call>", "integer_from_exponent"),
    (HEAD + NAME + "<parameter=days>\n</parameter>\n</function>\n</tool_call>", "empty_optional_dropped"),
]


@pytest.mark.parametrize(("text", "name"), MENDED)
def test_lenient_mends_and_names_the_repair_and_strict_refuses(text, name):
    call = lenient(text).calls[0]
    assert call.name == "city"
    assert call.arguments["name"] in ("Lyon", "A")
    assert name in call.repairs
    strict = parse_tool_calls(text, TOOLS)
    assert not any(call.name == "city" for call in strict.calls)
    assert strict.problems


def test_every_repair_is_documented_and_tried():
    elsewhere = {"python_literal", "raw_line_break", *KEY_REPAIRS}
    assert {name for _, name in MENDED} | elsewhere == set(REPAIRS)


def test_what_cannot_be_mended_is_reported():
    for text in (
        HEAD + NAME + "junk\n</function>\n</tool_call>",
        HEAD + "</parameter>\n" + NAME + "</function>\n</tool_call>",
        HEAD + NAME + "<parameter=days>\n3\n</parameter>\n</function>\njunk\n</tool_call>",
        HEAD + "<parameter=name>\nLyon",
        HEAD + NAME.replace("name", "days") + "</function>\n</tool_call>",
        "<tool_call>",
        "<tool_call>\nfoo\n</tool_call>",
        "<tool_call>foo()</tool_call>",
        HEAD + NAME + "<tool_call>",
        "<tool_call>\n<function",
        "<tool_call>\n<function=a\n>",
    ):
        result = lenient(text)
        assert not result.calls, text
        assert result.problems, text


def test_a_call_that_is_opened_before_another_is_closed_is_reported_and_the_other_kept():
    for text in (
        HEAD + "Wait:\n" + PING_CALL,
        HEAD + "<parameter=days>\n" + PING_CALL,
        HEAD + "<parameter=name>\nLyon\n" + PING_CALL,
        "<tool_call>\n<function=city>\n<function=ping>\n</function>\n</tool_call>",
    ):
        result = lenient(text)
        assert arguments(result) == [("ping", {})]
        assert ("malformed", "unclosed_call") in codes(result)
        assert not parse_tool_calls(text, TOOLS).calls


def test_a_heal_that_turns_out_right_keeps_the_call_behind_it():
    text = HEAD + "<parameter=name>\nLyon\n</function>\n</tool_call>\n" + PING_CALL
    assert arguments(lenient(text)) == [("city", {"name": "Lyon"}), ("ping", {})]


# --- think, code, prose
# ----------------------------------------------------------------------------------------------


def test_a_think_block_may_open_in_the_prompt_or_nowhere():
    for text, options in (
        (f"a\n</think>\n\n{PING_CALL}", {"prefill": "think"}),
        (f"a\n</think>\n\n{PING_CALL}", {}),
    ):
        result = parse_tool_calls(text, TOOLS, **options)
        assert (arguments(result), result.reasoning, result.content) == ([("ping", {})], "a", "")


def test_a_call_that_a_lone_think_end_follows_is_in_doubt():
    assert codes(lenient(f"{PING_CALL}\n</think>\n\nNo.")) == [("ambiguous", "call_in_reasoning")]
    assert lenient("say </think> twice").content == "say </think> twice"


def test_a_rehearsed_call_in_a_closed_think_block_is_no_call():
    for text in (f"<think>\n{PING_CALL}\n</think>\n\nok", f"<think>{PING_CALL} no</think>ok"):
        assert (lenient(text).calls, lenient(text).content) == ([], "ok")
    inside = f"<think>\n{note('x </think> y')}"
    assert arguments(parse_tool_calls(inside, TOOLS)) == [("note", {"path": "p", "body": "x </think> y"})]


def test_a_think_block_behind_a_call_is_reasoning_if_it_is_closed():
    assert lenient(f"{PING_CALL}\n<think>\nx\n</think>\n\nok").reasoning == "x"
    assert lenient(f"{PING_CALL}\n<think>\nx").reasoning == ""
    assert lenient("a <think> b").content == "a <think> b"
    assert lenient("Hm.\n<think>\na\n</think>\nb").reasoning == "a"


@pytest.mark.parametrize(
    "text",
    [
        f"```xml\n{PING_CALL}\n```\nok",
        f"~~~\n{PING_CALL}\n~~~",
        f"   ````\n{PING_CALL}\n```\n````",
        f"`{PING_CALL}`",
        "`<tool_call><function=ping></function></tool_call>`",
        "The tag <tool_call> opens a call.",
        "<function=ping> is a tag",
        "ok </parameter> and </tool_call>",
        "<function= >",
        "``` `\n~~~ a",
        "x~~~",
        "a <function=nobody></function>",
    ],
)
def test_code_and_prose_are_no_calls(text):
    result = parse_tool_calls(text, TOOLS)
    assert (result.calls, result.problems, result.content) == ([], [], text)


@pytest.mark.parametrize(
    "before",
    ["it`s\n", "a `b` c\n", "    ```\n", "x ```\n", "```\na\n```\n", "`a\n", "~~ ", "``` a`b\n", "abcd```\n"],
)
def test_a_call_outside_of_code_is_a_call(before):
    result = parse_tool_calls(before + PING_CALL, TOOLS)
    assert arguments(result) == [("ping", {})]
    assert result.ok


def test_of_fences_that_are_never_closed_the_last_before_the_call_is_named():
    text = "```a\nx\n```b\n" + HEAD + NAME + "</function>\n</tool_call>"
    assert lenient(text).calls[0].repairs == ("unclosed_fence",)
    [doubt, repair] = parse_tool_calls(text, TOOLS).problems
    assert (doubt.code, repair.code) == ("call_in_fence", "unclosed_fence")
    assert doubt.span == repair.span == (7, 10)


def test_a_fence_that_closes_inside_a_call_is_no_fence():
    text = "```\n" + note("a\n```\nb")
    assert arguments(lenient(text)) == [("note", {"path": "p", "body": "a\n```\nb"})]
    assert ("ambiguous", "call_in_fence") in codes(parse_tool_calls(text, TOOLS))


def test_what_stands_behind_the_end_of_the_turn_is_no_answer():
    result = lenient(f"{PING_CALL}<|im_end|>\n<|im_start|>user\nhi")
    assert (arguments(result), result.content, result.ok) == ([("ping", {})], "", True)
    assert codes(lenient(f"ok<|im_end|>{PING_CALL}")) == [("malformed", "call_after_turn")]


def test_a_placeholder_name_ends_strict_reading():
    text = "<tool_call>\n<function={{ name }}>\n</function>\n</tool_call>\n" + PING_CALL
    assert arguments(lenient(text)) == [("ping", {})]
    assert parse_tool_calls(text, TOOLS).calls == []


# --- Hermes
# ----------------------------------------------------------------------------------------------------------


def hermes(inner, **options):
    return parse_tool_calls(
        f"<tool_call>\n{inner}\n</tool_call>", options.pop("tools", TOOLS), dialect="hermes", **options
    )


def test_hermes_calls_are_read_when_asked_for():
    good = '{"name": "city", "arguments": {"name": "Lyon"}}'
    assert arguments(hermes(good)) == [("city", {"name": "Lyon"})]
    assert arguments(hermes(good, tools=None)) == [("city", {"name": "Lyon"})]
    assert codes(hermes('{"name": "city", "arguments": {"name": 1}}')) == [("invalid", "type")]
    assert codes(hermes('{"name": "nobody"}')) == [("invalid", "unknown_function")]
    assert codes(hermes('{"name": 1}')) == [("malformed", "bad_json_call")]
    assert codes(hermes('{"name": "ping",}')) == [("malformed", "bad_json")]
    assert codes(hermes('{"name": "ping"} x')) == [("malformed", "extra_text")]
    assert codes(parse_tool_calls(PING_CALL, TOOLS, dialect="hermes")) == [("malformed", "xml_call")]
    assert parse_tool_calls("<function=ping>\n</function>", TOOLS, "lenient", dialect="hermes").ok


def test_hermes_repairs_are_lenient_and_named():
    cut = '<tool_call>\n{"name": "ping", "arguments": {}}'
    assert codes(parse_tool_calls(cut, TOOLS, dialect="hermes")) == [("truncated", "truncated")]
    assert lenient(cut, dialect="hermes").calls[0].repairs == ("missing_close_tool_call",)
    assert codes(lenient(cut, dialect="hermes", finished=False)) == [("truncated", "truncated")]
    assert codes(lenient(cut[:-5], dialect="hermes")) == [("truncated", "truncated")]
    assert codes(lenient(cut + " x", dialect="hermes")) == [("malformed", "extra_text")]
    assert hermes('{"name": "ping", "arguments": "{}"}', mode="lenient").calls[0].repairs == (
        "double_encoded",
    )
    assert codes(hermes('{"name": "ping", "arguments": "{"}', mode="lenient")) == [
        ("malformed", "bad_json_call")
    ]
