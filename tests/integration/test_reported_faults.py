"""Inputs that public bug reports of parsers, servers and harnesses name: none of them is taken wrongly.

One more, an interval of width zero, is tried in tests/dfkeval/analysis/test_intervals.py."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from dfkdata.common.errors import BackendError
from dfkdata.common.json_schema import SchemaError
from dfkeval.backends import openai
from dfkeval.parsing.toolcall import ToolCallParser, write_tool_call
from dfkeval.types import Completion, Request, Sampling
from tests.helpers.servers import chat, events

TEXT, INT = {"type": "string"}, {"type": "integer"}


def tool(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "f", "parameters": {"type": "object", "properties": properties, **more}}


def behind_reference(part: dict[str, Any]) -> dict[str, Any]:
    """Return a tool whose parameter x is an object with y, which only a reference leads to."""
    return tool({"x": {"$ref": "#/$defs/D"}}, **{"$defs": {"D": {"type": "object", **part}}})


def layers(count: int) -> dict[str, Any]:
    """Return a tool whose parameter x is described by `count` layers that each name the next one twice."""
    named = {f"D{at}": {"allOf": [{"$ref": f"#/$defs/D{at + 1}"}] * 2} for at in range(count)}
    return tool({"x": {"$ref": "#/$defs/D0"}}, **{"$defs": named | {f"D{count}": TEXT}})


NO_SCHEMA: list[dict[str, Any]] = [
    tool({"x": {"type": "integer", "multipleOf": 0}}),
    *(
        behind_reference({"properties": {"y": part}})
        for part in (
            {"$dynamicRef": "#n"}, {"minLength": "x"}, {"type": 5}, {"enum": 5}, {"items": 7}, {"multipleOf": 0},
        )
    ),
    tool({"x": {"type": "integer", "minimum": "3"}}),
    tool({"x": {"type": "string", "minLength": "3"}}),
    {"name": "f", "parameters": {"type": "array", "items": INT}},
]  # fmt: skip

#: (tool, what is written, what it is read as; None: the value is invalid)
CALLS: list[tuple[dict[str, Any], dict[str, str], dict[str, Any] | None]] = [
    (tool({"x": {"type": "number", "multipleOf": 0.1}}), {"x": "1e30"}, {"x": 1e30}),
    (tool({"x": {"type": "number", "multipleOf": 0.5}}), {"x": "1" + 40 * "0"}, {"x": 10**40}),
    (tool({"x": {"type": "number", "multipleOf": 0.5}}), {"x": "1e308"}, {"x": 1e308}),
    (tool({"x": {"type": "number", "multipleOf": 0.5}}), {"x": 3 * "1234567890"}, {"x": int(3 * "1234567890")}),
    (behind_reference({"properties": {"y": {"pattern": r"^\p{L}+$"}}}), {"x": '{"y": "ä"}'}, {"x": {"y": "ä"}}),
    (behind_reference({"properties": {"y": {"pattern": r"^\p{L}+$"}}}), {"x": '{"y": "1"}'}, None),
    (behind_reference({"properties": {"y": {"pattern": "(?<w>a)"}}}), {"x": '{"y": "b"}'}, None),
    (behind_reference({"properties": {"y": {}}, "unevaluatedProperties": False}), {"x": '{"z": 1}'}, None),
    ({"name": "f", "inputSchema": {"type": "object", "properties": {"n": INT}, "required": ["n"]}}, {"n": "5"},
     {"n": 5}),
    ({"name": "f", "inputSchema": {"type": "object", "properties": {"n": INT}, "required": ["n"]}}, {}, None),
    ({"name": "f", "input_schema": {"type": "object", "properties": {"n": INT}}}, {"n": "abc"}, None),
    ({"function": {"name": "f", "parameters": {"n": INT}}}, {"n": "abc"}, None),
    (tool({"t": {"type": "integer", "minimum": 0, "exclusiveMinimum": True}}), {"t": "0"}, None),
    (tool({"a": INT, "b": INT}, dependencies={"a": ["b"]}), {"a": "1"}, None),
    (tool({"x": {"type": "string", "pattern": "^[a-z]+$"}}), {"x": "abc\n"}, None),
    (tool({"x": {"type": "string", "pattern": r"^\d+$"}}), {"x": "\u0663\u0664"}, None),
    (tool({"x": {"type": "string", "pattern": "^.+$"}}), {"x": "a\u2028b"}, None),
    (tool({"c": INT}, dependentSchemas={"c": {"properties": {"b": INT}, "required": ["b"]}}), {"c": "1", "b": "5"},
     {"c": 1, "b": 5}),
    (layers(16), {"x": "a"}, {"x": "a"}),
]  # fmt: skip


@pytest.mark.parametrize("definition", NO_SCHEMA, ids=repr)
def test_a_schema_that_cannot_be_used_is_refused_when_the_parser_is_made(definition: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match="tool 'f'"):
        ToolCallParser([definition])


@pytest.mark.parametrize("mode", ["strict", "lenient"])
@pytest.mark.parametrize(("definition", "written", "wanted"), CALLS, ids=str)
def test_a_value_is_what_its_schema_says_or_invalid(
    definition: Any, written: Any, wanted: Any, mode: Any
) -> None:
    result = ToolCallParser([definition], mode=mode).parse(write_tool_call("f", written))
    assert [call.arguments for call in result.calls] == ([] if wanted is None else [wanted])
    assert {problem.status for problem in result.problems} == (set() if wanted else {"invalid"})


@pytest.mark.parametrize("key", ["parameters", "args", "input", "Arguments"])
def test_arguments_under_another_key_are_not_lost(key: str) -> None:
    text = f'<tool_call>\n{{"name": "f", "{key}": {{"path": "a.txt"}}}}\n</tool_call>'
    strict, lenient = (
        ToolCallParser([tool({"path": TEXT})], mode=mode, dialect="hermes").parse(text)
        for mode in ("strict", "lenient")
    )
    assert (strict.calls, [problem.code for problem in strict.problems]) == ([], ["unknown_key"])
    [call] = lenient.calls
    assert (call.arguments, call.repairs) == ({"path": "a.txt"}, ("arguments_key",))


@pytest.mark.parametrize(
    ("behind", "arguments", "repair"),
    [
        (f"=city>\nOslo\n{closer}\n<parameter=n>\n5\n</parameter>", {"city": "Oslo", "n": 5}, "drifted_closer")
        for closer in ("</parameter/>", "</ parameter>", "</PARAMETER>")
    ] + [("=city/>", {"city": ""}, "self_closed_opener")],
)  # fmt: skip
def test_a_misspelled_tag_is_mended_by_name(behind: str, arguments: dict[str, Any], repair: str) -> None:
    text = f"<tool_call>\n<function=f>\n<parameter{behind}\n</function>\n</tool_call>"
    [call] = ToolCallParser([tool({"city": TEXT, "n": INT})], mode="lenient").parse(text).calls
    assert (call.arguments, call.repairs) == (arguments, (repair,))


def ask(content: bytes, *, stream: bool = False) -> tuple[Completion, int]:
    """Return what the backend makes of one answer that comes again and again, and how often it asked."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        kind = "text/event-stream" if stream else "application/json"
        return httpx.Response(200, headers={"content-type": kind}, content=content)

    config = openai.Config(
        base_urls=("http://server/v1",), model="m", revision="r", stream=stream, attempts=3
    )
    client = httpx.Client(transport=httpx.MockTransport(answer))
    backend = openai.OpenAI(config, client, sleep=lambda seconds: None)
    question = Request(id="a", messages=[{"role": "user", "content": [{"type": "text", "text": "q"}]}])
    [found] = backend.generate([question], Sampling())
    backend.close()
    return found, len(asked)


def whole(reason: str, **choice: Any) -> bytes:
    return json.dumps(chat("half an answer", reason, **choice)).encode()


def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


@pytest.mark.parametrize(
    ("content", "stream"),
    [
        (whole("abort"), False), (whole("error"), False),
        (whole("error", error={"code": 502, "message": "upstream"}), False),
        (events([chunk({"content": "half"}, ""), chunk({"content": " an"}, "")], done=False), True),
    ],
)  # fmt: skip
def test_an_answer_that_did_not_end_is_asked_again_and_never_kept(content: bytes, stream: bool) -> None:
    found, asked = ask(content, stream=stream)
    assert (found.text, found.finish_reason, asked) == ("", "error", 3)


def test_a_filtered_answer_did_not_end_by_itself() -> None:
    found, asked = ask(whole("content_filter"))
    assert (found.finish_reason, asked) == ("content_filter", 1)


@pytest.mark.parametrize("second", ["f", "g"])
def test_streamed_calls_of_one_index_and_two_ids_are_two_calls(second: str) -> None:
    def call(name: str, number: int) -> dict[str, Any]:
        function = {"name": name, "arguments": json.dumps({"x": number})}
        return chunk({"tool_calls": [{"index": 0, "id": f"call {number}", "function": function}]})

    found, _ = ask(events([call("f", 1), call(second, 2), chunk({}, "tool_calls")]), stream=True)
    result = ToolCallParser([{**tool({"x": INT}), "name": name} for name in "fg"]).parse(found.text)
    assert [(each.name, each.arguments) for each in result.calls] == [("f", {"x": 1}), (second, {"x": 2})]


def test_a_spent_account_ends_the_run_though_the_server_says_200() -> None:
    with pytest.raises(BackendError, match="Insufficient balance"):
        ask(json.dumps({"error": {"message": "Insufficient balance", "code": 402}}).encode())


def test_a_byte_order_mark_before_a_stream_is_no_data() -> None:
    found, asked = ask(b"\xef\xbb\xbf" + events([chunk({"content": "x"}), chunk({}, "stop")]), stream=True)
    assert (found.text, asked) == ("x", 1)
