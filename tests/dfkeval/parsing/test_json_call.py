"""JSON calls: every key is read, named or refused; nothing that the model said becomes an empty call."""

from __future__ import annotations

import itertools
import json

import pytest

from dfkeval.parsing.decode import Decoded, decode
from dfkeval.parsing.json_call import KEY_REPAIRS, misplaced_arguments
from dfkeval.parsing.toolcall import ToolCallParser

TOOLS = [
    {"name": "f", "parameters": {"properties": {"path": {"type": "string"}}}},
    {"name": "empty", "parameters": {"properties": {}, "additionalProperties": False}},
]
ARGUMENTS = {"path": "a.txt"}
OTHER_KEYS = ["parameters", "args", "input", "params", "kwargs", "Arguments", "ARGS", "path", "tool_input", "id",
              "type", "x", ""]  # fmt: skip


def read(call, mode):
    text = f"<tool_call>\n{call if isinstance(call, str) else json.dumps(call)}\n</tool_call>"
    return ToolCallParser(TOOLS, mode=mode, dialect="hermes").parse(text)


@pytest.mark.parametrize("key", OTHER_KEYS)
@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("value", [ARGUMENTS, {}, json.dumps(ARGUMENTS), "7", 7, None, []], ids=repr)
def test_a_key_that_is_not_arguments_is_never_passed_over(key, beside, value):
    call = {"name": "f", key: value} | ({"arguments": ARGUMENTS} if beside else {})
    assert not read(call, "strict").ok
    lenient = read(call, "lenient")
    if not lenient.ok:
        assert lenient.calls == []
        return
    assert lenient.calls[0].repairs
    assert set(lenient.calls[0].repairs) <= set(KEY_REPAIRS)
    said = ARGUMENTS if beside or value in (ARGUMENTS, json.dumps(ARGUMENTS)) else {}
    if key not in ("id", "type"):
        assert lenient.calls[0].arguments == said
    else:
        assert lenient.calls[0].arguments == (ARGUMENTS if beside else {})


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(OTHER_KEYS[:7], 2)))
def test_arguments_under_two_keys_are_refused(first, second):
    assert [p.code for p in read({"name": "f", first: ARGUMENTS, second: {}}, "lenient").problems] == [
        "unknown_key"
    ]


@pytest.mark.parametrize(
    ("call", "strict", "lenient"),
    [
        ('{"name": "f"}', "missing_arguments", ({}, ("missing_arguments",))),
        ('{"name": "f", "arguments": null}', "bad_json_call", ({}, ("missing_arguments",))),
        ('{"name": "f", "args": {"path": "x"}}', "unknown_key", ({"path": "x"}, ("arguments_key",))),
        ('{"name": "f", "args": null, "id": 1}', "unknown_key",
         ({}, ("unknown_key", "arguments_key", "missing_arguments"))),
        ('{"name": "f", "arguments": {"path": "a\nb"}}', "control_character", ({"path": "a\nb"}, ("raw_line_break",))),
        ('{"name": "f", "arguments": {"path": "a\0b"}}', "control_character", "control_character"),
        ('{"name": "f", "arguments": [1]}', "bad_json_call", "bad_json_call"),
        ('{"name": "f", "arguments": "x"}', "bad_json_call", "bad_json_call"),
        ('{"type": "function", "function": {"name": "f"}}', "bad_json_call", "bad_json_call"),
        ('{"name": "nobody", "args": {}}', "unknown_function", "unknown_function"),
    ],
)  # fmt: skip
def test_what_each_mode_says_about_the_keys(call, strict, lenient):
    assert [p.code for p in read(call, "strict").problems] == [strict]
    result = read(call, "lenient")
    got = result.problems[0].code if result.problems else (result.calls[0].arguments, result.calls[0].repairs)
    assert got == lenient


# --- a call where only its arguments are asked for


@pytest.mark.parametrize("key", ["arguments", "parameters", "args", "x"])
@pytest.mark.parametrize("mode", ["strict", "lenient"])
def test_a_call_is_not_an_answer_in_which_nothing_was_said(key, mode):
    text = json.dumps({"name": "emit_caption_schema", key: {"actions": ["runs"]}})
    read = decode(text, "caption", form="json", mode=mode)
    if mode == "lenient" and key != "x":
        more = () if key == "arguments" else ("arguments_key",)
        assert read == Decoded({"actions": ["runs"]}, ("json_call", *more))
    else:
        assert read.kind == "bad_json"


def test_a_wrapped_call_is_named_and_an_answer_of_that_name_is_an_answer():
    wrapped = {"type": "function", "function": {"name": "emit_caption_schema", "arguments": "{}"}}
    for mode in ("strict", "lenient"):
        assert decode(json.dumps(wrapped), "caption", form="json", mode=mode).kind == "bad_json"
        own = {"actions": ["runs"], "name": "emit_caption_schema"}
        assert decode(json.dumps(own), "caption", form="json", mode=mode) == Decoded(own)
        assert decode('{"name": "else"}', "caption", form="json", mode=mode) == Decoded({"name": "else"})
        assert decode("[1]", "caption", form="json", mode=mode).kind == "schema_invalid"


NAME = "emit_caption_schema"
SAID = {"setting": "indoor"}


@pytest.mark.parametrize(
    ("call", "lenient"),
    [
        ({"arguments": SAID}, ("json_call",)),
        ({"parameters": SAID}, ("json_call", "arguments_key")),
        ({"Args": json.dumps(SAID), "id": 1}, ("json_call", "unknown_key", "arguments_key", "double_encoded")),
        ({"tool": NAME, "args": SAID}, "bad_json"),
        ({"tool": NAME}, "bad_json"),
        ({"tool": "other", "tool_input": SAID}, "bad_json"),
        ({"action": NAME, "action_input": SAID}, "bad_json"),
        ({"recipient_name": f"functions.{NAME}", "parameters": SAID}, "bad_json"),
        ({"name": f"functions.{NAME}", "arguments": SAID}, "wrong_function"),
        ({"name": f"functions.{NAME}"}, "wrong_function"),
        ({"name": NAME.upper(), "arguments": SAID}, "wrong_function"),
        ({"name": "other", "arguments": SAID}, "wrong_function"),
        ({"name": None, "arguments": SAID}, "wrong_function"),
        ({"type": "function", "function": {"name": f"functions.{NAME}", "arguments": SAID}}, "bad_json"),
        ({"tool_calls": [{"name": NAME, "arguments": SAID}]}, "bad_json"),
        ({"function_call": {"name": NAME, "arguments": SAID}}, "bad_json"),
        ({NAME: SAID}, "bad_json"),
        ({NAME: SAID, "why": "x"}, "bad_json"),
    ],
    ids=str,
)  # fmt: skip
def test_a_call_in_any_format_never_scores_as_an_answer_without_content(call, lenient):
    strict = decode(json.dumps(call), "caption", form="json")
    assert (strict.kind, strict.problems[0].code) == ("bad_json", "json_call")
    read = decode(json.dumps(call), "caption", form="json", mode="lenient")
    assert (read.kind if isinstance(lenient, str) else read) == (
        lenient if isinstance(lenient, str) else Decoded(SAID, lenient)
    )


@pytest.mark.parametrize("mode", ["strict", "lenient"])
@pytest.mark.parametrize(
    "answer", [{}, {"why": "x"}, {"action": "runs"}, {"tool": "hammer"}, {"input": 1, "why": "x"},
               {"arguments": {}, "setting": "indoor"}, {NAME: 1, "actions": []}],
    ids=str,
)  # fmt: skip
def test_an_answer_with_keys_of_its_own_is_no_call(answer, mode):
    assert decode(json.dumps(answer), "caption", form="json", mode=mode) == Decoded(answer)


@pytest.mark.parametrize(
    ("schema", "form", "text", "kind"),
    [
        ("caption", "schema", "<tool_call>\n<function=emit_caption_schema>\nx\n</function>\n</tool_call>", "bad_xml"),
        ("caption", "hermes", '<tool_call>\n{"name": "emit_caption_schema"}\n</tool_call>', "bad_json"),
        ("caption", "hermes", '<tool_call>\n{"name": "emit_caption_schema", "arguments": 1}\n</tool_call>', "bad_json"),
        ("caption", "hermes", "<tool_call>\n<function=emit_caption_schema>\n</function>\n</tool_call>", "bad_json"),
        ("caption", "hermes", "<tool_call>\n</tool_call>", "bad_json"),
        ("caption", "json", '{"actions": [}', "bad_json"),
        ("dfk_label", "schema", "Label: fitnah", "bad_text"),
        ("dfk_label", "json", "{", "bad_json"),
    ],
)  # fmt: skip
def test_failures_are_named_by_the_form_that_was_asked_for(schema, form, text, kind):
    assert decode(text, schema, form=form).kind == kind


@pytest.mark.parametrize("mode", ["strict", "lenient"])
def test_json_forms_read_raw_line_breaks_in_lenient_only(mode):
    read = decode('{"actions": ["a\nb"]}', "caption", form="json", mode=mode)
    if mode == "strict":
        assert (read.kind, read.problems[0].code) == ("bad_json", "control_character")
    else:
        assert read == Decoded({"actions": ["a\nb"]}, ("raw_line_break",))


def test_a_closing_tag_inside_a_json_string_is_data():
    call = {"name": "f", "arguments": {"path": "a</tool_call>\u00e9</tool_call>"}}
    for ascii_only in (True, False):
        text = json.dumps(call, ensure_ascii=ascii_only)
        assert read(text, "strict").calls[0].arguments == call["arguments"]


def test_raw_line_breaks_do_not_let_deep_values_in():
    text = '{"actions": "a\nb", "x": ' + "[" * 101 + "]" * 101 + "}"
    assert decode(text, "caption", form="json", mode="lenient").problems[0].code == "too_deep"


@pytest.mark.parametrize(
    ("function", "misplaced"),
    [
        ({"name": "f"}, False),
        ({"name": "f", "arguments": {}, "parameters": {"a": 1}}, False),
        ({"name": "f", "parameters": None}, False),
        ({"name": "f", "Input": {}}, True),
        ({"name": "f", "arguments": None, "args": "{}"}, True),
    ],
)
def test_arguments_under_another_key_are_seen(function, misplaced):
    assert misplaced_arguments(function) is misplaced
