"""The server backend against a real local HTTP server that fails in every way it can."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from eval_helpers import CAPTION, DFK, gold_answers, write_rows

from dfkdata.errors import BackendError, ConfigError
from dfkeval import evaluate
from dfkeval.backends import openai
from dfkeval.backends._http import Limiter, Retry, Trouble
from dfkeval.config import EvalConfig
from dfkeval.samples import Completion, Request, Sampling

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
    (tmp_path / "p.png").write_bytes(b"the bytes")
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
    assert url == "data:image/png;base64," + base64.b64encode(b"the bytes").decode()
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
    from dfkeval.decoding import Decoded

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
    limiter = Limiter(8)
    limiter.enter()
    limiter.leave(ok=False)
    assert limiter.limit == 4.0
    for _ in range(100):
        limiter.enter()
        limiter.leave(ok=True)
    assert limiter.limit == 8.0


def test_a_retry_gives_its_place_back_while_it_waits() -> None:
    limiter = Limiter(1)
    seen: list[int] = []

    def attempt(number: int) -> str:
        if number == 0:
            raise Trouble("once", passing=True)
        return "done"

    assert Retry(3, lambda seconds: seen.append(limiter.busy)).run(attempt, limiter) == "done"
    assert seen == [0] and limiter.busy == 0
