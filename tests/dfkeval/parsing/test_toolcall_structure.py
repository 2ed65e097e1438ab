"""Text that looks like the structure of a call: data, doubt or a call that goes on."""

from __future__ import annotations

import pytest

from dfkeval.parsing.toolcall import (
    parse_tool_calls,
)
from tests.helpers.tool_calls import PING_CALL, TOOLS, arguments, body, codes, lenient, note, tool


@pytest.mark.parametrize(
    "value",
    [
        "a </parameter> b",
        "use </parameter>",
        "a\n</parameter>\nb",
        "</function>",
        "a\n</function>\n</tool_call>\nb",
        "<tool_call>",
        "<tool_call><function=ping></function></tool_call>!",
        "x</parameterList>",
        "\n</parameterX>\ny",
        "<parameter=path>\nx",
        "a</parameter><parameter=fake> b",
        "</think>",
        "```\n<tool_call>",
        "<function=ping>",
        "a\n</parameter>\n<tool_call>\nb",
        "see </parameter>\n</parameter> x",
        "a\n</parameter>\n</parameter>\nb",
        "x\n</parameter>\n</tool_call>\ny",
    ],
)
def test_fragments_that_cannot_be_structure_are_data_in_both_modes(value):
    for mode in ("strict", "lenient"):
        assert arguments(parse_tool_calls(note(value), TOOLS, mode)) == [
            ("note", {"path": "p", "body": value})
        ]


@pytest.mark.parametrize(
    "value",
    [
        "</parameter>",
        "<parameter=q>\nx\n</parameter>",
        "a\n</parameter>\n<parameter=fake>\nb\n</parameter>\nc",
        "see\n" + PING_CALL,
        PING_CALL + "\nok",
        "a\n</parameter>\n</function>\n</tool_call>\nz",
        "a\n</parameter>\n</function>\n</tool_call>\n" + PING_CALL + "\nz",
        "a\n</parameter>\n</function>\n</tool_call>\n```\nx\n```\nz",
        "a\n</parameter>\n</function>\n</tool_call>\n<think>\nz",
        "a\n</parameter>\n</function>\n</tool_call><|im_end|>\nz",
        "Use " + PING_CALL.replace("\n", ""),
        "x</parameter></function></tool_call>\n`y`",
    ],
)
def test_where_two_readings_are_well_formed_strict_says_so_and_is_never_wrong(value):
    strict = parse_tool_calls(note(value), TOOLS)
    assert strict.calls == [] or arguments(strict) == [("note", {"path": "p", "body": value})]
    assert strict.calls or any(problem.status == "ambiguous" for problem in strict.problems)


def test_a_bare_call_that_goes_on_behind_a_fake_end_keeps_its_repairs():
    end = "\n</parameter>\n</function>"
    text = f"<function=f>\n<parameter=a>\nx{end}\nz{end}\n</tool_call>"
    result = parse_tool_calls(text, mode="lenient")
    assert [call.arguments for call in result.calls] == [{"a": f"x{end}\nz"}]
    assert result.calls[0].repairs == ("missing_tool_call_tags", "missing_open_tool_call")


def test_a_closer_that_spells_the_name_ends_a_typed_value_whatever_follows_it_directly():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    text = "<tool_call>\n<function=f>\n<parameter=n>\n1\n</n></function>\n</tool_call>"
    (call,) = parse_tool_calls(text, tools, mode="lenient").calls
    assert (call.arguments, call.repairs) == ({"n": 1}, ("drifted_closer",))


def test_a_json_value_that_goes_on_behind_a_fake_end_is_read_again_from_its_whole_text():
    schema = {"type": "object", "properties": {"a": {"type": ["array", "string"]}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    end = "\n</parameter>\n</function>\n</tool_call>"
    text = f"<tool_call>\n<function=f>\n<parameter=a>\n[1]{end}\nz{end}"
    result = parse_tool_calls(text, tools, mode="lenient")
    assert [call.arguments for call in result.calls] == [{"a": f"[1]{end}\nz"}]
    assert [problem.code for problem in parse_tool_calls(text, tools).problems] == ["call_in_text"]


def test_a_value_that_goes_on_behind_a_fake_end_is_taken_up_again():
    for value in (
        "a\n</parameter>\n</function>\n</tool_call>\nz",
        "x <tool_call>\n</parameter>\n</function>\n</tool_call>",
    ):
        assert arguments(lenient(note(value))) == [("note", {"path": "p", "body": value})]
    first = body(
        "<parameter=name>\na\n</parameter>\n</function>\n</tool_call>\nz\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
    )
    name = "a\n</parameter>\n</function>\n</tool_call>\nz"
    assert arguments(lenient(first)) == [("city", {"name": name, "days": 3})]


def test_if_nothing_closes_the_value_again_the_first_reading_stands():
    result = lenient(body("<parameter=name>\nLyon\n</parameter>\n") + "\nz\n</parameter>\n<parameter=name>")
    assert (codes(result), arguments(result)) == ([], [("city", {"name": "Lyon"})])


def test_a_declared_parameter_behind_a_closer_and_text_is_in_doubt_in_both_modes():
    text = body("<parameter=name>\nLyon\n</parameter>\nthen\n<parameter=days>\n3\n</parameter>\n")
    assert codes(lenient(text)) == [("ambiguous", "parameter_in_text")]


def test_an_optional_parameter_that_holds_a_closer_may_be_text_of_the_one_before():
    text = body(
        "<parameter=name>\nLyon\n</parameter>\n<parameter=region>\na\n</parameter>\nb\n</parameter>\n"
    )
    assert codes(parse_tool_calls(text, TOOLS)) == [("ambiguous", "parameter_or_text")]
    assert arguments(lenient(text)) == [("city", {"name": "Lyon", "region": "a\n</parameter>\nb"})]


def test_one_value_of_a_closed_list_cannot_hold_text_so_nothing_is_in_doubt():
    text = body(
        "<parameter=name>\nLyon\n</parameter>\n<parameter=unit>\nC\n</parameter>\n<parameter=x>\n1\n</parameter>\n"
    )
    assert arguments(parse_tool_calls(text, TOOLS)) == [("city", {"name": "Lyon", "unit": "C", "x": "1"})]


def test_compact_values_have_no_second_reading():
    inside = "<parameter=name>Lyon</parameter><parameter=x>1</parameter>"
    text = f"<tool_call><function=city>{inside}</function></tool_call>"
    assert arguments(parse_tool_calls(text, TOOLS)) == [("city", {"name": "Lyon", "x": "1"})]


def test_inline_tags_around_a_declared_name_are_in_doubt():
    text = body("<parameter=name>\nLyon</parameter> <parameter=region>x</parameter>\n")
    assert codes(parse_tool_calls(text, TOOLS)) == [("ambiguous", "parameter_or_text")]
    assert arguments(lenient(text)) == [("city", {"name": "Lyon", "region": "x"})]


def test_tags_inside_json_strings_are_harmless():
    people = tool("f", {"p": {"type": "array"}, "q": {"type": ["string", "array"]}})
    for key in ("p", "q"):
        text = body(f'<parameter={key}>\n["</parameter>", "</parameter></function>"]\n</parameter>\n', "f")
        assert arguments(parse_tool_calls(text, [people])) == [
            ("f", {key: ["</parameter>", "</parameter></function>"]})
        ]
    assert codes(lenient(body('<parameter=p>\n["</parameter>\n', "f"), [people]))[0][0] in (
        "malformed",
        "invalid",
        "truncated",
    )
    assert lenient(body("<parameter=p>\n[1] x</parameter>\n", "f"), [people]).problems
