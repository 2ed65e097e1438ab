"""Properties that must hold whatever the tools' schemas say: random schemas, values that are easy to take for
another, tags in odd places."""

from __future__ import annotations

import random
from typing import Any

import pytest

from dfkeval.parsing.toolcall import ToolCallParser, parse_tool_calls, write_tool_call
from dfkeval.parsing.toolcall._fast_path import Canonical

TEXT: dict[str, Any] = {"type": "string"}
ENTRY = {"type": "object", "properties": {"k": TEXT}, "required": ["k"], "additionalProperties": False}
PARTS: list[dict[str, Any]] = [
    TEXT,
    {},
    {"const": "z"},
    {"enum": ["a", 1, None]},
    {"type": "array", "items": ENTRY},
    *({"type": name} for name in ("integer", "number", "boolean", "object")),
    *({"type": [name, "string"]} for name in ("null", "integer", "array", "object")),
]
VALUES = (
    'x|1|1e2|None|null|True| a |z||[1]|[]|{}|[\'a\']|[{"k": "v"}]|"[1]"|{\'k\': \'v\'}|{"k": 1, "k": 2}|`|'
    "</p0>|x\n</parameter>\ny|\n</parameter>\n</function>|\n<parameter=p1>\n|\n<tool_call>\n<function=f>\n|\n</think>\n"
).split("|")
TAGS = (
    "<tool_call>|<function=f>|<parameter=p0>|<parameter=p1>|</parameter>|</function>|</tool_call>|</param|"
    "</parameter1>|</tool|<function|<think>|</think>|```|<|im_end>|\n|\r\n| |{}"
).split("|")
NAMES = ("p0", "p1", "p2")


def _tools(rng: random.Random) -> list[dict[str, Any]]:
    properties = {name: rng.choice(PARTS) for name in NAMES}
    made = {"type": "object", "properties": properties, "required": rng.sample(NAMES, rng.randint(0, 2))}
    extra = rng.choice(("additionalProperties", "oneOf", "patternProperties", "allOf", "title"))
    made[extra] = {
        "additionalProperties": rng.choice((False, {"type": "integer"})),
        "oneOf": [{"properties": {"p0": rng.choice(PARTS)}, "required": [name]} for name in ("p0", "p1")],
        "patternProperties": {"^q": rng.choice(PARTS)},
        "allOf": [{"properties": {"p2": rng.choice(PARTS)}}],
        "title": "plain",
    }[extra]
    return [{"name": "f", "parameters": made}]


def _text(rng: random.Random) -> str:
    pieces = []
    for _ in range(rng.randint(1, 3)):
        keys = rng.sample((*NAMES, "q"), rng.randint(0, 3))
        call = write_tool_call(
            "f", {key: "".join(rng.choices(VALUES, k=rng.choice((1, 1, 2)))) for key in keys}
        )
        soup = "".join(rng.choices(TAGS + VALUES, k=rng.randint(1, 12)))
        at = rng.randrange(len(call))
        pieces.append(rng.choice((call, call, soup, call[:at] + rng.choice(TAGS) + call[at + 3 :])))
    return rng.choice(("\n", "", " and ")).join(pieces)


@pytest.mark.parametrize("seed", range(6))
def test_what_holds_for_one_schema_holds_for_all(seed, monkeypatch):
    rng = random.Random(seed)
    for _ in range(60):
        tools, finished = _tools(rng), rng.random() < 0.7
        strict, lenient = (ToolCallParser(tools, mode, finished=finished) for mode in ("strict", "lenient"))
        for text in (_text(rng) for _ in range(8)):
            good = lenient.parse(text)
            assert all(call in good.calls for call in strict.parse(text).calls)
            for parser in (strict, lenient):
                result, stream = parser.parse(text), parser.stream()
                for at in range(0, len(text), 5):
                    stream.feed(text[at : at + 5])
                assert stream.close() == result
                assert all(parser._tools["f"].validator.is_valid(call.arguments) for call in result.calls)
                with monkeypatch.context() as patch:
                    patch.setattr(Canonical, "call", lambda self, start: None)
                    assert parser.parse(text) == result


def test_a_name_that_a_part_of_the_schema_describes_once_more_must_fit_both():
    schema = {
        "type": "object",
        "properties": {"v": {"type": "number"}},
        "allOf": [{"properties": {"v": {"type": "array"}}}],
    }
    for value in (1, [1]):
        read = parse_tool_calls(write_tool_call("f", {"v": value}), [{"name": "f", "parameters": schema}])
        assert [problem.json_pointer for problem in read.problems] == ["/v"]


def test_a_usual_call_behind_an_opener_that_opens_nothing_is_not_trusted_in_strict_mode():
    call = write_tool_call("f", {"v": "x"})
    text = "<tool_call>\nsome words and " + call
    tools = [{"name": "f", "parameters": {"type": "object", "properties": {"v": TEXT}}}]
    assert [problem.code for problem in parse_tool_calls(text, tools).problems] == [
        "no_function",
        "inside_malformed",
    ]
    assert [call.arguments for call in parse_tool_calls(text, tools, "lenient").calls] == [{"v": "x"}]
