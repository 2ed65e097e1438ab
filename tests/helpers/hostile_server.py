"""A chat server whose every answer a test decides, byte by byte, and requests to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from dfkeval.backends import openai
from dfkeval.types import Completion, Request, Sampling

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
