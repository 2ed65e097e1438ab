"""No key reaches a file or the screen: a server repeats everything that it was sent, wherever a server can say
something, and every file and every line that a command writes is searched."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from dfkdata.common import credentials
from dfkeval.cli import app
from tests.helpers.runs import DFK, gold_answers, write_rows

KEY, PASSWORD, QUERY = "key/4711-of-the-server", "password-of-me", "code-in-the-query"
SECRETS = (KEY, PASSWORD, QUERY, base64.b64encode(f"me:{PASSWORD}".encode()).decode(), "key%2F4711-of")
MODES = ("answers", "400", "401", "404", "429", "redirect", "error in 200", "half", "listing", "stream")


class Repeats(BaseHTTPRequestHandler):
    """Repeats the head and the address of every request, as they came and decoded."""

    server: Mirror

    def log_message(self, *arguments: object) -> None: ...

    def said(self) -> str:
        sent = self.headers.get("authorization") or ""
        kind, _, value = sent.partition(" ")
        plain = base64.b64decode(value).decode() if kind == "Basic" else unquote(self.path)
        return f"{self.path} {sent} {plain}"

    def do_GET(self) -> None:
        status = 401 if self.server.mode == "listing" else 200
        self.send(status, {"data": [{"id": "m"}], "error": {"message": self.said()}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        said, mode = self.said(), self.server.mode
        call = {"id": said, "type": "function", "function": {"name": said, "arguments": said}}
        message = {"role": "assistant", "content": said, "reasoning_content": said}
        message |= {"tool_calls": [call]} if mode == "answers" else {}
        choice = {"index": 0, "message": message, "delta": message, "finish_reason": "stop"}
        bodies: dict[str, Any] = {
            "error in 200": {"error": {"message": said}},
            "half": {"strange": said},
            "redirect": {},
        }
        whole = {"choices": [choice], "model": said, "id": said}
        if mode.isdigit():
            self.send(int(mode), {"error": {"message": said, "param": said, "code": said}})
        else:
            place = {"location": f"http://127.0.0.1:1/{said.replace(' ', '/')}"} if mode == "redirect" else {}
            self.send(302 if place else 200, bodies.get(mode, whole), **place)

    def send(self, status: int, body: Any, **headers: str) -> None:
        content, kind = json.dumps(body).encode(), "application/json"
        if self.server.mode == "stream" and self.command == "POST":
            content, kind = b"data: " + content + b"\n\ndata: [DONE]\n\n", "text/event-stream"
        self.send_response(status)
        for name, value in {**headers, "content-type": kind, "retry-after": "0"}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Mirror(ThreadingHTTPServer):
    """A chat server of one of the `MODES`."""

    daemon_threads = True
    mode = "answers"

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}/v1?version=1&code={QUERY}"


@pytest.fixture(scope="module")
def mirror() -> Iterator[Mirror]:
    pytest.importorskip("httpx")
    server = Mirror(("127.0.0.1", 0), Repeats)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(credentials, "_known", {})
    monkeypatch.setenv("SERVER_KEY", KEY)
    folder = tmp_path / "in"
    folder.mkdir()
    write_rows(folder / "test.jsonl", DFK, 2)
    (folder / "captions.csv").write_text("caption\nA red dog is running on the grass.\n")
    return folder


def called(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    sys.argv = ["dfkeval", *map(str, words)]
    with pytest.raises(SystemExit) as ended:
        app.main()
    return int(ended.value.code or 0), "".join(capsys.readouterr())


def searched(folder: Path, shown: str) -> list[str]:
    """Return the places where a key stands, as text or as base64 or quoted."""
    texts = {"the screen": shown}
    texts |= {str(path): path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()}
    return [f"{name}: {secret}" for name, text in texts.items() for secret in SECRETS if secret in text]


def backend(mirror: Mirror, *, user: bool, stream: bool) -> dict[str, Any]:
    own = {} if user else {"key": "SERVER_KEY"}
    place = f"http://me:{PASSWORD}@{mirror.place}" if user else f"http://{mirror.place}"
    return {"kind": "openai", "base_urls": [place], "model": "m", "attempts": 1, "stream": stream} | own


@pytest.mark.parametrize("user", [False, True], ids=["key", "password in the address"])
@pytest.mark.parametrize("mode", MODES)
def test_what_a_server_repeats_is_in_no_file_and_not_on_the_screen(
    mirror: Mirror, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str, user: bool
) -> None:
    mirror.mode, out = mode, tmp_path / "out"
    asked = backend(mirror, user=user, stream=mode == "stream")
    config = inputs / "eval.yaml"
    config.write_text(
        json.dumps({"data": "test.jsonl", "schema": "dfk_label", "backend": asked, "resamples": 100})
    )
    shown = "".join(
        called(capsys, *words)[1]
        for words in (
            ("run", config, "--out", out / "run"),
            ("label", inputs / "captions.csv", "--out", out / "label", "--backend", json.dumps(asked)),
            ("predict", "--schema", "dfk_label", "--field", "title=a", "--backend", json.dumps(asked)),
            ("predict", "--schema", "dfk_label", "--input", inputs / "captions.csv", "--from", "captions", "--out",
             out / "p.jsonl", "--backend", json.dumps(asked)),
        )
    )  # fmt: skip
    assert "127.0.0.1" in shown + "".join(path.read_text() for path in out.rglob("config.json"))
    assert searched(out, shown) == []


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "listing"])
def test_the_service_repeats_no_key_to_its_callers(mirror: Mirror, inputs: Path, mode: str) -> None:
    testclient = pytest.importorskip("starlette.testclient")
    from dfkeval import Predictor
    from dfkeval.backends import openai
    from dfkeval.inference.serving.app import application

    mirror.mode = mode
    config = openai.Config(**backend(mirror, user=False, stream=mode == "stream"))
    with testclient.TestClient(application(Predictor(schema="dfk_label", backend=config))) as client:
        answer = client.post("/predict", json={"fields": {"title": "a"}})
        shown = answer.text + client.get("/healthz").text + client.get("/metrics").text + str(answer.headers)
    assert searched(inputs / "nothing", shown) == []


@pytest.mark.parametrize(
    "literal",
    [
        {"key": KEY},
        {"api_key": KEY},
        {"key": "SERVER_KEY", "headers": {"authorization": KEY}},
        {"base_urls": [f"ftp://me:{PASSWORD}@h?code={QUERY}"]},
        {"base_urls": [f"http://me:{PASSWORD}@h:port?code={QUERY}"]},
        {"base_urls": [f"http://me:{PASSWORD}@127.0.0.1:9/v1?code={QUERY}"]},
    ],
)
def test_a_key_that_stands_in_a_configuration_is_refused_and_not_repeated(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], literal: dict[str, Any]
) -> None:
    asked = {"kind": "openai", "base_urls": ["http://127.0.0.1:9/v1"], "model": "m", "attempts": 1} | literal
    config = inputs / "eval.yaml"
    config.write_text(json.dumps({"data": "test.jsonl", "schema": "dfk_label", "backend": asked}))
    status, shown = called(capsys, "run", config, "--out", tmp_path / "out")
    assert status == 2 and shown
    assert searched(tmp_path / "out", shown) == []


def test_the_names_of_a_key_and_of_a_token_are_not_mistaken_for_values(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, shown = called(capsys, "predict", "--url", "http://h/v1", "--model", "m", "--key", KEY, "--schema",
                           "answer", "--field", "question=a")  # fmt: skip
    assert status == 2 and "not the key itself" in shown and KEY not in shown
    pytest.importorskip("starlette")
    status, shown = called(capsys, "serve", "--model", "tiny", "--token", KEY)
    assert status == 2 and "not the token itself" in shown and KEY not in shown


def test_rows_are_what_the_model_said_but_for_the_key(
    mirror: Mirror, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An address in an answer stays as it was said; only what is known to be a key goes."""
    mirror.mode = "stream"
    config = inputs / "eval.yaml"
    asked = backend(mirror, user=False, stream=True)
    config.write_text(
        json.dumps({"data": "test.jsonl", "schema": "dfk_label", "backend": asked, "resamples": 100})
    )
    called(capsys, "run", config, "--out", tmp_path / "out")
    lines = (tmp_path / "out/completions.jsonl").read_text().splitlines()
    said = json.loads(lines[0])["text"]
    place = "/v1/chat/completions?version=1&code=[hidden]"
    assert said == f"{place} Bearer [SERVER_KEY] {place}"
    assert len(gold_answers(DFK, 2)) == len(lines)
