"""The service over real connections on this machine: typed answers under load, refusals for hostile input,
and no request without an answer. Gates, not clocks, decide what happens first."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import threading
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from dfkeval.backends import Capabilities
from tests.helpers.runs import CAPTION, DFK, answer_text, caption_gold, dfk_gold, write_answers

pytest.importorskip("starlette")
import uvicorn
from PIL import Image
from typer.testing import CliRunner

from dfkdata.common.errors import BackendError, ConfigError
from dfkeval import Predictor
from dfkeval.cli import app as cli
from dfkeval.inference.serving import server as serving
from dfkeval.inference.serving.app import application
from dfkeval.inference.serving.limits import Limits
from dfkeval.types import Completion, Request, Sampling

#: Connections are kept, so that a load is the service's and not that of making clients.
HTTP = httpx.Client(timeout=20, limits=httpx.Limits(max_connections=64))
GOOD = answer_text(dfk_gold(2), DFK)
HALF = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
JUNK = [b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /predict\r\n\r\n"]


class Engine:
    """Answers by the title that is asked: "down" fails, "dead" breaks the engine, "bug" is a fault of ours,
    "bad" is no valid answer. Waits at the gate, and notes how many batches were inside at once."""

    capabilities = Capabilities()

    def __init__(self) -> None:
        self.info: dict[str, Any] = {"kind": "scripted"}
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[int] = []
        self.inside = self.most = 0
        self.seen: list[Request] = []
        self.lock = threading.Lock()

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        asked = list(requests)
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.batches.append(len(asked))
            self.seen += asked
        try:
            assert self.gate.wait(30)
            for request in reversed(asked):
                yield self.answer(request)
        finally:
            with self.lock:
                self.inside -= 1

    def answer(self, request: Request) -> Completion:
        text = str(request.messages)
        if "dead" in text:
            raise BackendError("the card fell off")
        if "bug" in text:
            raise ZeroDivisionError("ours")
        if "down" in text:
            return Completion(id=request.id, text="", finish_reason="error", error="no answer")
        said = "entah" if "bad" in text else GOOD
        return Completion(id=request.id, text=said, n_prompt_tokens=10, n_output_tokens=5)

    def close(self) -> None: ...


@contextmanager
def served(engine: Any, schema: str = "dfk_label", token: str | None = None, **limits: Any) -> Iterator[str]:
    """The address of a running service."""
    given = Limits(**limits)
    app = application(Predictor(schema=schema, backend=engine), given, token)
    config = serving.config(app, given, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=20)) as client:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            assert client.get(f"{url}/healthz").status_code == 200
        yield url
    finally:
        engine.gate.set()
        server.should_exit = True
        thread.join(10)
        listening.close()


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@pytest.fixture(scope="module")
def url(engine: Engine) -> Iterator[str]:
    with served(engine, body=200_000, images=2, pixels=10_000, characters=1000, upload=1.0) as found:
        yield found


def post(url: str, body: Any, **more: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json"} | more.pop("headers", {})
    return HTTP.post(f"{url}/predict", content=content, headers=headers, **more)


def picture(width: int = 8, height: int = 8, kind: str = "PNG") -> str:
    data = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(data, kind)
    return base64.b64encode(data.getvalue()).decode()


def line_to(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


# --- answers


def test_an_answer_is_typed_and_says_its_problems(url: str) -> None:
    good = post(url, {"fields": {"title": "Judul", "text": "Isi"}})
    assert good.status_code == 200
    found = good.json()
    assert (found["outcome"], found["value"], found["label"]) == ("ok", dfk_gold(2), "fitnah")
    assert (found["problems"], found["text"], found["n_output_tokens"]) == ([], GOOD, 5)
    bad = post(url, {"fields": {"title": "bad"}}).json()
    assert (bad["outcome"], bad["value"], bad["text"]) == ("no_call", None, "entah")
    assert bad["problems"]


def test_pictures_reach_the_engine_with_their_real_kind(url: str, engine: Engine) -> None:
    engine.seen.clear()
    images = [picture(), f"data:image/png;base64,{picture(kind='JPEG')}"]
    assert post(url, {"image": images[0], "images": images[1:], "fields": {}}).status_code == 200
    sent = engine.seen[0].images
    assert sent[0] == f"data:image/png;base64,{images[0]}"
    assert sent[1].startswith("data:image/jpeg;base64,")


def test_a_failed_request_is_a_502_with_its_outcome(url: str) -> None:
    failed = post(url, {"fields": {"title": "down"}})
    assert failed.status_code == 502
    assert (failed.json()["outcome"], failed.json()["problems"]) == ("request_failed", ["no answer"])


@pytest.mark.parametrize(("title", "reason"), [("dead", "the card fell off"), ("bug", "ours")])
def test_an_engine_that_breaks_fails_its_batch_and_the_service_goes_on(
    url: str, title: str, reason: str
) -> None:
    broken = post(url, {"fields": {"title": title}})
    assert code(broken) == (502, "engine_failed") and reason in broken.json()["error"]["message"]
    health = HTTP.get(f"{url}/healthz")
    assert health.status_code == 503 and reason in health.json()["reason"]
    assert post(url, {"fields": {"title": "x"}}).status_code == 200
    assert HTTP.get(f"{url}/healthz").json()["status"] == "ok"


def test_schema_and_metrics_say_what_is_served(url: str) -> None:
    told = HTTP.get(f"{url}/schema").json()
    assert told["fields"] == ["title", "text"] and told["value"] == DFK.json_schema
    before = HTTP.get(f"{url}/metrics").text
    post(url, {"fields": {"title": "x"}})
    post(url, b"{")
    after = HTTP.get(f"{url}/metrics")
    assert after.headers["content-type"].startswith("text/plain")

    def value(text: str, name: str) -> float:
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    for name, grown in {
        'dfkeval_requests_total{status="200"}': 1.0, 'dfkeval_requests_total{status="400"}': 1.0,
        'dfkeval_outcomes_total{outcome="ok"}': 1.0, 'dfkeval_tokens_total{kind="answer"}': 5.0,
        "dfkeval_seconds_count": 1.0,
    }.items():  # fmt: skip
        assert value(after.text, name) - value(before, name) == grown, name


# --- hostile input


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b"", (400, "not_json")),
        (b"{", (400, "not_json")),
        (b"\xff\xfe{}", (400, "not_json")),
        (b'{"fields": {"title": "\xc3\x28"}}', (400, "not_json")),
        (b"[" * 100_000, (422, "wrong_shape")),
        (b'{"fields": ' + b'{"title": ' * 10_000, (422, "wrong_shape")),
        (b"null", (422, "wrong_shape")),
        (b'{"fields": {"title": 3}}', (422, "wrong_shape")),
        (b'{"fields": {}, "image": null, "path": "/etc/passwd"}', (422, "wrong_shape")),
        (b"{}", (422, "empty")),
        (b'{"fields": {"title": "  "}}', (422, "empty")),
        (b'{"fields": {"titel": "x"}}', (422, "unknown_field")),
        (json.dumps({"fields": {"title": "x" * 1001}}).encode(), (422, "too_long")),
        (b'{"fields": {"title": "\\ud800"}}', (400, "not_json")),
    ],
)
def test_what_is_no_request_is_refused_in_words(url: str, body: bytes, wanted: tuple[int, str]) -> None:
    refused = post(url, body)
    assert code(refused) == wanted
    assert refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        ("../../etc/passwd", "image_not_embedded"),
        ("/etc/passwd", "image_not_embedded"),
        ("/etc/passwd0", "img_unreadable"),  # these letters happen to be base64
        ("file:///etc/passwd", "image_not_embedded"),
        ("http://127.0.0.1:9/x.png", "image_not_embedded"),
        ("data:image/png;base64,%%%", "image_not_embedded"),
        ("", "img_unreadable"),
        (base64.b64encode(b"GIF89a").decode(), "img_unreadable"),
        (base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").decode(), "img_unreadable"),
        (picture(kind="TIFF"), "img_kind"),
        (picture(200, 100), "img_bomb"),
        (picture(64, 64)[:-40], "img_truncated"),
    ],
)
def test_what_is_no_small_picture_in_the_request_is_refused(
    url: str, engine: Engine, image: str, wanted: str
) -> None:
    engine.seen.clear()
    assert code(post(url, {"images": [image]})) == (422, wanted)
    assert engine.seen == []


def test_a_bomb_is_refused_by_its_header_and_never_decoded(url: str) -> None:
    data = bytearray(base64.b64decode(picture()))
    data[16:24] = (60_000).to_bytes(4) + (60_000).to_bytes(4)
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    assert code(post(url, {"images": [base64.b64encode(data).decode()]})) == (422, "img_bomb")


def test_too_many_pictures_are_refused(url: str) -> None:
    assert code(post(url, {"images": [picture()] * 3})) == (422, "too_many_images")


def test_a_body_that_is_too_large_is_refused_with_and_without_its_length(url: str) -> None:
    assert code(post(url, b"x" * 200_001)) == (413, "too_large")

    def endless() -> Iterator[bytes]:
        for _ in range(50):
            yield b"x" * 10_000

    try:
        streamed = httpx.post(
            f"{url}/predict", content=endless(), headers={"content-type": "application/json"}, timeout=10
        )
        assert code(streamed) == (413, "too_large")
    except httpx.WriteError:
        pass  # the service hung up on the upload: refused as well
    assert HTTP.get(f"{url}/healthz").status_code == 200


def test_a_body_that_does_not_come_is_given_up(url: str) -> None:
    with line_to(url) as line:
        line.sendall(HALF)
        assert b" 408 " in line.recv(4096)


@pytest.mark.parametrize("said", [b"", b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_a_head_that_does_not_come_is_hung_up_on(url: str, said: bytes) -> None:
    with line_to(url) as line:
        line.sendall(said)
        assert line.recv(4096) == b""


def test_a_second_head_that_does_not_come_is_hung_up_on_too(url: str) -> None:
    with line_to(url) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        found = b""
        while b'"held"' not in found:
            found += line.recv(4096)
        line.sendall(b"GET /healthz HT")
        assert line.recv(4096) == b""


def test_an_answer_may_take_longer_than_a_head() -> None:
    engine = Engine()
    engine.gate.clear()
    with served(engine, upload=0.3) as url, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, url, {"fields": {"title": "x"}})
        with line_to(url) as line:
            assert line.recv(4096) == b""  # a silent connection is closed meanwhile
        engine.gate.set()
        assert waiting.result().status_code == 200


@pytest.mark.parametrize(
    "junk", [b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /predict\r\n\r\n"]
)
def test_what_is_not_http_is_answered_or_dropped_and_the_service_goes_on(url: str, junk: bytes) -> None:
    with line_to(url) as line:
        line.sendall(junk)
        line.shutdown(socket.SHUT_WR)
        line.recv(4096)
    assert post(url, {"fields": {"title": "x"}}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/predict", 405), ("POST", "/metrics", 405), ("GET", "/../../etc/passwd", 404),
     ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404), ("GET", "/static/..%2f..%2fetc/passwd", 404)],
)  # fmt: skip
def test_there_is_nothing_else_to_reach(url: str, method: str, path: str, status: int) -> None:
    found = HTTP.request(method, f"{url}{path}")
    assert code(found) == (status, "no_such_place")
    assert "root:" not in found.text


def test_a_foreign_page_cannot_send_a_plain_form(url: str) -> None:
    assert code(post(url, {"fields": {"title": "x"}}, headers={"content-type": "text/plain"})) == (
        415,
        "not_json",
    )


def test_with_a_token_nobody_else_is_answered() -> None:
    with served(Engine(), token="secret-é") as url:
        assert code(post(url, {"fields": {"title": "x"}})) == (401, "no_token")
        wrong = {"authorization": "Bearer wrong"}
        assert code(post(url, {"fields": {"title": "x"}}, headers=wrong)) == (401, "no_token")
        for scheme in (b"Bearer ", b"bearer "):
            right = {b"authorization": scheme + "secret-é".encode(), b"content-type": b"application/json"}
            found = HTTP.post(f"{url}/predict", content=b'{"fields": {"title": "x"}}', headers=right)
            assert (found.status_code, found.json()["outcome"]) == (200, "ok")
        for said in (
            b"secret-\xc3\xa9",
            b"Basic secret-\xc3\xa9",
            b"Bearer  secret-\xc3\xa9",
            b"Bearer secret-\xe9",
        ):
            headers = {b"authorization": said, b"content-type": b"application/json"}
            assert HTTP.post(f"{url}/predict", content=b"{}", headers=headers).status_code == 401


# --- load


def test_under_load_every_request_is_answered_in_bounded_batches() -> None:
    engine = Engine()
    with served(engine, queue=64, batch=8) as url, ThreadPoolExecutor(32) as pool:
        asked = [{"fields": {"title": "down" if index % 10 == 9 else f"T{index}"}} for index in range(200)]
        found = list(pool.map(lambda body: post(url, body), asked))
    statuses = [each.status_code for each in found]
    assert statuses.count(200) == 180 and statuses.count(502) == 20
    assert max(engine.batches) <= 8 and engine.most == 1
    assert sum(engine.batches) == 200


def test_workers_bound_how_many_batches_are_inside_at_once() -> None:
    engine = Engine()
    engine.gate.clear()
    with served(engine, queue=64, batch=1, workers=3) as url, ThreadPoolExecutor(12) as pool:
        found = [pool.submit(post, url, {"fields": {"title": f"T{index}"}}) for index in range(12)]
        until(lambda: held(url) == 12 and engine.inside == 3)
        engine.gate.set()
        assert {each.result().status_code for each in found} == {200}
    assert engine.most == 3


def held(url: str) -> int:
    return int(HTTP.get(f"{url}/healthz").json()["held"])


def until(what: Any) -> None:
    """Wait for something that must become true."""
    waiting = threading.Event()
    for _ in range(600):
        if what():
            return
        waiting.wait(0.02)
    raise AssertionError("it never came to that")


def test_a_full_queue_is_said_at_once_and_the_others_are_answered() -> None:
    engine = Engine()
    engine.gate.clear()
    with served(engine, queue=4, batch=2) as url, ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(post, url, {"fields": {"title": f"T{index}"}}) for index in range(4)]
        until(lambda: held(url) == 4)
        late = post(url, {"fields": {"title": "late"}})
        assert code(late) == (503, "busy") and late.headers["retry-after"] == "1"
        engine.gate.set()
        assert {each.result().status_code for each in waiting} == {200}
        assert post(url, {"fields": {"title": "now"}}).status_code == 200
    assert not any("late" in str(request.messages) for request in engine.seen)


def test_time_that_is_up_is_said_and_who_gave_up_is_not_asked_for() -> None:
    engine = Engine()
    engine.gate.clear()
    with served(engine, queue=8, batch=1, timeout=0.3) as url, ThreadPoolExecutor(2) as pool:
        both = [pool.submit(post, url, {"fields": {"title": f"T{index}"}}) for index in range(2)]
        assert [code(each.result()) for each in both] == [(504, "timeout")] * 2
        assert held(url) == 0
        engine.gate.set()
        assert post(url, {"fields": {"title": "after"}}).status_code == 200
    assert len(engine.seen) == 2, "the first, which was inside already, and the one after"


def test_a_caller_that_hangs_up_leaves_the_service_as_it_was() -> None:
    engine = Engine()
    with served(engine) as url:
        host, port = url.removeprefix("http://").split(":")
        for _ in range(20):
            with socket.create_connection((host, int(port)), timeout=10) as line:
                line.sendall(HALF)
        assert post(url, {"fields": {"title": "x"}}).status_code == 200
        until(lambda: held(url) == 0)


# --- the command and the model


def test_the_tiny_model_answers_through_the_service() -> None:
    torch = pytest.importorskip("torch")
    from dfkeval.backends.transformers import Transformers
    from dfkeval.models import loader

    torch.set_num_threads(1)
    backend = Transformers(loader.load("tiny", dtype="float32", device="cpu"))
    backend.gate = threading.Event()  # type: ignore[attr-defined]
    ask = Predictor(schema="caption", backend=backend, sampling=Sampling(max_new_tokens=24))

    async def asked() -> list[dict[str, Any]]:
        app = application(ask, Limits(batch=2))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
        ):
            bodies = [
                {"fields": {"caption": "A dog."}, "image": picture(32, 32)},
                {"fields": {"caption": "A."}},
            ]
            replies = await asyncio.gather(*(client.post("/predict", json=body) for body in bodies))
        return [reply.json() for reply in replies]

    found = asyncio.run(asked())
    single = Predictor(schema="caption", backend=Transformers(loader.load("tiny", device="cpu")),
                       sampling=Sampling(max_new_tokens=24)).sample(fields={"caption": "A."})  # fmt: skip
    assert found[1]["text"] == single.text and found[1]["outcome"] == single.outcome
    assert found[0]["n_prompt_tokens"] > found[1]["n_prompt_tokens"]


def test_a_caption_is_the_source_that_nothing_else_is_needed_for() -> None:
    class Says(Engine):
        def answer(self, request: Request) -> Completion:
            return Completion(id=request.id, text=answer_text(caption_gold(1), CAPTION))

    with served(Says(), schema="caption") as url:
        assert post(url, {"fields": {"caption": "A small horse."}}).json()["value"] == caption_gold(1)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--limit", "quue=3"], "did you mean 'queue'"),
        (["--token", "DFK_NO_SUCH_VARIABLE"], "is not set"),
        (["--limit", "queue=0"], "greater than or equal to 1"),
    ],
)
def test_the_command_refuses_what_cannot_work_before_it_listens(
    tmp_path: Path, arguments: list[str], reason: str
) -> None:
    answers = write_answers(tmp_path / "a.jsonl", [])
    backend = f"{{kind: scripted, completions: {answers}}}"
    done = CliRunner().invoke(cli.app, ["serve", "--backend", backend, "--schema", "caption", *arguments])
    assert isinstance(done.exception, ConfigError) and reason in str(done.exception)
