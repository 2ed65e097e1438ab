"""A local server of the chat protocol that says what a test wants, whole or as a stream."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Said = dict[str, Any] | tuple[int, Any]


class ChatServer:
    """Answers by `answer(number of the request, from 1)`: a JSON body, or (status, body).

    A request that asks for a stream gets the body's first choice in pieces, by the protocol. Without
    `keep_alive` every request needs a connection of its own."""

    def __init__(self, answer: Callable[[int], Said], *, keep_alive: bool = True) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1" if keep_alive else "HTTP/1.0"

            def log_message(self, *arguments: object) -> None: ...

            def do_GET(self) -> None:
                self.send(200, "application/json", b'{"data": [{"id": "m"}]}')

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with server.lock:
                    server.bodies.append(body)
                    number = len(server.bodies)
                said = answer(number)
                status, content = said if isinstance(said, tuple) else (200, said)
                if status == 200 and body.get("stream"):
                    self.send(200, "text/event-stream", streamed(content))
                else:
                    self.send(status, "application/json", json.dumps(content).encode())

            def send(self, status: int, kind: str, content: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self.http.shutdown()
        self.http.server_close()


@contextmanager
def chat_server(answer: Callable[[int], Said]) -> Iterator[ChatServer]:
    server = ChatServer(answer)
    try:
        yield server
    finally:
        server.close()


def chat(text: str | None, reason: Any = "stop", **choice: Any) -> dict[str, Any]:
    """Return a whole answer."""
    message = {"role": "assistant", "content": text}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": reason} | choice],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


def streamed(body: Any) -> bytes:
    """Return a whole answer as a stream."""
    if "choices" not in body:
        return events([body])
    choice = dict(body["choices"][0])
    message = choice.pop("message")
    reason = choice.pop("finish_reason")
    text = message.get("content") or ""
    deltas = [{"content": text[at : at + 2]} for at in range(0, len(text), 2)]
    deltas += [{"tool_calls": [call]} for call in message.get("tool_calls") or []]
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    last = {"choices": [choice | {"index": 0, "delta": {}, "finish_reason": reason}], "usage": body["usage"]}
    return events([*chunks, last])


def events(chunks: Sequence[dict[str, Any]], *, before: bytes = b"", done: bool = True) -> bytes:
    """Return chunks as server-sent events, each after the bytes `before`."""
    sent = b"".join(before + b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    return sent + (before + b"data: [DONE]\n\n" if done else b"")
