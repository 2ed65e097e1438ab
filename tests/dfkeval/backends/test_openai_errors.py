"""Errors that a server reports: the same class wherever they stand, and runs that end with one error."""

from __future__ import annotations

import itertools
import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from dfkdata.common.errors import BackendError
from dfkeval import evaluate
from dfkeval.backends import openai
from dfkeval.backends._openai import errors, stream
from dfkeval.backends._openai.retry import RETRYABLE_STATUSES, RequestFailed, Servers
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Completion, Request, Sampling
from tests.helpers.runs import DFK, answer_text, dfk_gold, write_rows
from tests.helpers.servers import ChatServer, chat, chat_server, events

PLACES = ("status", "whole", "choice", "stream", "stream choice")


def at_place(place: str, status: int, error: Any) -> tuple[int, Any]:
    """Return a response that reports an error in one of the places."""
    if place == "status":
        return status, {"error": error}
    if "choice" in place:
        return 200, chat("par", "error", error=error)
    return 200, {"error": error}


def ask(url: str, count: int = 1, **more: Any) -> list[Completion]:
    fields = {"base_urls": (url,), "model": "m", "timeout": 5.0, "attempts": 3} | more
    config = openai.Config.model_validate(fields)
    backend = openai.OpenAI(config, httpx.Client(timeout=config.timeout), sleep=lambda seconds: None)
    messages = [{"role": "user", "content": [{"type": "text", "text": "q"}]}]
    try:
        return list(
            backend.generate((Request(id=str(at), messages=messages) for at in range(count)), Sampling())
        )
    finally:
        backend.close()


def outcome(place: str, status: int, error: Any) -> str:
    """Return what an error does: "again", "fails", "filtered", or the error that ends the run."""
    with chat_server(lambda number: at_place(place, status, error)) as server:
        try:
            found = ask(server.url, stream=place.startswith("stream"))[0]
        except BackendError as ended:
            assert len(server.bodies) == 1
            return str(ended).rsplit("; ", 1)[-1]
    if found.finish_reason == "content_filter":
        assert len(server.bodies) == 1
        return "filtered"
    assert found.finish_reason == "error" and found.text == ""
    return {1: "fails", 3: "again"}[len(server.bodies)]


STATUSES = [400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, *range(520, 531)]


@pytest.mark.parametrize("status", STATUSES)
def test_an_error_is_classed_like_its_status_wherever_it_stands(status: int) -> None:
    for code in (status, str(status)):
        error = {"message": "no", "code": code}
        found = {place: outcome(place, status, error) for place in PLACES}
        assert len(set(found.values())) == 1, found
    wanted = "again" if status in RETRYABLE_STATUSES else "fails"
    if status not in (401, 402, 404):
        assert found["status"] == wanted


KINDS = [
    (429, {"code": "insufficient_quota", "message": "check your plan"}, "the account is spent"),
    (429, {"type": "insufficient_quota", "code": None, "message": "m"}, "the account is spent"),
    (402, {"message": "Insufficient Balance", "code": 402}, "the account is spent"),
    (400, {"message": "Budget has been exceeded! Current cost: 1", "type": "budget_exceeded", "code": "400"},
     "the account is spent"),
    (400, {"message": "Your credit balance is too low to access it", "type": "invalid_request_error"},
     "the account is spent"),
    (401, {"message": "bad key", "code": "invalid_api_key"}, "the key is missing"),
    (404, {"message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404}, "correct backend.model"),
    (404, {"message": "no", "code": "model_not_found"}, "correct backend.model"),
    (400, {"message": "x is not a valid model ID", "code": 400}, "correct backend.model"),
    (400, {"message": "no", "param": "model", "code": 400}, "correct backend.model"),
    (400, {"message": "filtered", "code": "content_filter"}, "filtered"),
    (400, {"message": "m", "code": 400, "innererror": {"code": "ResponsibleAIPolicyViolation"}}, "filtered"),
    (403, {"message": "m", "code": 403, "metadata": {"flagged_input": "x"}}, "filtered"),
    (400, {"message": "context too long", "code": "context_length_exceeded"}, "fails"),
    (429, {"message": "slow down", "code": "rate_limit_exceeded"}, "again"),
    (403, {"message": "Key limit exceeded (total limit)", "code": 403}, "the account is spent"),
    (400, {"message": "You have reached your specified API usage limits.", "type": "invalid_request_error"},
     "the account is spent"),
    (403, {"message": "quota exceeded", "code": "403"}, "the account is spent"),
    (429, {"message": "You exceeded your current quota, please check your plan and billing details", "code": "429"},
     "the account is spent"),
    (429, {"message": "You exceeded your current quota", "status": "RESOURCE_EXHAUSTED", "code": 429}, "again"),
    (500, {"message": "m", "code": "server_error"}, "again"), (503, "overloaded", "again"),
    (400, {"message": "x" * 400 + " insufficient balance; unknown model", "code": 400}, "fails"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "error", "wanted"), KINDS)
def test_errors_are_told_apart_by_name_wherever_they_stand(status: int, error: Any, wanted: str) -> None:
    for place in PLACES:
        assert outcome(place, status, error).startswith(wanted), place


# --- spent accounts, by status, code and message

SPENT_SAID = [
    "Key limit exceeded (total limit). Manage it using https://example.org/keys",
    "Key limit exceeded (monthly limit).",
    "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.",
    "You have reached your specified workspace API usage limits.",
    "Your credit balance is too low to access the API. Please go to Plans & Billing.",
    "Insufficient Balance", "Insufficient credits. Add more using https://example.org",
    "Your project has exceeded its monthly spending cap.", "Your prepayment credits are depleted.",
    "Credit limit exceeded, please navigate to billing settings", "Monthly limit exceeded",
    "Your team has either used all available credits or reached its monthly spending limit.",
    "Billing hard limit has been reached", "user quota is not enough", "Budget has been exceeded! Current cost: 1",
]  # fmt: skip
QUOTA_SAID = [
    "quota exceeded", "Quota has been exhausted",
    "You exceeded your current quota, please check your plan and billing details",
    "litellm.RateLimitError: OpenAIException - You exceeded your current quota, please check your plan",
    "Out of call volume quota. Quota will be replenished in 22.14:18:12.",
]  # fmt: skip
RATES = [
    {"status": "RESOURCE_EXHAUSTED"}, {"details": [{"retryDelay": "20s"}]},
    {"details": [{"violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}]}]},
    " Please retry in 20.04s.", " Limit: 15 requests per minute.", '"status": "RESOURCE_EXHAUSTED"',
    " Try again in 3 seconds.",
]  # fmt: skip
RATE_SAID = [
    "Rate limit reached for m on tokens per min (TPM). Add a payment method to your account to raise it.",
    "Requests rate limit exceeded", "Rate limit exceeded", "Service tier capacity exceeded for this model.",
    "This request would exceed your organization's rate limit of 50,000 input tokens per minute",
    "Requests to the operation have exceeded token rate limit of your current pricing tier. Retry after 9 seconds.",
    "Rate limit exceeded: limit_rpm/m", "You have reached the rate limit specific to this model",
]  # fmt: skip


def class_of(status: int, error: Any, wait: float | None = None) -> str:
    """Return what an error does, as a status and in a body of 200, which must agree."""
    found = set()
    bodies: list[Any] = [{"error": error}, [{"error": error}]]
    if isinstance(error, dict):
        bodies.append(error)
    for body in bodies:
        failure = errors.of_status(status, json.dumps(body).encode(), wait)
        found.add(failure.ends_run or ("again" if failure.retryable else "fails"))
    assert len(found) == 1, found
    return found.pop()


@pytest.mark.parametrize("code", [None, "number", "text", "rate_limit_exceeded", "permission_denied"])
@pytest.mark.parametrize("status", [400, 402, 403, 429])
def test_a_spent_account_is_told_by_its_message_too(status: int, code: str | None) -> None:
    said = {"number": status, "text": str(status)}.get(code or "", code)
    for message in SPENT_SAID:
        for more in ({}, {"status": "RESOURCE_EXHAUSTED"}):
            assert class_of(status, {"message": message, "code": said} | more) == errors.REFILL, message
    for message in QUOTA_SAID:
        error = {"message": message, "code": said}
        expected = errors.REFILL if code != "rate_limit_exceeded" or status == 402 else "again"
        assert class_of(status, error) == expected, message
    if status != 402:
        assert class_of(status, {"message": "no", "code": "quota_exceeded"}) == errors.REFILL


@pytest.mark.parametrize("status", [400, 403, 429])
@pytest.mark.parametrize("rate", RATES, ids=str)
def test_a_quota_that_names_a_rate_or_a_wait_passes(status: int, rate: Any) -> None:
    for message in QUOTA_SAID:
        error = {"message": message, "code": status} | (rate if isinstance(rate, dict) else {})
        error["message"] += rate if isinstance(rate, str) else ""
        assert class_of(status, error) == "again", message
    assert class_of(status, {"message": QUOTA_SAID[0]}, wait=20.0) == "again"
    assert class_of(status, {"message": QUOTA_SAID[0]}, wait=86400.0) == errors.REFILL


@pytest.mark.parametrize("message", RATE_SAID)
def test_a_rate_is_no_spent_account(message: str) -> None:
    for code in (None, 429, "429", "rate_limit_exceeded", "1300"):
        assert class_of(429, {"message": message, "code": code}) == "again"
    assert class_of(400, {"message": message}) == "fails"
    assert class_of(500, {"message": "Disk quota exceeded"}) == "again"
    assert class_of(422, {"message": "quota exceeded"}) == "fails"


def test_errors_without_an_envelope_are_read() -> None:
    body = {"object": "error", "message": "The model `x` does not exist.", "code": 404}
    for said in [(404, body), (200, body)]:
        with chat_server(lambda number, said=said: said) as server:  # type: ignore[misc]
            with pytest.raises(BackendError, match=r"backend\.model"):
                ask(server.url)
            assert len(server.bodies) == 1


# --- runs that end


def run_config(data: Path, server: str, **more: Any) -> EvalConfig:
    backend = {"kind": "openai", "base_urls": [server], "model": "m", "concurrency": 2} | more
    return EvalConfig.model_validate({"data": data, "backend": backend, "resamples": 200})


GOOD = chat(answer_text(dfk_gold(0), DFK))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("fault", [(402, {"error": "x"}), (200, {"error": {"code": "insufficient_quota"}}),
                                   (404, {"error": {"message": "The model `m` does not exist."}})])  # fmt: skip
def test_what_was_answered_before_the_end_is_kept_and_the_run_goes_on(
    fault: tuple[int, Any], streamed: bool, tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", DFK, 20)
    spent = True
    with chat_server(lambda number: fault if spent and number > 6 else GOOD) as server:
        began = time.monotonic()
        with pytest.raises(BackendError):
            evaluate(run_config(data, server.url, stream=streamed), tmp_path / "run")
        assert time.monotonic() - began < 10 and len(server.bodies) <= 6 + 4
        lines = (tmp_path / "run" / "completions.jsonl").read_text().splitlines()
        kept = [json.loads(line) for line in lines]
        assert len(kept) == 6 and not any(each.get("error") for each in kept)
        spent = False
        run = evaluate(run_config(data, server.url, stream=streamed), tmp_path / "run")
    assert run.summary["n"] == 20 and "request_failed" not in run.summary["outcomes"]


def test_a_server_that_goes_away_ends_the_run_in_seconds_with_what_was_answered(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", DFK, 30)
    gone = threading.Event()

    def answer(number: int) -> dict[str, Any]:
        if number == 8 and not gone.is_set():
            gone.set()
            threading.Thread(target=server.close, daemon=True).start()
            time.sleep(1.0)  # until no connection is taken any more
        return GOOD

    server = ChatServer(answer, keep_alive=False)
    began = time.monotonic()
    with pytest.raises(BackendError, match=r"no server takes connections any more"):
        evaluate(run_config(data, server.url, concurrency=8), tmp_path / "run")
    assert time.monotonic() - began < 30
    lines = (tmp_path / "run" / "completions.jsonl").read_text().splitlines()
    assert 7 <= len(lines) < 30 and not any(json.loads(line).get("error") for line in lines)


def test_one_server_of_two_that_refuses_ends_nothing() -> None:
    with chat_server(lambda number: GOOD) as gone:
        url = gone.url
    with chat_server(lambda number: GOOD) as good:
        found = ask(good.url, 6, base_urls=(url, good.url), attempts=4)
    assert {each.finish_reason for each in found} == {"stop"} and len(found) == 6


def test_a_server_that_refuses_and_comes_back_is_not_gone() -> None:
    now = 0.0
    servers = Servers(2, 4, clock=lambda: now)
    servers.heard(0, refused=True)
    assert not servers.gone(at_once=True)
    servers.heard(1, refused=True)
    assert servers.gone(at_once=True) and not servers.gone(at_once=False)
    now = 6.0
    assert servers.gone(at_once=False)
    servers.heard(0, refused=False)
    assert not servers.gone(at_once=True)


# --- streams


def calls(*deltas: dict[str, Any]) -> list[tuple[Any, Any]]:
    chunks = [{"choices": [{"delta": {"tool_calls": [delta]}}]} for delta in deltas]
    end = {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}
    read = stream.read([events([*chunks, end])], lambda: 0.0)
    found = read.answer["choices"][0]["message"]["tool_calls"]
    return [(call["function"]["name"], call["function"]["arguments"]) for call in found]


def part(index: int | None, id: str | None, name: str | None, arguments: str | None) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": id, "function": {key: value for key, value in function.items() if value}}


@pytest.mark.parametrize("second", ["f", "g"])
@pytest.mark.parametrize("indices", [(0, 0), (0, 1), (None, None), (1, 0)])
@pytest.mark.parametrize("style", ["whole", "pieces", "id again", "name again"])
def test_calls_of_other_ids_stay_apart(second: str, indices: tuple[Any, Any], style: str) -> None:
    deltas = []
    for index, (name, id) in zip(indices, (("f", "a"), (second, "b")), strict=True):
        arguments = json.dumps({"x": id})
        if style == "whole":
            deltas.append(part(index, id, name, arguments))
            continue
        again = id if style != "pieces" else None
        deltas.append(part(index, id, name, None))
        named = name if style == "name again" else None
        deltas += [part(index, again, named, piece) for piece in (arguments[:3], arguments[3:])]
    wanted = [("f", '{"x": "a"}'), (second, '{"x": "b"}')]
    assert calls(*deltas) == (wanted[::-1] if indices == (1, 0) else wanted)


@pytest.mark.parametrize("index", [0, None])
@pytest.mark.parametrize("second", ["f", "g"])
@pytest.mark.parametrize("named", [False, True], ids=["name once", "name again"])
def test_pieces_of_calls_go_to_their_id_in_every_order(index: int | None, second: str, named: bool) -> None:
    pieces = {"a": ("f", ['{"x"', ": ", '"a"}']), "b": (second, ['{"x"', ": ", '"b"}'])}
    for order in sorted(set(itertools.permutations("aaabbb"))):
        rest = {id: iter(enumerate(parts)) for id, (_, parts) in pieces.items()}
        deltas = []
        for id in order:
            at, piece = next(rest[id])
            deltas.append(part(index, id, pieces[id][0] if named or not at else None, piece))
        assert sorted(calls(*deltas)) == [("f", '{"x": "a"}'), (second, '{"x": "b"}')], order


@pytest.mark.parametrize("index", [0, None])
@pytest.mark.parametrize("begun", [None, '{"x":', '{"x": 1}'])
def test_arguments_of_an_id_without_a_name_are_no_other_calls(index: int | None, begun: str | None) -> None:
    with pytest.raises(RequestFailed, match=r"id 'b'\) has no name"):
        calls(part(index, "a", "f", begun), part(index, "b", None, '{"x": 2}'))
    assert calls(part(index, None, "f", None), part(index, "b", None, "{}")) == [("f", "{}")]
    assert calls(part(index, "a", "f", None), part(index, None, None, "{}")) == [("f", "{}")]


def test_a_call_of_another_name_at_the_same_index_is_another_call_without_ids_too() -> None:
    assert calls(part(0, None, "f", "{}"), part(0, None, "g", "{}")) == [("f", "{}"), ("g", "{}")]
    assert calls(part(0, None, "get_", None), part(0, None, "word", "{}")) == [("get_word", "{}")]


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_before_an_event_is_skipped(before: bytes) -> None:
    chunks = [{"choices": [{"delta": {"content": text}}]} for text in "xy"]
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    sent = events([*chunks, end], before=before)
    for data in (sent, b"\xef\xbb\xbf" + sent.removeprefix(before)):
        for cut in range(len(data)):
            read = stream.read([data[:cut], data[cut:]], lambda: 0.0)
            assert read.answer["choices"][0]["message"]["content"] == "xy"


def test_a_stream_that_is_cut_after_empty_reasons_is_trouble() -> None:
    half = [{"choices": [{"delta": {"content": text}, "finish_reason": ""}]} for text in ("half", " an")]
    for done in (False, True):
        with pytest.raises(RequestFailed, match="not finished") as failed:
            stream.read([events(half, done=done)], lambda: 0.0)
        assert failed.value.retryable
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    answer = stream.read([events([*half, end])], lambda: 0.0).answer
    assert answer["choices"][0]["message"]["content"] == "half an"
