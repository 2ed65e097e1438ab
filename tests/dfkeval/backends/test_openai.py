"""The server backend against a real local HTTP server that fails in every way it can."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from dfkeval.parsing.toolcall import write_tool_call
from dfkeval.types import Completion, Sampling
from tests.helpers.hostile_server import Answer, Server, ask, asked, chat, last_text
from tests.helpers.runs import CAPTION


def faulty(body: dict[str, Any], attempt: int) -> tuple[int, bytes]:
    """Every third question fails once or twice, each in another way, before it is answered."""
    index = int(last_text(body).strip("[]'q"))
    kind = index % 9
    if kind == 0 and attempt == 1:
        return 500, b"oops"
    if kind == 1 and attempt <= 2:
        return 429, b"slow down"
    if kind == 2 and attempt == 1:
        return 0, b""
    if kind == 3 and attempt == 1:
        return 200, chat("half")[:40]
    if kind == 4 and attempt == 1:
        return 200, b'{"choices": []}'
    if kind == 5 and attempt == 1:
        return 200, chat("unfinished", finish="").replace(b'""', b"null")
    if kind == 6 and attempt == 1:
        time.sleep(1.5)
    return 200, chat(f"answer {index}")


def test_the_fault_server_loses_no_sample(serve: Callable[[Answer], Server]) -> None:
    found = ask(serve(faulty).url, asked(45), concurrency=16)
    assert {name: each.text for name, each in found.items()} == {str(i): f"answer {i}" for i in range(45)}
    assert {each.finish_reason for each in found.values()} == {"stop"}
    assert found["8"].n_prompt_tokens == 7 and found["8"].n_output_tokens == 3


def lie(message: Any = None, **more: Any) -> bytes:
    choice = {"message": message if message is not None else {"content": "x"}, "finish_reason": "stop"} | more
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 7}}).encode()


LIES = [
    b"[" * 100_000, b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"choices": {"0": 1}}',
    b'{"choices": ["x"]}', b"7", b"null", b"\xff\xfe", lie({"content": 5}), lie({"content": [5, None]}),
    lie({"content": {"a": 1}}), lie(finish_reason={"a": 1}), lie([1]),
    lie({"content": "x", "tool_calls": [5]}), lie({"content": "x", "tool_calls": {"a": 1}}),
    lie({"content": "x", "tool_calls": [{"function": None}]}),
    lie({"content": None, "tool_calls": [{"function": {"name": None, "arguments": "{}"}}]}),
    lie({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}),
    lie({"content": None, "tool_calls": [{"function": {"name": "f", "parameters": {"a": "b"}}}]}),
]  # fmt: skip


@pytest.mark.parametrize("tool_parsing", ["off", "compare"])
def test_whatever_a_server_says_is_an_answer_or_a_failed_request(
    serve: Callable[[Answer], Server], tool_parsing: str
) -> None:
    server = serve(lambda body, attempt: (200, LIES[int(last_text(body).strip("[]'q"))]))
    requests = [replace(request, tools=CAPTION.tools) for request in asked(len(LIES))]
    found = ask(server.url, requests, attempts=2, tool_parsing=tool_parsing)
    assert len(found) == len(LIES)
    assert {each.finish_reason for each in found.values()} == {"error"}
    assert all("the answer" in str(each.error) for each in found.values())


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lie({"content": "half \ud83d"}), "half ?"),
        (lie({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}), "ab"),
        (lie({"content": None}), ""),
        (lie({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "[" * 100_000}}]}),
         f'<tool_call>\n{{"name": "f", "arguments": "{"[" * 100_000}"}}\n</tool_call>'),
        (lie({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"a": "b"}}}]}),
         write_tool_call("f", {"a": "b"})),
    ],
)  # fmt: skip
def test_odd_but_readable_answers_are_text_that_a_file_can_hold(
    serve: Callable[[Answer], Server], answer: bytes, text: str
) -> None:
    found = ask(serve(lambda body, attempt: (200, answer)).url, asked(1))["0"]
    assert (found.error, found.text) == (None, text)
    assert (found.n_prompt_tokens, found.n_output_tokens) == (7, None)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Completion) == found


def test_counts_that_are_no_numbers_of_tokens_are_not_known(serve: Callable[[Answer], Server]) -> None:
    for usage in ('{"prompt_tokens": "many", "completion_tokens": -5}', "[1]", '{"prompt_tokens": NaN}', "7"):
        said = b'{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": %s}'
        answer = said % usage.encode()
        found = ask(serve(lambda body, attempt, answer=answer: (200, answer)).url, asked(1))["0"]  # type: ignore[misc]
        assert (found.text, found.n_prompt_tokens, found.n_output_tokens) == ("x", None, None)


def test_an_answer_without_end_is_given_up(serve: Callable[[Answer], Server]) -> None:
    server = serve(lambda body, attempt: (200, chat("x" * (33 << 20))))
    found = ask(server.url, asked(1), timeout=10.0)["0"]
    assert found.error == "the answer is larger than 32 MiB" and len(server.bodies) == 1


CALL = "<tool_call>\n<function=f>\n</function>\n"


@pytest.mark.parametrize(
    ("more", "text", "restored"),
    [
        ({"stop_reason": "</tool_call>"}, CALL, "</tool_call>"),
        ({"matched_stop": "</tool_call>"}, CALL, "</tool_call>"),
        ({}, CALL, "</tool_call>"),
        ({}, CALL + "</tool_call>", None),
        ({"stop_reason": 248046}, CALL, None),
        ({"stop_reason": None}, CALL, None),
        ({}, "no call", None),
        ({"finish": "length"}, CALL, None),
    ],
)
def test_a_stop_string_that_the_server_dropped_is_put_back(
    serve: Callable[[Answer], Server], more: dict[str, Any], text: str, restored: str | None
) -> None:
    server = serve(lambda body, n: (200, chat(text, **more)))
    found = ask(server.url, asked(1), sampling=Sampling(stop=("</tool_call>",)))["0"]
    assert found.restored_stop == restored
    assert found.text == text + (restored or "")


def test_a_call_that_the_server_parsed_is_written_back_and_marked(serve: Callable[[Answer], Server]) -> None:
    function = {"name": "emit_caption_schema", "arguments": '{"actions": ["run"], "setting": "outdoor"}'}
    message = {"tool_calls": [{"type": "function", "function": function}]}
    server = serve(lambda body, n: (200, chat(None, finish="tool_calls", message=message)))
    found = ask(server.url, asked(1))["0"]
    assert found.server_parsed
    from dfkeval import decode
    from dfkeval.parsing.decode import Decoded

    read = decode(found.text, "caption")
    assert isinstance(read, Decoded) and read.value["actions"] == ["run"]
