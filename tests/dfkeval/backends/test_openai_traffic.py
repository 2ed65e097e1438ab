"""Keys, waits, limits and several servers: how the server backend asks, and how often."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.errors import BackendError, ConfigError
from dfkeval import evaluate
from dfkeval.backends import openai
from dfkeval.backends._openai.retry import RequestFailed, Retry, Servers, duration, wait_of
from dfkeval.runs.config import EvalConfig
from tests.helpers.hostile_server import Answer, Server, ask, asked, chat, last_text
from tests.helpers.runs import DFK, gold_answers, write_rows


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
