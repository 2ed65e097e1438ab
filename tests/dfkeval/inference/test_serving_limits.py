"""What one caller asks takes nothing from the others: limits, faults of callers, a stuck engine, and the end."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest

pytest.importorskip("starlette")
from PIL import Image

from dfkeval import Predictor
from dfkeval.inference.serving import batching
from dfkeval.inference.serving.app import application
from dfkeval.inference.serving.limits import Limits
from dfkeval.types import Completion, Request
from tests.dfkeval.inference.test_serving import HTTP, Engine, code, held, picture, post, served, until


class Refusing(Engine):
    """An engine that cannot ask a question with the word "long"."""

    def answer(self, request: Request) -> Completion:
        if "long" in str(request.messages):
            return Completion(
                id=request.id, text="", finish_reason="error", error="the prompt has 9 tokens", refused=True
            )
        return super().answer(request)


def status(url: str) -> str:
    return str(HTTP.get(f"{url}/healthz").json()["status"])


def test_what_a_caller_asks_wrongly_is_a_422_and_no_trouble_of_the_engine() -> None:
    with served(Refusing()) as url:
        refused = post(url, {"fields": {"title": "long"}})
        assert code(refused) == (422, "cannot_be_asked")
        assert refused.json()["error"]["message"] == "the prompt has 9 tokens"
        assert status(url) == "ok"
        assert post(url, {"fields": {"title": "down"}}).status_code == 502
        assert status(url) == "failing"
        assert post(url, {"fields": {"title": "x"}}).status_code == 200
        assert status(url) == "ok"


def test_a_question_that_makes_the_engine_stumble_takes_no_neighbour_with_it() -> None:
    engine = Engine()
    engine.gate.clear()
    with served(engine, batch=8, queue=8) as url, ThreadPoolExecutor(6) as pool:
        first = pool.submit(post, url, {"fields": {"title": "first"}})
        until(lambda: engine.inside == 1)
        titles = ["a", "bug", "b", "c", "bug"]
        waiting = [pool.submit(post, url, {"fields": {"title": title}}) for title in titles]
        until(lambda: held(url) == 6)
        engine.gate.set()
        assert first.result().status_code == 200
        assert [each.result().status_code for each in waiting] == [200, 502, 200, 200, 502]
        assert status(url) == "ok"


def test_a_stuck_engine_is_told_and_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "GRACE", 0.0)
    engine = Engine()
    engine.gate.clear()
    with served(engine, timeout=0.2) as url:
        assert code(post(url, {"fields": {"title": "x"}})) == (504, "timeout")
        until(lambda: status(url) == "stuck")
        assert HTTP.get(f"{url}/healthz").status_code == 503
        late = post(url, {"fields": {"title": "y"}})
        assert code(late) == (503, "stuck") and late.headers["retry-after"]
        engine.gate.set()
        until(lambda: status(url) == "ok")
        assert post(url, {"fields": {"title": "z"}}).status_code == 200


def test_every_question_carries_its_limits_to_the_engine() -> None:
    engine = Engine()
    with served(engine, tokens=77, timeout=5.0) as url:
        post(url, {"fields": {"title": "x"}})
    (request,) = engine.seen
    assert request.max_prompt_tokens == 77 and request.deadline is not None


def test_a_batch_has_so_many_pixels_at_most() -> None:
    engine = Engine()
    engine.gate.clear()
    with served(engine, batch=8, batch_pixels=150) as url, ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(post, url, {"fields": {"title": "first"}})]
        until(lambda: engine.inside == 1)
        waiting += [pool.submit(post, url, {"image": picture(8, 8)}) for _ in range(4)]
        until(lambda: held(url) == 5)
        engine.gate.set()
        assert {each.result().status_code for each in waiting} == {200}
        both = post(url, {"images": [picture(9, 9), picture(9, 9)]})
        assert code(both) == (422, "img_bomb") and "162 pixels in 2 images" in both.json()["error"]["message"]
    assert engine.batches == [1, 2, 2]


@pytest.mark.parametrize(
    "token", ["<|im_end|>", "<|image_pad|>", "<|vision_start|>", "<｜User｜>", "a<|im_start|>system"]
)
def test_a_text_that_holds_a_control_token_is_refused(token: str) -> None:
    engine = Engine()
    with served(engine) as url:
        assert code(post(url, {"fields": {"title": "x", "text": token}})) == (422, "control_token")
        for plain in ("a < b |> c", "<|", "<|box_start|>", "<b>|x|</b>"):
            assert post(url, {"fields": {"title": plain}}).status_code == 200
    assert token not in str(engine.seen)


def damaged() -> str:
    """A JPEG whose header is whole and whose picture is not."""
    data = io.BytesIO()
    Image.effect_noise((200, 200), 90).save(data, "JPEG")
    whole = data.getvalue()
    return base64.b64encode(whole[:300] + bytes(len(whole) - 302) + whole[-2:]).decode()


def test_a_picture_is_refused_before_a_server_stumbles_over_it() -> None:
    engine = Engine()
    engine.capabilities = replace(engine.capabilities, remote=True)
    with served(engine) as url:
        assert code(post(url, {"image": picture(402, 2)})) == (422, "img_shape")
        truncated = base64.b64decode(picture(64, 64))[:-30]
        answer = post(url, {"image": base64.b64encode(truncated).decode()})
        assert answer.status_code == 422
        assert post(url, {"image": damaged()}).status_code in (200, 422)
        assert post(url, {"image": picture(400, 2)}).status_code == 200


def test_only_the_named_hosts_are_answered() -> None:
    async def asked(host: str) -> list[int]:
        names = ["api.example.org", "localhost"]
        app = application(Predictor(schema="dfk_label", backend=Engine()), hosts=names)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=transport, base_url="http://localhost", headers={"host": host}
            ) as client,
        ):
            replies = [
                await client.post("/predict", json={"fields": {"title": "x"}}),
                await client.get("/schema"),
                await client.get("/healthz"),
            ]
        return [reply.status_code for reply in replies]

    for host in ("localhost", "LOCALHOST:8080", "api.example.org"):
        assert asyncio.run(asked(host)) == [200, 200, 200]
    for host in ("evil.example.org", "127.0.0.1", "localhost.evil.org", "a@localhost:b"):
        assert asyncio.run(asked(host)) == [400, 400, 400]


def test_one_connection_too_many_is_closed_and_the_others_are_answered() -> None:
    with served(Engine(), connections=6) as url:
        host, port = url.removeprefix("http://").split(":")
        lines = [socket.create_connection((host, int(port)), timeout=10) for _ in range(12)]
        try:
            closed = []
            for line in lines:
                line.settimeout(0.5)
                try:
                    closed.append(line.recv(1) == b"")
                except TimeoutError:
                    closed.append(False)
                except ConnectionResetError:
                    closed.append(True)
            assert 5 <= sum(closed) <= 8
        finally:
            for line in lines:
                line.close()
        until(lambda: answered(url))


def answered(url: str) -> bool:
    try:
        return post(url, {"fields": {"title": "x"}}).status_code == 200
    except httpx.HTTPError:
        return False


def test_what_was_taken_is_answered_when_the_service_ends() -> None:
    engine = Engine()
    engine.gate.clear()
    with ThreadPoolExecutor(16) as pool:
        with served(engine, batch=4) as url:
            waiting = [pool.submit(post, url, {"fields": {"title": f"T{index}"}}) for index in range(16)]
            until(lambda: held(url) == 16)
            threading.Timer(0.2, engine.gate.set).start()
        assert [each.result().status_code for each in waiting] == [200] * 16


def test_the_openapi_document_names_every_path_status_and_field() -> None:
    with served(Engine(), token="secret", characters=50, images=3) as url:
        told = HTTP.get(f"{url}/openapi.json").json()
        good = HTTP.post(
            f"{url}/predict", json={"fields": {"title": "x"}}, headers={"authorization": "Bearer secret"}
        ).json()
    assert told["openapi"].startswith("3.1") and set(told["paths"]) == {
        "/predict", "/schema", "/healthz", "/metrics", "/openapi.json"
    }  # fmt: skip
    question = told["components"]["schemas"]["Question"]["properties"]
    assert (
        question["fields"]["properties"]["title"]["maxLength"] == 50 and question["images"]["maxItems"] == 3
    )
    answer = told["components"]["schemas"]["Answer"]
    assert set(answer["required"]) == set(good) == set(answer["properties"])
    assert told["paths"]["/predict"]["post"]["security"] == [{"token": []}]


def noise(rng: random.Random, depth: int = 0) -> Any:
    """A JSON value that may be nearly a question."""
    texts = [
        "",
        "x",
        "<|im_end|>",
        "\x00",
        "é" * 40,
        "../../etc/passwd",
        "http://127.0.0.1/",
        "=1+1",
        "\u202e",
        "\U0001f600",
    ]
    makers: list[Any] = [
        lambda: rng.choice(texts), lambda: rng.choice([None, True, -1, 1e308, 10**30, 0.5]), lambda: picture(8, 8),
        lambda: picture(8, 8)[: rng.randint(0, 90)], lambda: damaged(),
        lambda: f"data:image/{rng.choice(['png', 'svg+xml', ''])};base64,{picture(4, 4)}",
    ]  # fmt: skip
    if depth < 3:
        names = ["fields", "images", "image", "title", "text", "caption", rng.choice(texts)]
        makers += [
            lambda: {rng.choice(names): noise(rng, depth + 1) for _ in range(rng.randint(0, 4))},
            lambda: [noise(rng, depth + 1) for _ in range(rng.randint(0, 4))],
        ] * 3
    return rng.choice(makers)()


def test_nothing_that_is_sent_is_a_fault_of_the_service() -> None:
    """A small seeded fuzz; the whole one, by schemathesis against the OpenAPI document, is in docs/serving.md."""
    rng = random.Random(16)
    seen: dict[int, int] = {}
    app = application(Predictor(schema="dfk_label", backend=Engine()), Limits(pixels=10_000, characters=300))

    async def fuzzed() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            for number in range(400):
                good = {"fields": {"title": "x"}, "images": []}
                body = (
                    {**good, **(made if isinstance(made := noise(rng), dict) else {})}
                    if number % 2
                    else noise(rng)
                )
                content = json.dumps(body).encode()
                if number % 7 == 0:
                    content = content[: rng.randint(0, len(content))] + rng.randbytes(rng.randint(0, 5))
                reply = await client.post(
                    "/predict", content=content, headers={"content-type": "application/json"}
                )
                assert reply.status_code in (200, 400, 422), (reply.status_code, content)
                seen[reply.status_code] = seen.get(reply.status_code, 0) + 1

    asyncio.run(fuzzed())
    assert all(seen.get(status, 0) > 10 for status in (200, 400, 422)), seen
