"""Properties that hold for every text: total, cut-invariant, segments join, lenient above strict, fast equals
slow."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dfkeval.parsing.toolcall import CallFinished, ParseResult, ToolCallParser, write_tool_call
from dfkeval.parsing.toolcall._fast_path import Canonical
from dfkeval.testing.roundtrip import TOOLS, random_calls
from dfkeval.testing.strategies import PIECES, calls, hostile_text, tag_soup

EVERY = settings(derandomize=True, deadline=None, max_examples=400)
OPENED = "<tool_call>\n<function=file_note>\n<parameter=title>\n"
STRICT = ToolCallParser(TOOLS)
LENIENT = ToolCallParser(TOOLS, mode="lenient")
VARIANTS = [
    STRICT,
    LENIENT,
    ToolCallParser(TOOLS, mode="lenient", finished=False),
    ToolCallParser(TOOLS, prefill="think"),
    ToolCallParser(None, mode="lenient"),
    ToolCallParser(TOOLS, dialect="qwen3-coder-2507"),
    ToolCallParser(TOOLS, dialect="hermes", mode="lenient"),
]


def check(text: str) -> None:
    """What must hold for any text under any options."""
    for parser in VARIANTS:
        result = parser.parse(text)
        assert "".join(segment.source for segment in result.segments) == text
        assert all(0 <= p.span[0] <= p.span[1] <= len(text) for p in result.problems)
        assert all(text[slice(*call.span)].startswith(("<tool_call>", "<function=")) for call in result.calls)
    lenient = LENIENT.parse(text)
    assert all(call in lenient.calls for call in STRICT.parse(text).calls)


@EVERY
@given(st.text())
def test_any_text_is_parsed_without_an_error(text):
    check(text)


@EVERY
@given(tag_soup())
@example("<tool_call>\n<function=file_note>\n<parameter=title>\n<tool_call>\n<function=ping>\n</function>")
def test_text_built_from_tags_is_parsed_without_an_error(text):
    check(text)


def _random_text(rng: random.Random) -> str:
    """Built from the syntax's pieces, three times of four; else any characters, surrogates among them."""
    if rng.random() < 0.75:
        return "".join(rng.choices(PIECES, k=rng.randint(1, 14)))
    return "".join(
        chr(rng.randrange(rng.choice((0x80, 0x3000, 0x110000)))) for _ in range(rng.randint(0, 40))
    )


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_a_million_texts_are_parsed_without_an_error(part):
    rng = random.Random(part)
    for number in range(100_000):
        text = _random_text(rng)
        lenient = LENIENT.parse(text)
        assert "".join(segment.source for segment in lenient.segments) == text
        assert all(call in lenient.calls for call in STRICT.parse(text).calls)
        if number % 10 == 0:
            check(text)
            stream = LENIENT.stream()
            middle = rng.randint(0, len(text))
            stream.feed(text[:middle])
            stream.feed(text[middle:])
            assert stream.close() == lenient


@EVERY
@given(tag_soup(), st.lists(st.integers(0, 400), max_size=8), st.sampled_from(range(len(VARIANTS))))
def test_the_result_does_not_depend_on_how_the_text_is_cut(text, cuts, variant):
    parser = VARIANTS[variant]
    stream = parser.stream()
    at = 0
    for cut in [*sorted(cuts), len(text)]:
        stream.feed(text[at:cut])
        at = max(at, min(cut, len(text)))
    assert stream.close() == parser.parse(text)


@EVERY
@given(st.lists(calls(TOOLS), min_size=1, max_size=3), st.sampled_from(["qwen3.5", "qwen3.6", "qwen3.8"]))
def test_the_events_of_a_stream_are_the_calls_of_the_result(made, dialect):
    parser = ToolCallParser(TOOLS, mode="lenient", dialect=dialect)
    text = "Well.\n\n" + "\n".join(write_tool_call(name, arguments, dialect) for name, arguments in made)
    stream = parser.stream()
    events = [event for character in text for event in stream.feed(character)]
    result = stream.close()
    assert [event.call for event in events if isinstance(event, CallFinished)] == result.calls


@EVERY
@given(
    st.lists(calls(TOOLS, hostile_text()), min_size=1, max_size=2),
    st.sampled_from(["qwen3.5", "qwen3.6", "qwen3.8"]),
)
@example([("file_note", {"title": "\n</parameter>\n</function>\n</tool_call>" + OPENED})], "qwen3.5")
def test_a_call_with_hostile_strings_is_read_back_or_reported(made, dialect):
    text = "\n".join(write_tool_call(name, arguments, dialect) for name, arguments in made)
    result = ToolCallParser(TOOLS, dialect=dialect).parse(text)
    if result.ok and result.calls:  # genuine calls then, written one behind another
        written = [write_tool_call(call.name, call.arguments, dialect) for call in result.calls]
        assert [text[slice(*call.span)] for call in result.calls] == written
        assert not result.content.strip()


def _slowly(parser: ToolCallParser, text: str, monkeypatch: pytest.MonkeyPatch) -> ParseResult:
    with monkeypatch.context() as patch:
        patch.setattr(Canonical, "call", lambda self, start: None)
        return parser.parse(text)


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_the_fast_path_gives_what_the_machine_gives(level, monkeypatch):
    rng = random.Random(level)
    for _ in range(150):
        text = "\n".join(write_tool_call(name, arguments) for name, arguments in random_calls(rng, level))
        for at in (len(text), rng.randint(0, len(text))):
            for parser in (STRICT, LENIENT):
                assert parser.parse(text[:at]) == _slowly(parser, text[:at], monkeypatch)


def test_the_fast_path_gives_what_the_machine_gives_on_texts_built_from_tags(monkeypatch):
    rng = random.Random(7)
    for _ in range(3000):
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 20)))
        assert LENIENT.parse(text) == _slowly(LENIENT, text, monkeypatch)


#: Parsers that take the fast path, of tools with and without declared parameters and of none.
FAST = [
    *VARIANTS[:5],
    ToolCallParser(None),
    ToolCallParser([{"name": "g"}, {"name": "h", "parameters": {"minProperties": 2}}]),
    ToolCallParser(
        [{"name": "g", "parameters": {"patternProperties": {"^n": {"type": "integer"}}}}], mode="lenient"
    ),
]
#: What stands behind a usual call: closers in every spelling, beginnings of them, thinking, code, and text.
BEHIND = [
    "", "\n", "\n", " " * 80, "</parameter>", "\n</parameter>\n", "<\\/parameter>", "< /param\n", "</tool_call>",
    "<\\/tool_call>\n", "</FUNCTION>", "</think>\n", "\n</think>", "</div>", "</p", "</", "<", "<tool", "```\n", "`a`",
    "text\n", "\n</param", "<parameter=n>\n1\n</parameter>\n</function>\n</tool_call>\n", "<|im_end|>",
]  # fmt: skip


def _near_usual(rng: random.Random) -> str:
    """Return a few calls that are usual or nearly so, with something behind each."""
    parts = []
    for _ in range(rng.randint(1, 4)):
        name = rng.choice(["file_note", "file_note", "g", "g", "h", "h", "g/", "nobody"])
        keys = rng.choices(["title", "n", "n/", "body", "a b", "n "], k=rng.randint(0, 3))
        arguments = {key: rng.choice(["x", "5", "x", "[1]", "", "</div>", "<b>", "\n"]) for key in keys}
        call = write_tool_call(name, arguments)
        if rng.random() < 0.3:
            call = call.replace("\n", rng.choice(["", " ", "\r\n"]))
        if keys and rng.random() < 0.1:
            twice = f"<parameter={keys[0]}>\ny\n</parameter>\n</function>"
            call = call.replace("</function>", twice)
        parts.append(call + rng.choice(BEHIND))
    return "".join(parts)


def test_the_fast_path_gives_what_the_machine_gives_whatever_stands_behind_a_call(monkeypatch):
    rng = random.Random(17)
    fast = 0
    for _ in range(400):
        text = _near_usual(rng)
        for parser in FAST:
            assert parser.parse(text) == _slowly(parser, text, monkeypatch), text
            fast += Canonical(text, parser._tools, parser._anything, "auto").call(0) is not None
    assert fast > 250


def test_a_changed_byte_never_raises():
    rng = random.Random(11)
    for _ in range(1500):
        text = "\n".join(write_tool_call(name, arguments) for name, arguments in random_calls(rng, 2))
        at = rng.randrange(len(text))
        check(text[:at] + rng.choice('<>/=\n x"[]{}\\`\r') + text[at + 1 :])


def test_a_cut_call_is_never_returned_when_the_generation_was_not_finished():
    rng = random.Random(13)
    parser = ToolCallParser(TOOLS, mode="lenient", finished=False)
    for _ in range(300):
        name, arguments = random_calls(rng, 0)[0]
        text = write_tool_call(name, arguments)
        at = rng.randrange(len("<tool_call>"), len(text))
        result = parser.parse(text[:at])
        assert not result.calls
        assert result.problems[-1].status == "truncated"
