"""Connections: addresses that are none, proxies of the environment, redirects, and bodies in every packing."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest

from dfkdata.common.errors import BackendError, ConfigError
from dfkeval.backends import openai
from dfkeval.backends._openai import stream
from dfkeval.types import Completion, Request, Sampling
from tests.helpers.servers import chat

WHOLE = json.dumps(chat("já 😀 ok"), ensure_ascii=False).encode()
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Wire:
    """A server that answers each question with the bytes of `answer(number, from 1)`.

    It closes the connection after an answer, at once for an empty one."""

    def __init__(self, answer: Callable[[int], bytes]) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        self.answer, self.count, self.lock = answer, 0, threading.Lock()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                taken = self.socket.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(taken,), daemon=True).start()

    def serve(self, taken: socket.socket) -> None:
        with taken:
            head, _, body = b"", b"", b""
            data = b""
            while b"\r\n\r\n" not in data:
                part = taken.recv(65536)
                if not part:
                    return
                data += part
            head, _, body = data.partition(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            while lengths and len(body) < int(lengths[0].split(b":")[1]):
                body += taken.recv(65536)
            if head.startswith(b"GET"):
                taken.sendall(self.listed)
                return
            with self.lock:
                self.count += 1
                number = self.count
            taken.sendall(self.answer(number))

    #: What the list of models is answered with.
    listed = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *trouble: object) -> None:
        self.socket.close()


def packed(
    body: bytes, *headers: str, status: str = "200 OK", version: str = "1.1", length: bool = True
) -> bytes:
    lines = [f"HTTP/{version} {status}", *headers, "connection: close"]
    lines += [f"content-length: {len(body)}"] if length else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def ask(answer: Callable[[int], bytes], count: int = 1, attempts: int = 2) -> list[Completion]:
    with Wire(answer) as wire:
        backend: Any = openai.start(
            openai.Config(base_urls=(wire.url,), model="m", attempts=attempts, timeout=5)
        )
        backend.retry.sleep = lambda seconds: None
        messages = [{"role": "user", "content": "q"}]
        return list(
            backend.generate([Request(id=str(at), messages=messages) for at in range(count)], Sampling())
        )


PACKINGS = {
    "plain": lambda body: packed(body),
    "gzip": lambda body: packed(gzip.compress(body), "content-encoding: gzip"),
    "deflate": lambda body: packed(zlib.compress(body), "content-encoding: deflate"),
    "HTTP/1.0 without length": lambda body: packed(body, version="1.0", length=False),
    "chunked": lambda body: packed(
        b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n",
        "transfer-encoding: chunked",
        length=False,
    ),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_body_comes_whole_in_every_packing(packing: str) -> None:
    assert ask(lambda number: PACKINGS[packing](WHOLE))[0].text == "já 😀 ok"


def _bomb() -> bytes:
    """400 MB of zeros in 400 kB."""
    return gzip.compress(bytes(400_000_000))


def test_a_body_that_unpacks_to_too_much_is_an_error_in_little_memory() -> None:
    bomb = packed(_bomb(), "content-encoding: gzip")
    tracemalloc.start()
    try:
        assert ask(lambda number: bomb)[0].error == "the answer is larger than 32 MiB"
        assert (
            tracemalloc.get_traced_memory()[1] < 300_000_000
        )  # the bomb, 32 MiB, and one piece of it unpacked
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("packing", ["zstd", "br", "gzip, gzip", "compress"])
def test_a_body_in_a_packing_that_was_not_asked_for_is_not_unpacked(packing: str) -> None:
    found = ask(lambda number: packed(WHOLE, f"content-encoding: {packing}"))[0]
    assert found.error is not None and f"packed as '{packing}'" in found.error


def test_a_list_of_models_that_unpacks_to_too_much_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wire, "listed", packed(_bomb(), "content-encoding: gzip"))
    with pytest.raises(BackendError, match=r"no server answers .*larger than 32 MiB"):
        ask(lambda number: packed(WHOLE))


@pytest.mark.parametrize("packing", PACKINGS)
def test_half_a_body_is_asked_again_and_is_never_an_answer(packing: str) -> None:
    whole = PACKINGS[packing](WHOLE)
    for cut in (len(whole) // 2, len(whole) - 12):
        again = ask(lambda number, cut=cut: whole if number > 1 else whole[:cut])
        assert again[0].text == "já 😀 ok"
        assert ask(lambda number, cut=cut: whole[:cut])[0].finish_reason == "error"


def test_a_connection_that_is_dropped_costs_an_attempt_and_no_row() -> None:
    found = ask(lambda number: packed(WHOLE) if number % 3 == 0 else b"", count=4, attempts=12)
    assert [each.text for each in found] == ["já 😀 ok"] * 4


@pytest.mark.parametrize(
    "kind", ["text/event-stream", "Text/Event-Stream; charset=utf-8", "TEXT/EVENT-STREAM"]
)
def test_a_stream_is_known_by_its_type_in_any_case(kind: str) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
    body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()
    assert ask(lambda number: packed(body, f"content-type: {kind}"))[0].text == "hi"


@pytest.mark.parametrize(
    "status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]
)
def test_a_server_that_sends_elsewhere_ends_the_run_with_the_address(status: str) -> None:
    def answer(number: int) -> bytes:
        return packed(b"", "location: https://there/v1/chat/completions", status=status)

    with pytest.raises(
        BackendError, match=r"sent on to https://there/.*write that one in backend\.base_urls"
    ):
        ask(answer, count=9)


def test_a_proxy_that_wants_a_password_ends_the_run() -> None:
    with pytest.raises(BackendError, match="wants a password"):
        ask(lambda number: packed(b"", status="407 Proxy Authentication Required"), count=9)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000/v1", "http://[::1/v1", "", "ftp://x/v1", "http:///v1", "/v1"]
)
def test_an_address_that_is_none_is_refused_by_name(url: str) -> None:
    with pytest.raises(ConfigError, match=r"backend\.base_urls"):
        openai.start(openai.Config(base_urls=(url,), model="m"))


@pytest.mark.parametrize(("name", "value"), [("ALL_PROXY", "nonsense://x"), ("HTTP_PROXY", "ftp://x")])
def test_a_proxy_of_a_kind_that_cannot_be_used_is_refused_by_name(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="a proxy of the environment"):
        openai.start(openai.Config(base_urls=("http://127.0.0.1:9/v1",), model="m"))


def test_a_server_behind_a_proxy_that_does_not_answer_is_told_with_the_proxy_and_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:9")
    with pytest.raises(BackendError) as told:
        openai.start(openai.Config(base_urls=("http://127.0.0.1:8/v1",), model="m"))
    assert "through the proxy 127.0.0.1:9" in str(told.value) and "NO_PROXY=127.0.0.1" in str(told.value)
    assert "secret" not in str(told.value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(BackendError) as told:
        openai.start(openai.Config(base_urls=("http://127.0.0.1:8/v1",), model="m"))
    assert "proxy" not in str(told.value)


def calls() -> Iterator[tuple[Any, Any, str, bool]]:
    """(id, index, name of the second call, whether names are repeated in each delta)."""
    yield from product(("c", None), (0, None), ("f", "g"), (False, True))


@pytest.mark.parametrize(("name", "index", "second", "repeated"), [*calls()])
def test_two_calls_of_one_id_and_one_index_stay_two(
    name: Any, index: Any, second: str, repeated: bool
) -> None:
    if index is None and repeated and name is None:
        pytest.skip("without id and index a repeated name cannot be told from a new call")
    joined = stream.Joined()
    for function, arguments in (("f", '{"a": 1}'), (second, '{"b": {"c": 2}}')):
        for at, piece in enumerate(("", arguments[:4], arguments[4:], "")):
            shown = {"name": function} if at == 0 or repeated else {}
            delta = {"id": name, "index": index, "function": shown | {"arguments": piece}}
            joined.add({"choices": [{"index": 0, "delta": {"tool_calls": [delta]}}]})
    found = [call["function"] for call in joined.whole()["choices"][0]["message"]["tool_calls"]]
    assert [(each["name"], json.loads(each["arguments"])) for each in found] == [
        ("f", {"a": 1}), (second, {"b": {"c": 2}}),
    ]  # fmt: skip
