"""Streamed answers: the same as whole ones however they are cut, and never half of one."""

from __future__ import annotations

import json
import random
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dfkeval import evaluate
from dfkeval.backends import openai
from dfkeval.backends._openai import response
from dfkeval.backends._openai import stream as _stream
from dfkeval.backends._openai.retry import RequestFailed
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Completion, LabelSlot, Request, Sampling
from tests.helpers.runs import CAPTION, DFK, gold_answers, write_rows

Choice = dict[str, Any]
TEXT = 'Label: fitnah\r\n\n"Isi" \u2028 kata\u0085 naïve 😀👩‍👩‍👧 </tool_call>'
ARGUMENTS = json.dumps({"actions": ["lari 😀"], "setting": "outdoor"}, ensure_ascii=False)


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"type": "function", "id": "c", "function": {"name": name, "arguments": arguments}}


LOGPROBS = {"content": [{"token": "Label:", "logprob": -0.1, "top_logprobs": []},
                        {"token": " satu", "logprob": -0.2,
                         "top_logprobs": [{"token": " dua", "logprob": -1.7}]}]}  # fmt: skip
#: Choices as a server gives them whole.
WHOLE: dict[str, Choice] = {
    "text": {"message": {"content": TEXT}, "finish_reason": "stop"},
    "nothing": {"message": {"content": None}, "finish_reason": "stop"},
    "cut": {"message": {"content": "Label: fit"}, "finish_reason": "length"},
    "stop string": {"message": {"content": "<tool_call>\n<function=f>\n</function>\n"},
                    "finish_reason": "stop", "stop_reason": "</tool_call>"},
    "end of turn": {"message": {"content": "<tool_call>\n<function=f>"}, "finish_reason": "stop",
                    "stop_reason": None},
    "matched": {"message": {"content": "<tool_call>\n"}, "finish_reason": "stop",
                "matched_stop": "</tool_call>"},
    "call": {"message": {"content": None, "tool_calls": [call("emit", ARGUMENTS)]},
             "finish_reason": "tool_calls"},
    "calls": {"message": {"content": "Baik. ", "tool_calls": [call("a", "{}"), call("b", ARGUMENTS)]},
              "finish_reason": "tool_calls"},
    "no arguments": {"message": {"content": "", "tool_calls": [call("a", None)]},
                     "finish_reason": "tool_calls"},
    "an object": {"message": {"content": "", "tool_calls": [call("a", {"b": [1]})]},
                  "finish_reason": "tool_calls"},
    "half a call": {"message": {"content": None, "tool_calls": [call("emit", '{"actions": ["la')]},
                    "finish_reason": "length"},
    "reasoning": {"message": {"content": "\n\nA", "reasoning_content": "so 😀"}, "finish_reason": "stop"},
    "unclosed": {"message": {"content": None, "reasoning": "so on"}, "finish_reason": "length"},
    "labels": {"message": {"content": "Label: satu"}, "finish_reason": "stop", "logprobs": LOGPROBS},
    "half a character": {"message": {"content": "x \ud83d y"}, "finish_reason": "stop"},
}  # fmt: skip
USAGE = {"prompt_tokens": 7, "completion_tokens": 3}


def pieces(rng: random.Random, text: str) -> list[str]:
    """`text` in UTF-16 units or larger pieces, as servers cut it."""
    units = text.encode("utf-16-le", "surrogatepass")
    cuts = sorted({0, len(units), *(2 * rng.randrange(len(units) // 2 + 1) for _ in range(rng.randrange(6)))})
    return [units[a:b].decode("utf-16-le", "surrogatepass") for a, b in pairwise(cuts)]


def chunks(rng: random.Random, choice: Choice) -> Iterator[dict[str, Any]]:
    """The choice as the chunks of a stream."""

    def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, **more}]}

    message = choice["message"]
    yield chunk({"role": "assistant", "content": "" if message["content"] is not None else None},
                finish_reason=None)  # fmt: skip
    for name in ("reasoning_content", "reasoning", "content"):
        for piece in pieces(rng, message.get(name) or ""):
            yield chunk({name: piece}, finish_reason=None)
    for step in (choice.get("logprobs") or {}).get("content", ()):
        yield chunk({"content": ""}, logprobs={"content": [step]})
    for place, each in enumerate(message.get("tool_calls") or ()):
        function = each["function"]
        yield chunk({"tool_calls": [each | {"index": place, "function": {"name": function["name"]}}]})
        arguments = function["arguments"]
        whole = [arguments] if not isinstance(arguments, str) else pieces(rng, arguments)
        for piece in whole:
            yield chunk({"tool_calls": [{"index": place, "function": {"arguments": piece}}]})
    ends = {key: choice[key] for key in ("finish_reason", "stop_reason", "matched_stop") if key in choice}
    yield chunk({}, **ends)
    yield {"object": "chat.completion.chunk", "choices": [], "usage": USAGE}


def sent(rng: random.Random, choice: Choice, end: str = "\n") -> bytes:
    """The stream of a choice, with comments and fields that say nothing."""
    out = []
    for each in chunks(rng, choice):
        out.append(rng.choice(["", f": keep-alive{end}{end}", f"event: message{end}", f"id: 7{end}"]))
        text = json.dumps(each, ensure_ascii=rng.random() < 0.5 or "\ud83d" in str(each))
        try:
            text.encode()
        except UnicodeEncodeError:
            text = json.dumps(each)
        out.append(f"data:{rng.choice(['', ' '])}{text}{end}{end}")
    return "".join([*out, f"data: [DONE]{end}{end}"]).encode()


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    places = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice([0, 3, len(data)])))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def as_completion(answer: dict[str, Any], thinking: bool) -> Completion:
    sampling = Sampling(thinking=thinking, stop=("</tool_call>",))
    slot = LabelSlot(marker="Label: ", written={"x": "satu", "y": "dua"}, closing="")
    found = openai.completion("a", answer, sampling, 1.0, "vllm")
    return replace(found, label_probs=openai.label_probs(answer, Request(id="a", messages=[], slot=slot)))


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_stream_is_the_answer_that_would_have_come_whole(name: str, end: str) -> None:
    choice = WHOLE[name]
    body = json.dumps({"choices": [{"index": 0, **choice}], "usage": USAGE}).encode()
    want = as_completion(response.checked(body), "reasoning" in str(choice))
    for seed in range(12):
        rng = random.Random(f"{name}{end}{seed}")
        found = _stream.read(cut(rng, sent(rng, choice, end)), lambda: 0.5)
        assert as_completion(found.answer, "reasoning" in str(choice)) == want
        assert found.first == (None if name == "nothing" else 0.5)
    assert (want.n_prompt_tokens, want.n_output_tokens) == (7, 3)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"data: a", b"data", b": c", b"data:[DONE]", b"x"])),
       st.integers(0, 99))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_where_bytes_are_cut_changes_no_event(words: list[bytes], seed: int) -> None:
    data = b"".join(words)
    whole = list(_stream.events([data]))
    assert list(_stream.events([data[at : at + 1] for at in range(len(data))])) == whole
    assert list(_stream.events(cut(random.Random(seed), data))) == whole


def test_events_are_read_by_the_standard_s_rules() -> None:
    data = (
        b"data: a\ndata:b\n\n: c\n\nevent: x\ndata\n\nid: 1\n\ndata: \xc3\xa9 \xe2\x80\xa8\n\ndata: no end\n"
    )
    assert list(_stream.events([data])) == [b"a\nb", b"", "é \u2028".encode()]


def delta(**found: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": found}]}).encode() + b"\n\n"


FINISH = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'


def test_a_call_without_index_or_with_its_name_repeated_is_still_one_call() -> None:
    named = [
        delta(tool_calls=[{"function": {"name": "f", "arguments": '{"a":'}}]),
        delta(tool_calls=[{"function": {"arguments": " 1}"}}]),
        delta(tool_calls=[{"function": {"name": "g", "arguments": "{}"}}]),
        FINISH,
    ]
    calls = _stream.read(named, lambda: 0.0).answer["choices"][0]["message"]["tool_calls"]
    assert [each["function"] for each in calls] == [{"name": "f", "arguments": '{"a": 1}'},
                                                     {"name": "g", "arguments": "{}"}]  # fmt: skip
    again = [delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": part}}]) for part in "{}"]
    calls = _stream.read([*again, FINISH], lambda: 0.0).answer["choices"][0]["message"]["tool_calls"]
    assert [each["function"] for each in calls] == [{"name": "f", "arguments": "{}"}]


def test_counts_are_kept_wherever_they_come() -> None:
    early = FINISH.replace(b"}]}", b'}], "usage": {"prompt_tokens": 7}}')
    found = _stream.read(
        [delta(content="x"), early, b'data: {"choices": [], "usage": null}\n\n'], lambda: 0.0
    )
    assert found.answer["usage"] == {"prompt_tokens": 7}


BROKEN = [
    b"", b"data: [DONE]\n\n", delta(content="half"), delta(content="half") + b"data: [DONE]\n\n",
    delta(content="x") + b"data: {\"choices\": [{\"delta\"\n\n" + FINISH, b"data: 7\n\n" + FINISH,
    b"data: " + b"[" * 100_000 + b"\n\n", b"\xff\xfe\x00", b"data: \xff\xfe\n\n" + FINISH,
    b'data: {"choices": 5}\n\n' + FINISH, b'data: {"choices": ["x"]}\n\n' + FINISH,
    b'data: {"choices": [{"delta": [1]}]}\n\n' + FINISH, delta(content=5) + FINISH,
    delta(tool_calls=[5]) + FINISH, delta(tool_calls=5) + FINISH, delta(tool_calls=[{}]) + FINISH,
    delta(tool_calls=[{"index": "0", "function": {"name": "f"}}]) + FINISH,
    delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]) + FINISH,
    delta(tool_calls=[{"index": 0, "function": {"name": 5, "arguments": "{}"}}]) + FINISH,
    delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": ["x"]}}]) + FINISH,
    delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": {}}},
                      {"index": 0, "function": {"arguments": "x"}}]) + FINISH,
    b'data: {"choices": [{"delta": {}, "logprobs": {"content": 3}}]}\n\n' + FINISH,
    FINISH.replace(b'"stop"', b'{"a": 1}'), FINISH.replace(b"\n\n", b"\n"),
]  # fmt: skip


@pytest.mark.parametrize("data", BROKEN, ids=range(len(BROKEN)))
def test_a_stream_that_is_half_an_answer_or_none_may_be_asked_again(data: bytes) -> None:
    with pytest.raises(RequestFailed, match="the answer") as failed:
        _stream.read([data], lambda: 0.0)
    assert failed.value.retryable


@pytest.mark.parametrize(
    ("fault", "retryable"),
    [('"overloaded"', True), ('{"message": "m", "code": 503}', True), ('{"code": 400}', False),
     ('{"code": "rate_limit"}', True), ('{"code": 429}', True)],
)  # fmt: skip
def test_an_error_that_the_stream_reports_is_trouble(fault: str, retryable: bool) -> None:
    with pytest.raises(RequestFailed, match="ended with an error") as failed:
        _stream.read([delta(content="half"), f'data: {{"error": {fault}}}\n\n'.encode()], lambda: 0.0)
    assert failed.value.retryable is retryable


# --- over a connection

Script = Sequence[bytes | float]  # what is sent, and seconds to wait before the next


class Server:
    """Sends scripts. framing: "chunked", "close" (the end of the connection is the end), or "broken" (chunked
    without its end)."""

    def __init__(self, script: Callable[[dict[str, Any], int], tuple[str, str, Script]]) -> None:
        self.bodies: list[dict[str, Any]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None: ...

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.bodies.append(body)
                kind, framing, parts = script(body, len(server.bodies))
                self.send_response(200)
                self.send_header("content-type", kind)
                chunked = framing != "close"
                self.send_header(*(("transfer-encoding", "chunked") if chunked else ("connection", "close")))
                self.end_headers()
                for part in parts:
                    if isinstance(part, float):
                        time.sleep(part)
                    elif part:
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
                        self.wfile.flush()
                if framing == "chunked":
                    self.wfile.write(b"0\r\n\r\n")
                else:
                    self.close_connection = True

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *arguments: object) -> None: ...  # a client that hangs up is expected

        self.http: socketserver.BaseServer = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"  # type: ignore[index]
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(script: Any) -> Server:
        servers.append(Server(script))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


SSE = "text/event-stream; charset=utf-8"
QUESTION = [{"role": "user", "content": [{"type": "text", "text": "q"}]}]


def ask(url: str, **more: Any) -> list[Completion]:
    fields = {"base_urls": (url,), "model": "m", "timeout": 2.0, "stream": True, "attempts": 3}
    config = openai.Config.model_validate(fields | more)
    backend = openai.OpenAI(config, httpx.Client(timeout=config.timeout), sleep=lambda seconds: None)
    asked = [Request(id="a", messages=QUESTION, tools=CAPTION.tools)]
    try:
        return list(backend.generate(asked, Sampling(stop=("</tool_call>",))))
    finally:
        backend.close()


OPENING = b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n'


def test_the_first_token_is_timed_when_it_comes() -> None:
    """The opening chunk, which has a role and no text, is none."""
    now = [0]

    def parts() -> Iterator[bytes]:
        for now[0], part in enumerate(
            [OPENING, delta(content="Label"), delta(content=": x"), FINISH], start=1
        ):
            yield part

    assert _stream.read(parts(), lambda: now[0]).first == 2.0


def test_a_stream_is_asked_for_and_timed(serve: Callable[..., Server]) -> None:
    parts = [OPENING, 0.1, delta(content="Label"), delta(content=": x"), FINISH, b"data: [DONE]\n\n"]
    server = serve(lambda body, n: (SSE, "chunked", parts))
    found = ask(server.url)[0]
    assert (found.text, found.finish_reason) == ("Label: x", "stop")
    assert found.first_token_seconds is not None and found.seconds is not None
    assert 0.1 <= found.first_token_seconds <= found.seconds
    assert server.bodies[0]["stream"] is True
    assert server.bodies[0]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("name", WHOLE)
def test_over_a_connection_too_the_answers_are_equal(serve: Callable[..., Server], name: str) -> None:
    rng = random.Random(name)

    def script(body: dict[str, Any], attempt: int) -> tuple[str, str, Script]:
        if body.get("stream"):
            return SSE, "chunked", cut(rng, sent(rng, WHOLE[name]))
        whole = {"choices": [{"index": 0, **WHOLE[name]}], "usage": USAGE}
        return "application/json", "chunked", [json.dumps(whole).encode()]

    server = serve(script)
    streamed, whole = (ask(server.url, stream=stream)[0] for stream in (True, False))
    assert whole.error is None and whole.first_token_seconds is None
    same = {"seconds": None, "first_token_seconds": None}
    assert replace(streamed, **same) == replace(whole, **same)


@pytest.mark.parametrize("framing", ["broken", "close"])
def test_a_stream_that_breaks_is_asked_again_and_none_of_it_is_kept(
    serve: Callable[..., Server], framing: str
) -> None:
    def script(body: dict[str, Any], attempt: int) -> tuple[str, str, Script]:
        if attempt < 3:
            return SSE, framing, [delta(content="half")]
        return SSE, "chunked", [delta(content="whole"), FINISH, b"data: [DONE]\n\n"]

    server = serve(script)
    assert [each.text for each in ask(server.url)] == ["whole"]
    assert len(server.bodies) == 3
    lost = ask(serve(lambda body, n: (SSE, framing, [delta(content="half")])).url)[0]
    assert (lost.text, lost.finish_reason, lost.first_token_seconds) == ("", "error", None)
    assert lost.error


def test_a_stream_that_drips_without_end_is_a_timeout(serve: Callable[..., Server]) -> None:
    """Each byte comes in time, the answer never does; the same for an answer that is asked whole."""
    drip: Script = [part for _ in range(100) for part in (b": still here\n\n", 0.05)]
    server = serve(lambda body, n: (SSE if body.get("stream") else "application/json", "chunked", drip))
    for stream in (True, False):
        found = ask(server.url, timeout=0.3, attempts=1, stream=stream)[0]
        assert found.timed_out and found.error == "no answer in 0.3 s"
        assert found.seconds is not None and found.seconds < 3


def test_a_stream_without_end_is_given_up(serve: Callable[..., Server]) -> None:
    endless: Script = [delta(content="x" * (1 << 20))] * 40
    server = serve(lambda body, n: (SSE, "chunked", endless))
    assert ask(server.url, timeout=20.0)[0].error == "the answer is larger than 32 MiB"
    assert len(server.bodies) == 1


def test_a_server_that_does_not_stream_answers_whole(serve: Callable[..., Server]) -> None:
    whole = json.dumps({"choices": [WHOLE["text"]], "usage": USAGE}).encode()
    found = ask(serve(lambda body, n: ("application/json", "chunked", [whole])).url)[0]
    assert (found.text, found.first_token_seconds) == (TEXT, None)


def test_what_follows_the_end_is_not_waited_for(serve: Callable[..., Server]) -> None:
    parts: Script = [delta(content="x"), FINISH, b"data: [DONE]\n\n", 3.0]
    found = ask(serve(lambda body, n: (SSE, "chunked", parts)).url)[0]
    assert found.text == "x" and found.seconds is not None and found.seconds < 2


def test_a_run_records_the_time_to_the_first_token_and_streams_share_the_cache_with_whole_answers(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    answers = dict(gold_answers(DFK, 4))

    def script(body: dict[str, Any], attempt: int) -> tuple[str, str, Script]:
        text = answers[f"r{int(str(body['messages']).split('Judul: ')[1].split()[1][0]):03d}"]
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        return SSE, "chunked", [sent(random.Random(attempt), choice)]

    server = serve(script)
    data = write_rows(tmp_path / "test.jsonl", DFK, 4)
    backend = {"kind": "openai", "base_urls": [server.url], "model": "m", "revision": "r", "stream": True}
    fields = {"data": data, "backend": backend, "resamples": 200, "cache": tmp_path / "cache"}
    run = evaluate(EvalConfig.model_validate(fields), tmp_path / "run")
    whole = EvalConfig.model_validate(fields | {"backend": backend | {"stream": False}})
    again = evaluate(whole, tmp_path / "again")
    assert run.summary["outcomes"] == {"ok": 4}
    assert run.environment["generation"]["first_token_seconds"]["n"] == 4
    assert all(sample.first_token_seconds is not None for sample in run.samples)
    assert again.environment["generation"]["cached"] == 4 and len(server.bodies) == 4
