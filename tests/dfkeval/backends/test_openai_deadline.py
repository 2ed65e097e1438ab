"""An attempt ends in time whatever a server does: it trickles, stops, or takes nothing. Real sockets."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from dfkdata.common.errors import BackendError
from dfkeval.backends import openai
from dfkeval.types import Request, Sampling
from tests.helpers.servers import chat

BODY = json.dumps(chat("late")).encode()
HEAD = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(BODY)}\r\n".encode()
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
MODELS = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
#: What is sent at once, and what follows byte by byte; with all its pauses it would take over 20 s.
WAYS: dict[str, tuple[bytes, bytes]] = {
    "status line": (b"", HEAD + b"\r\n" + BODY),
    "headers": (HEAD, b"x-slow: " + b"y" * 400 + b"\r\n\r\n" + BODY),
    "body": (HEAD + b"\r\n", BODY[:-1] + b" " * 400 + BODY[-1:]),
    "comments of a stream": (EVENTS, b": keep open\n\n" * 40),
    "chunks": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 80),
    "nothing": (b"", b""),
    "half": (HEAD + b"\r\n" + BODY[:10], b""),
}
PAUSE = 0.05


class Slow:
    """A server that answers `models` at once, and questions in one of the ways."""

    def __init__(self, way: str, *, slow_models: bool = False) -> None:
        self.way, self.slow_models = WAYS[way], slow_models
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        self.over, self.finished = threading.Event(), False
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.socket.accept()[0],), daemon=True).start()

    def serve(self, taken: socket.socket) -> None:
        with taken, suppress(OSError):
            asked = taken.recv(65536)
            if asked.startswith(b"GET") and not self.slow_models:
                taken.sendall(MODELS)
                return
            at_once, rest = self.way
            taken.sendall(at_once)
            for byte in rest:
                if self.over.wait(PAUSE):
                    return
                taken.sendall(bytes([byte]))
            self.finished = bool(rest)
            self.over.wait(60)

    def __enter__(self) -> Slow:
        return self

    def __exit__(self, *trouble: object) -> None:
        self.over.set()
        self.socket.close()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("way", WAYS)
def test_an_attempt_ends_though_bytes_come_now_and_then(way: str, stream: bool) -> None:
    with Slow(way) as server:
        config = openai.Config(base_urls=(server.url,), model="m", attempts=1, timeout=0.4, stream=stream)
        backend: Any = openai.start(config)
        messages = [{"role": "user", "content": "q"}]
        (answer,) = backend.generate([Request(id="r", messages=messages)], Sampling())
        assert (answer.finish_reason, answer.timed_out, server.finished) == ("error", True, False)
        assert answer.error is not None
        assert "no answer in 0.4 s" in answer.error


def test_a_server_that_trickles_its_models_is_no_server() -> None:
    with Slow("headers", slow_models=True) as server, pytest.raises(BackendError, match="no server answers"):
        openai.start(openai.Config(base_urls=(server.url,), model="m", timeout=0.4))


def test_a_question_that_is_taken_byte_by_byte_ends_too() -> None:
    over = threading.Event()

    def take(taking: socket.socket) -> Iterator[None]:
        taking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with suppress(OSError):
            while not over.wait(PAUSE):
                taking.recv(64)
        yield

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    taken = listening.accept()[0]
                    threading.Thread(target=lambda taken=taken: list(take(taken)), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        config = openai.Config(base_urls=(url,), model="m", attempts=1, timeout=0.4)
        backend: Any = openai.OpenAI(config, openai.connection.client((url,), None, 0.4, 1))
        messages = [{"role": "user", "content": "q" * 30_000_000}]
        began = time.monotonic()
        (answer,) = backend.generate([Request(id="r", messages=messages)], Sampling())
        over.set()
        assert answer.timed_out, (answer.error, time.monotonic() - began)
