"""Streams, results, the writer, and what very long or deep texts may cost."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from dfkeval.parsing.toolcall import (
    ProblemFound,
    ToolCallParser,
    parse_tool_calls,
    write_tool_call,
)
from dfkeval.parsing.toolcall._machine import Machine
from tests.helpers.tool_calls import PING_CALL, STR, TOOLS, arguments, body, codes, lenient, tool

NAME = "<parameter=name>\nLyon\n</parameter>\n"
HEAD = "<tool_call>\n<function=city>\n"


def test_a_stream_reports_problems_before_the_calls_behind_them_and_is_used_once():
    stream = ToolCallParser(TOOLS).stream()
    text = "x" * 10 + PING_CALL + "\n" + body("<parameter=days>\n1\n</parameter>\n") + "\n" + PING_CALL
    events = [event for character in text for event in stream.feed(character)]
    assert sum(isinstance(event, ProblemFound) for event in events) == 1
    result = stream.close()
    assert [event.problem for event in events if isinstance(event, ProblemFound)] == result.problems
    for late in (stream.close, lambda: stream.feed("x")):
        with pytest.raises(ValueError, match="closed"):
            late()


def test_previews_of_a_long_stream_cost_no_more_than_the_text():
    parser = ToolCallParser(TOOLS)
    stream = parser.stream()
    text = (PING_CALL + "\n") * 400
    calls = [event for start in range(0, len(text), 3) for event in stream.feed(text[start : start + 3])]
    assert 0 < len(calls) <= 400
    assert stream.close() == parser.parse(text)


def test_eighty_calls_are_previewed_each_when_it_ends_and_a_very_long_one_is_not():
    parser = ToolCallParser(TOOLS)
    stream = parser.stream()
    assert [len(stream.feed(PING_CALL + "\n")) for _ in range(80)] == [1] * 80
    assert len(stream.close().calls) == 80
    stream = parser.stream()
    assert not stream.feed("word " * 60_000 + PING_CALL)
    assert len(stream.close().calls) == 1


def test_the_previews_of_long_calls_never_stop():
    stream = ToolCallParser(TOOLS).stream()
    assert [len(stream.feed("word " * 200 + PING_CALL + "\n")) for _ in range(300)] == [1] * 300


def test_a_stream_that_gave_up_its_previews_still_gives_the_verdict():
    parser = ToolCallParser(TOOLS)
    pieces = ["<tool_call>\n", *["x </tool_call>\n"] * 300, PING_CALL]
    stream = parser.stream()
    assert not [event for piece in pieces for event in stream.feed(piece)]
    assert stream.close() == parser.parse("".join(pieces))


def test_pieces_may_be_empty():
    parser = ToolCallParser(TOOLS)
    stream = parser.stream()
    assert stream.feed("") == []
    assert stream.feed("</tool_call") + stream.feed(">") == []


def test_results_are_compared_by_value_and_show_themselves():
    one, two = parse_tool_calls(PING_CALL, TOOLS), parse_tool_calls(PING_CALL, TOOLS)
    assert one == two
    assert one != parse_tool_calls("x", TOOLS)
    assert one != "x"
    assert "ping" in repr(one)


def test_every_dialect_is_written_as_its_template_writes_it():
    values = {"s": "x", "b": True, "n": None, "l": [True, "é"], "f": 1.0}

    def lines(dialect):
        return re.findall(r"<parameter=.>\n(.*)\n</parameter>", write_tool_call("f", values, dialect))

    assert lines("qwen3.5") == ["x", "True", "None", '[true, "é"]', "1.0"]
    assert lines("qwen3.6") == lines("qwen3.8") == ["x", "true", "null", '[true, "é"]', "1.0"]
    assert lines("qwen3-coder-2507") == ["x", "True", "None", "[True, 'é']", "1.0"]
    assert (
        write_tool_call("f", {"a": 1}, "hermes")
        == '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    )
    with pytest.raises(ValueError, match="auto"):
        write_tool_call("f", {}, "auto")


def test_deep_recursion_is_impossible():
    for value in ("[" * 100_000, "{'a': " * 50_000, '[{"a":' * 50_000):
        text = body(f"<parameter=x>\n{value}\n</parameter>\n", "f")
        assert not lenient(text, [tool("f", {"x": {"type": ["array", "object"]}})]).calls
    assert lenient((HEAD + "<parameter=name>\n") * 5000).calls == []


def test_importing_the_parser_loads_the_standard_library_only():
    code = (
        "import sys; import dfkeval.parsing.toolcall; "
        "heavy = ('pydantic', 'jsonschema', 'jsonschema_rs', 'msgspec', 'torch', 'hypothesis'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_a_key_given_twice_in_json_is_refused_on_the_fast_path_too():
    item = {"type": "object", "properties": {"a": STR}}
    listed = [tool("f", {"p": {"type": "array", "items": item}, "n": {"type": "integer"}})]
    assert codes(lenient(body('<parameter=p>\n[{"a": "x", "a": "y"}]\n</parameter>\n', "f"), listed))
    colons = body('<parameter=p>\n[{"a": "x: y"}]\n</parameter>\n<parameter=n>\n1\n</parameter>\n', "f")
    assert arguments(parse_tool_calls(colons, listed)) == [("f", {"p": [{"a": "x: y"}], "n": 1})]


def test_a_call_in_unusual_framing_does_not_hide_the_usual_one_behind_it():
    first = "<tool_call>\n<function=city>\n<parameter=name>\nNice</parameter></function></tool_call>\n"
    for text in (first + body(NAME), "ok\n" + first + body(NAME)):
        assert arguments(parse_tool_calls(text, TOOLS)) == [
            ("city", {"name": "Nice"}),
            ("city", {"name": "Lyon"}),
        ]


def test_a_call_that_shared_its_wrapper_can_be_taken_up_again_and_end_with_the_text():
    shared = HEAD + NAME + "</function>\n<function=city><function\n</parameter>\n</function>\n</tool_call>"
    for behind in (
        "",
        "\nz\n</parameter>\n<parameter=region>\n",
        "<parameter=x>\n</parameter>\n<parameter=name>\n",
    ):
        result = lenient(shared + behind)
        assert result.problems or arguments(result)[0][0] == "city"
        assert "".join(segment.source for segment in result.segments) == shared + behind


def test_a_shared_wrapper_inside_a_value_that_never_ends_is_read_without_an_error():
    inside = "<tool_call>\n<function=city>\n<parameter=name>\nx\n</parameter>\n</function>\n"
    unread = "</parameter></func>>\n<tool_call>\n<function=city></func<function=city>"
    texts = [f"<tool_call><function=city><parameter={key}>{unread}" for key in ("name", "region")]
    stray = inside + "</function>\n<function=ping>\n</function>\n</tool_call>"
    for text in texts:
        result = lenient(text)
        assert result.problems
        assert "".join(segment.source for segment in result.segments) == text
    assert arguments(lenient(stray)) == [("city", {"name": "x"}), ("ping", {})]
    assert not parse_tool_calls(stray, TOOLS).calls


@pytest.mark.parametrize(
    ("first", "unit"),
    [
        (
            "<tool_call><function=ping></para",
            "\n</parameter>\n<parameter=x>\n</function>\n</tool_call>\n<function=city>",
        ),
        ("", "<tool_call>\n<function=city>\n<parameter=name>\n</function>\n</tool_call>"),
    ],
)
def test_tags_are_read_a_bounded_number_of_times_where_closers_are_looked_for_in_vain(
    first, unit, monkeypatch
):
    steps = 0
    plain = Machine._value

    def counted(self, frame, parameter, i):
        nonlocal steps
        steps += 1
        return plain(self, frame, parameter, i)

    monkeypatch.setattr(Machine, "_value", counted)
    text = first + unit * 3000
    result = lenient(text)
    assert "".join(segment.source for segment in result.segments) == text
    assert steps < 20_000 + 8 * unit.count("<") * 3000
