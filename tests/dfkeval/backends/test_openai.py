"""The server backend against a real local HTTP server that fails in every way it can."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from msgspec.structs import replace
from PIL import Image

import dfkeval
from dfkdata.common.errors import BackendError, ConfigError, DataError
from dfkdata.media.images import image_size, open_image
from dfkeval import evaluate
from dfkeval.backends import openai
from dfkeval.backends._openai import protocol
from dfkeval.backends._openai.retry import RequestFailed, Retry, Servers, duration, wait_of
from dfkeval.evaluation import constraints
from dfkeval.parsing.toolcall import write_tool_call
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Completion, Constraint, Request, Sampling
from tests.helpers.pictures import KINDS
from tests.helpers.runs import CAPTION, DFK, gold_answers, write_rows

Answer = Callable[[dict[str, Any], int], tuple[int, bytes]]


def chat(text: str | None, finish: str = "stop", **more: Any) -> bytes:
    message = {"role": "assistant", "content": text} | more.pop("message", {})
    choice = {"index": 0, "message": message, "finish_reason": finish} | more
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}).encode()


class Server:
    """Answers by `answer(body, attempt)`; attempts are counted by the request's last text."""

    def __init__(self, answer: Answer) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.busy = self.most = 0
        self.lock = threading.Lock()
        attempts: dict[str, int] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None: ...

            def do_GET(self) -> None:
                self.reply(200, b"{}")

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                name = last_text(body)
                with server.lock:
                    server.bodies.append(body)
                    server.headers.append({key.lower(): value for key, value in self.headers.items()})
                    attempts[name] = attempts.get(name, 0) + 1
                    number = attempts[name]
                    server.busy += 1
                    server.most = max(server.most, server.busy)
                try:
                    status, content = answer(body, number)
                finally:
                    with server.lock:
                        server.busy -= 1
                if status == 0:
                    self.connection.close()
                    self.close_connection = True
                    return
                self.reply(status, content)

            def reply(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                if status == 429:
                    self.send_header("retry-after", "3")
                self.end_headers()
                self.wfile.write(content)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


def last_text(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return str([part.get("text") for part in content if part["type"] == "text"])


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    servers: list[Server] = []

    def start(answer: Answer) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def asked(count: int) -> list[Request]:
    return [
        Request(
            id=str(index), messages=[{"role": "user", "content": [{"type": "text", "text": f"q{index}"}]}]
        )
        for index in range(count)
    ]


def ask(
    url: str,
    requests: list[Request],
    waits: list[float] | None = None,
    sampling: Sampling | None = None,
    **more: Any,
) -> dict[str, Completion]:
    config = openai.Config(**({"base_urls": (url,), "model": "m", "timeout": 1.0} | more))
    noted = waits if waits is not None else []
    backend = openai.OpenAI(config, httpx.Client(timeout=config.timeout), sleep=noted.append)
    try:
        return {found.id: found for found in backend.generate(requests, sampling or Sampling())}
    finally:
        backend.close()


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


def test_the_wait_that_the_server_asks_for_is_kept_and_others_grow(serve: Callable[[Answer], Server]) -> None:
    waits: list[float] = []
    ask(serve(lambda body, n: (429, b"") if n <= 2 else (200, chat("x"))).url, asked(1), waits)
    assert waits == [3.0, 3.0]
    waits.clear()
    ask(serve(lambda body, n: (503, b"") if n <= 4 else (200, chat("x"))).url, asked(1), waits)
    assert len(waits) == 4
    for number, pause in enumerate(waits):
        assert 0.25 * 2**number <= pause <= 0.75 * 2**number


def test_what_will_not_pass_is_not_tried_again_and_says_why(serve: Callable[[Answer], Server]) -> None:
    server = serve(lambda body, n: (400, b'{"error": "context too long"}'))
    found = ask(server.url, asked(1))["0"]
    assert (found.finish_reason, found.text, len(server.bodies)) == ("error", "", 1)
    assert found.error is not None and "400" in found.error and "context too long" in found.error


def test_a_server_that_never_answers_gives_a_timeout_and_not_an_answer(
    serve: Callable[[Answer], Server],
) -> None:
    def slow(body: dict[str, Any], attempt: int) -> tuple[int, bytes]:
        time.sleep(0.5)
        return 200, chat("late")

    found = ask(serve(slow).url, asked(1), timeout=0.1, attempts=2)["0"]
    assert found.timed_out and found.finish_reason == "error"


def test_requests_rotate_to_another_server_when_one_fails(serve: Callable[[Answer], Server]) -> None:
    broken, good = serve(lambda body, n: (502, b"")), serve(lambda body, n: (200, chat("ok")))
    found = ask(broken.url, asked(3), base_urls=(broken.url, good.url))
    assert {each.text for each in found.values()} == {"ok"}


def test_the_request_carries_images_tools_and_settings(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    server = serve(lambda body, n: (200, chat("x")))
    (tmp_path / "p.png").write_bytes(KINDS["png"])
    parts = [{"type": "image"}, {"type": "text", "text": "q"}]
    request = Request(
        id="a",
        messages=[{"role": "user", "content": parts}],
        images=(str(tmp_path / "p.png"),),
        tools=CAPTION.tools,
    )
    ask(server.url, [request], sampling=Sampling(max_new_tokens=9, stop=("</tool_call>",), top_k=5))
    body = server.bodies[0]
    url = body["messages"][0]["content"][0]["image_url"]["url"]
    assert url == "data:image/png;base64," + base64.b64encode(KINDS["png"]).decode()
    assert body["tools"] == CAPTION.tools
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert (body["max_tokens"], body["stop"], body["top_k"], "top_p" in body) == (
        9,
        ["</tool_call>"],
        5,
        False,
    )


def test_a_missing_image_is_a_failed_request(serve: Callable[[Answer], Server]) -> None:
    request = Request(
        id="a", messages=[{"role": "user", "content": [{"type": "image"}]}], images=("nothing.png",)
    )
    found = ask(serve(lambda body, n: (200, chat("x"))).url, [request])["a"]
    assert found.finish_reason == "error" and "nothing.png" in str(found.error)


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


def test_the_key_is_sent_and_never_stored(
    serve: Callable[[Answer], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFK_TEST_KEY", "very-secret")
    answers = dict(gold_answers(DFK, 6))

    def answer(body: dict[str, Any], attempt: int) -> tuple[int, bytes]:
        found = re.search(r"Judul (\d+)", last_text(body))
        return (200, chat(answers[f"r{int(found[1]):03d}"])) if found else (400, b"")

    server = serve(answer)
    backend = {"kind": "openai", "base_urls": [server.url], "model": "m", "key": "DFK_TEST_KEY"}
    data = write_rows(tmp_path / "test.jsonl", DFK, 6)
    fields = {"data": data, "backend": backend, "metrics": ("validity", "labels"), "resamples": 200}
    run = evaluate(EvalConfig.model_validate(fields), tmp_path / "run")
    assert server.headers[0]["authorization"] == "Bearer very-secret"
    assert run.summary["metrics"]["validity.schema_valid"]["value"] == 1.0
    for path in run.folder.iterdir():
        assert "very-secret" not in path.read_text(encoding="utf-8")


def test_a_key_that_is_not_set_or_a_server_that_is_off_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DFK_TEST_KEY", raising=False)
    config = openai.Config(base_urls=("http://127.0.0.1:9/v1",), model="m", key="DFK_TEST_KEY")
    with pytest.raises(ConfigError, match="DFK_TEST_KEY is not set"):
        openai.start(config)
    with pytest.raises(BackendError, match="no server answers"):
        openai.start(config.model_copy(update={"key": None}))


def test_concurrency_is_bounded_halves_in_trouble_and_grows_again(serve: Callable[[Answer], Server]) -> None:
    def answer(body: dict[str, Any], attempt: int) -> tuple[int, bytes]:
        time.sleep(0.01)
        return 200, chat("x")

    server = serve(answer)
    ask(server.url, asked(40), concurrency=4)
    assert 1 < server.most <= 4
    servers = Servers(1, 8)
    servers.leave(servers.enter(), ok=False)
    assert servers.limits[0].limit == 4.0
    for _ in range(100):
        servers.leave(servers.enter(), ok=True)
    assert servers.limits[0].limit == 8.0


def test_a_retry_gives_its_place_back_while_it_waits_and_tries_another_server() -> None:
    servers = Servers(2, 2)
    seen: list[int] = []
    tried: list[int] = []

    def attempt(server: int) -> str:
        tried.append(server)
        if len(tried) == 1:
            raise RequestFailed("once", retryable=True)
        return "done"

    def sleep(seconds: float) -> None:
        seen.append(sum(each.busy for each in servers.limits))

    assert Retry(3, sleep).run(attempt, servers) == "done"
    assert seen == [0] and sum(each.busy for each in servers.limits) == 0
    assert sorted(tried) == [0, 1]


def test_several_servers_share_the_requests_and_a_dead_one_costs_no_answer(
    serve: Callable[[Answer], Server],
) -> None:
    def answer(body: dict[str, Any], attempt: int) -> tuple[int, bytes]:
        time.sleep(0.005)
        return 200, chat("ok")

    first, second = serve(answer), serve(answer)
    found = ask(first.url, asked(40), base_urls=(first.url, second.url), concurrency=8)
    assert len(found) == 40 and {each.text for each in found.values()} == {"ok"}
    assert min(len(first.bodies), len(second.bodies)) >= 10
    third = serve(answer)
    dead = "http://127.0.0.1:9/v1"
    found = ask(dead, asked(20), base_urls=(dead, third.url), concurrency=4)
    assert {each.text for each in found.values()} == {"ok"} and len(third.bodies) == 20


def test_a_server_whose_limit_is_spent_is_left_alone_until_the_time_it_names() -> None:
    now = [100.0]
    servers = Servers(2, 4, clock=lambda: now[0])
    servers.pause(0, 5.0)
    assert [servers.enter() for _ in range(2)] == [1, 1]
    assert servers._free(None) is None and servers._until_next() == pytest.approx(5.0)
    now[0] = 105.0
    assert servers.enter() == 0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "Wed, 25 Nov 2026 10:00:07 GMT"}, 7.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0.5s"}, 360.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": "9s"}, None),
    ],
)
def test_rate_limit_headers_are_read(headers: dict[str, str], seconds: float | None) -> None:
    from datetime import UTC, datetime

    assert wait_of(headers, datetime(2026, 11, 25, 10, 0, 0, tzinfo=UTC)) == seconds


def test_durations_are_read_whole_or_not_at_all() -> None:
    assert [duration(text) for text in ("1h2m3s", "1.5", "", "5 apples", "-1s")] == [
        3723.0,
        1.5,
        None,
        None,
        None,
    ]


TAG = Constraint(kind="structural_tag", text='{"type": "structural_tag", "format": {"type": "any_text"}}')
GRAMMAR = constraints.constraint(DFK, "constrained")
assert GRAMMAR is not None
JSON_OBJECT = Constraint(kind="json_object")
ARRAY = Constraint(kind="json_schema", text='{"type": "array"}')
SENT_ARRAY = {"name": "answer", "schema": {"type": "array"}}


@pytest.mark.parametrize(
    ("server", "wanted", "sent"),
    [
        ("vllm", GRAMMAR, {"structured_outputs": {"grammar": GRAMMAR.text}}),
        ("vllm", TAG, {"structured_outputs": {"structural_tag": TAG.text}}),
        ("sglang", GRAMMAR, {"ebnf": GRAMMAR.text}),
        ("sglang", TAG, {"response_format": json.loads(TAG.text)}),
        ("other", JSON_OBJECT, {"response_format": {"type": "json_object"}}),
        ("other", ARRAY, {"response_format": {"type": "json_schema", "json_schema": SENT_ARRAY}}),
    ],
)
def test_constraints_travel_as_the_server_reads_them(
    server: Any, wanted: Constraint, sent: dict[str, Any]
) -> None:
    request = replace(asked(1)[0], constraint=wanted)
    found = openai.body(request, Sampling(), "m", server)
    assert sent.items() <= found.items()
    free = openai.body(asked(1)[0], Sampling(), "m", server)
    assert found.keys() - free.keys() == sent.keys()


def test_a_constraint_without_a_parameter_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "test.jsonl", DFK, 2)
    backend = {"kind": "openai", "base_urls": ["http://127.0.0.1:9/v1"], "model": "m"}
    config = EvalConfig.model_validate({"data": data, "backend": backend, "modes": ["constrained"]})
    with pytest.raises(ConfigError, match=r"say backend\.server: vllm or sglang"):
        evaluate(config, tmp_path / "run")
    thinking = {"thinking": True, "thinking_budget": 5}
    config = EvalConfig.model_validate({"data": data, "backend": backend, "sampling": thinking})
    with pytest.raises(ConfigError, match="thinking_budget: this protocol has no parameter"):
        evaluate(config, tmp_path / "run")
    assert openai.body(asked(1)[0], Sampling(**thinking), "m", "vllm")["thinking_token_budget"] == 5


@pytest.mark.parametrize("wanted", [GRAMMAR, JSON_OBJECT])
def test_a_server_that_ignores_constraints_is_found_out_and_nothing_is_asked(
    serve: Callable[[Answer], Server], wanted: Constraint
) -> None:
    server = serve(lambda body, n: (200, chat("Hello!")))
    requests = [replace(each, constraint=wanted) for each in asked(3)]
    with pytest.raises(ConfigError, match="ignores the"):
        ask(server.url, requests, server="vllm")
    assert len(server.bodies) == 1


def test_a_server_that_keeps_constraints_is_probed_once(serve: Callable[[Answer], Server]) -> None:
    def answer(body: dict[str, Any], attempt: int) -> tuple[int, bytes]:
        found = re.search(r'root ::= "([^"]+)"', body["structured_outputs"]["grammar"])
        return 200, chat(
            "Label: fitnah\n\nAnalisis: x" if "v0" in body["structured_outputs"]["grammar"] else found[1]
        )

    server = serve(answer)
    requests = [replace(each, constraint=GRAMMAR) for each in asked(3)]
    found = ask(server.url, requests, server="vllm")
    assert {each.text for each in found.values()} == {"Label: fitnah\n\nAnalisis: x"}
    assert len(server.bodies) == 4


THINKS = Sampling(thinking=True)


@pytest.mark.parametrize(
    ("message", "sampling", "server", "wanted"),
    [
        ({"content": "\n\nA", "reasoning_content": "so"}, THINKS, "vllm", ("A", "so", False)),
        ({"content": "A", "reasoning": "so"}, THINKS, "other", ("A", "so", False)),
        ({"content": None, "reasoning_content": "so on"}, THINKS, "sglang", ("", "so on", True)),
        ({"content": "so\n</think>\n\nA"}, THINKS, "other", ("A", "so\n", False)),
        ({"content": "so on"}, THINKS, "vllm", ("", "so on", True)),
        ({"content": "A"}, THINKS, "other", ("A", None, False)),
        ({"content": "A"}, Sampling(), "vllm", ("A", None, False)),
    ],
)
def test_reasoning_is_told_apart_however_the_server_sends_it(
    message: dict[str, Any], sampling: Sampling, server: Any, wanted: tuple[str, str | None, bool]
) -> None:
    answer = json.loads(chat(None, message=message))
    found = openai.completion("1", answer, sampling, 0.1, server)
    assert (found.text, found.reasoning, found.unclosed_think) == wanted


GOOD = {"actions": ["run"], "setting": "outdoor"}
RAW = write_tool_call("emit_caption_schema", GOOD)


def parsed(arguments: dict[str, Any], content: str | None = None) -> bytes:
    function = {"name": "emit_caption_schema", "arguments": json.dumps(arguments)}
    return chat(
        content, finish="tool_calls", message={"tool_calls": [{"type": "function", "function": function}]}
    )


def compared(
    serve: Callable[[Answer], Server], tmp_path: Path, answer: Answer, n: int = 2
) -> tuple[Any, Server]:
    server = serve(answer)
    data = write_rows(tmp_path / "test.jsonl", CAPTION, n)
    backend = {"kind": "openai", "base_urls": [server.url], "model": "m", "tool_parsing": "compare"}
    fields = {"data": data, "backend": backend, "metrics": ("validity",), "resamples": 200}
    return evaluate(EvalConfig.model_validate(fields), tmp_path / "run"), server


def test_a_servers_parser_is_compared_with_ours_by_two_greedy_requests_and_labelled_so(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    def answer(body: dict[str, Any], attempt: int) -> tuple[int, bytes]:
        if body.get("tool_choice") == "none":
            return 200, chat(RAW.removesuffix("</tool_call>"), stop_reason="</tool_call>")
        wrong = "dog" in last_text(body)
        return 200, parsed({"actions": "run", "setting": "outdoor"} if wrong else GOOD)

    run, server = compared(serve, tmp_path, answer)
    found = run.summary["details"]["server_parsing"]
    assert (found["compared"], found["equal"], found["sources"]) == (2, 1, {"two greedy requests": 2})
    assert found["differ"][0]["ours"] == GOOD
    assert found["differ"][0]["server"][0]["arguments"] == {"actions": "run", "setting": "outdoor"}
    assert len(server.bodies) == 4
    assert [sample.text for sample in run.samples] == [RAW, RAW]
    line = "agrees with ours on 1 of 2 answers (2 from two greedy requests)"
    assert line in (run.folder / "report.md").read_text(encoding="utf-8")
    assert line in (run.folder / "report.html").read_text(encoding="utf-8")
    assert dfkeval.score(run.folder).summary == run.summary


def test_one_request_is_enough_where_the_raw_text_comes_back(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    run, server = compared(serve, tmp_path, lambda body, n: (200, parsed(GOOD, RAW)))
    found = run.summary["details"]["server_parsing"]
    assert (found["equal"], found["sources"], len(server.bodies)) == (2, {"same answer": 2}, 2)


def test_a_second_request_with_another_prompt_is_not_compared(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    def answer(body: dict[str, Any], attempt: int) -> tuple[int, bytes]:
        if body.get("tool_choice") == "none":
            return 200, chat(RAW).replace(b'"prompt_tokens": 7', b'"prompt_tokens": 5')
        return 200, parsed(GOOD)

    run, _ = compared(serve, tmp_path, answer)
    found = run.summary["details"]["server_parsing"]
    assert (found["compared"], found["sources"]) == (0, {"no raw text": 2})


def test_drawn_answers_are_not_compared(tmp_path: Path) -> None:
    config = openai.Config(base_urls=("http://127.0.0.1:9/v1",), model="m", tool_parsing="compare")
    with pytest.raises(ConfigError, match="needs two equal answers"):
        openai.check(config, Sampling(temperature=0.5), None)


def test_a_server_is_cached_under_its_declared_revision(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    server = serve(lambda body, n: (200, chat("Label: fitnah\n\nAnalisis: x")))
    data = write_rows(tmp_path / "test.jsonl", DFK, 3)
    backend = {"kind": "openai", "base_urls": [server.url], "model": "m", "revision": "r1"}
    fields = {"data": data, "backend": backend, "resamples": 200, "cache": tmp_path / "cache"}
    config = EvalConfig.model_validate(fields)
    evaluate(config, tmp_path / "one")
    evaluate(config, tmp_path / "two")
    assert len(server.bodies) == 3
    other = EvalConfig.model_validate(fields | {"backend": backend | {"revision": "r2"}})
    evaluate(other, tmp_path / "three")
    assert len(server.bodies) == 6


def test_the_report_of_a_server_says_that_its_adapter_is_unverified(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    server = serve(lambda body, n: (200, chat("Label: fitnah\n\nAnalisis: x")))
    data = write_rows(tmp_path / "test.jsonl", DFK, 2)
    backend = {"kind": "openai", "base_urls": [server.url], "model": "m"}
    run = evaluate(
        EvalConfig.model_validate({"data": data, "backend": backend, "resamples": 200}), tmp_path / "run"
    )
    for name in ("report.md", "report.html"):
        assert "unverified" in (run.folder / name).read_text(encoding="utf-8")


def test_rows_and_drawings_are_drawn_with_seeds_of_their_own_and_greedy_ones_with_the_given() -> None:
    first, second = asked(2)

    def seed(request: Request, **more: Any) -> int:
        return int(openai.body(request, Sampling(**more), "m")["seed"])

    drawn = {"temperature": 0.5, "seed": 3}
    assert seed(first, **drawn) == seed(replace(first, id="other"), **drawn)
    others = [
        seed(second, **drawn),
        seed(replace(first, draw_index=1), **drawn),
        seed(first, temperature=0.5, seed=4),
    ]
    assert len({seed(first, **drawn), *others}) == 4
    assert seed(first, seed=3) == seed(second, seed=3) == 3


def test_an_embedded_picture_travels_as_it_is() -> None:
    uri = "data:image/png;base64," + base64.b64encode(KINDS["png"]).decode()
    request = Request(id="a", messages=[{"role": "user", "content": [{"type": "image"}]}], images=(uri,))
    found = openai.body(request, Sampling(), "m")
    assert found["messages"][0]["content"][0]["image_url"]["url"] == uri


def test_a_picture_that_is_changed_when_seen_travels_as_what_training_saw(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((60, 40), 50).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGBA", (60, 40), (0, 0, 0, 0)).save(tmp_path / "b.png")
    paths = [str(tmp_path / name) for name in ("a.jpg", "b.png")]
    paths.append("data:image/png;base64," + base64.b64encode((tmp_path / "b.png").read_bytes()).decode())
    server = serve(lambda body, n: (200, chat("x")))
    turn = {"role": "user", "content": [{"type": "image"}] * 3}
    ask(server.url, [Request(id="a", messages=[turn], images=tuple(paths))])
    for part, path in zip(server.bodies[0]["messages"][0]["content"], paths, strict=True):
        data = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/png;base64,"))
        sent = Image.open(io.BytesIO(data))
        assert (sent.mode, sent.size) == ("RGB", image_size(path))
        assert sent.tobytes() == open_image(path).tobytes()


# --- tools


SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
PLAIN = {"name": "f", "description": "d"}
FUNCTION = {"type": "function", "function": PLAIN | {"parameters": SCHEMA}}
WRITTEN = {
    "OpenAI": FUNCTION, "bare": PLAIN | {"parameters": SCHEMA}, "MCP": PLAIN | {"inputSchema": SCHEMA},
    "MCP list": {"tools": [PLAIN | {"inputSchema": SCHEMA}]}, "Anthropic": PLAIN | {"input_schema": SCHEMA},
    "Gemini": {"functionDeclarations": [PLAIN | {"parametersJsonSchema": SCHEMA}]},
    "Bedrock": {"toolSpec": PLAIN | {"inputSchema": {"json": SCHEMA}}},
}  # fmt: skip


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "transformers", "other"])
@pytest.mark.parametrize("form", WRITTEN)
def test_tools_of_every_form_are_sent_in_the_protocols(form: str, dialect: Any) -> None:
    other = {"type": "function", "function": {"name": "g", "strict": True}}
    request = Request(id="r7", messages=[{"role": "user", "content": "q"}], tools=[WRITTEN[form], other])
    assert protocol.body(request, Sampling(), "m", dialect)["tools"] == [FUNCTION, other]


@pytest.mark.parametrize("tool", [5, {}, {"name": 5}, PLAIN | {"type": "web_search_20250305"},
                                  PLAIN | {"schema": SCHEMA}], ids=str)  # fmt: skip
def test_a_tool_that_cannot_be_read_is_an_error_of_its_row(tool: Any) -> None:
    request = Request(id="r7", messages=[{"role": "user", "content": "q"}], tools=[FUNCTION, tool])
    with pytest.raises(DataError, match=r"row r7: tools\[1\]: .*tool"):
        protocol.body(request, Sampling(), "m")
