"""A request's own limits: what is too long is refused unasked, and an answer ends when its time is up."""

from __future__ import annotations

import itertools
import time
from types import SimpleNamespace
from typing import Any, Literal

import httpx
import pytest
from msgspec.structs import replace

from dfkeval.backends import openai
from dfkeval.types import Completion, Request, Sampling
from tests.helpers.servers import chat, chat_server

LONG = Sampling(max_new_tokens=60)


def asked(name: str, words: int = 3, **limits: Any) -> Request:
    parts = [{"type": "text", "text": f"kata {name} " * words}]
    return Request(id=name, messages=[{"role": "user", "content": parts}], **limits)


# --- the local model


@pytest.mark.parametrize("batching", ["continuous", "static"])
@pytest.mark.usefixtures("one_thread")
class TestLocal:
    def answers(self, tiny: Any, requests: list[Request], batching: Any) -> dict[str, Completion]:
        from dfkeval.backends.transformers import Transformers

        return {each.id: each for each in Transformers(tiny, batching=batching).generate(requests, LONG)}

    def test_a_prompt_over_its_limit_is_refused_and_the_others_are_asked(
        self, tiny: Any, batching: Literal["continuous", "static"]
    ) -> None:
        free = self.answers(tiny, [asked("a")], batching)["a"]
        assert free.n_prompt_tokens is not None and not free.refused
        exact = free.n_prompt_tokens
        found = self.answers(
            tiny,
            [asked("a", max_prompt_tokens=exact), asked("b", words=4, max_prompt_tokens=exact)],
            batching,
        )
        assert found["a"].text == free.text
        assert found["b"].refused and found["b"].finish_reason == "error"
        assert f"the limit is {exact}" in str(found["b"].error)

    def test_a_picture_that_cannot_be_read_is_the_questions_fault(
        self, tiny: Any, batching: Literal["continuous", "static"]
    ) -> None:
        broken = replace(asked("a"), images=("data:image/png;base64,aGFsbG8=",))
        assert self.answers(tiny, [broken], batching)["a"].refused

    def test_an_answer_ends_when_its_time_is_up_and_its_neighbour_goes_on(
        self, tiny: Any, batching: Literal["continuous", "static"], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from dfkeval.backends._local import prompts

        alone = self.answers(tiny, [asked("b")], batching)["b"]
        ticks = itertools.count()  # a clock that a look moves on
        monkeypatch.setattr(prompts, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
        found = self.answers(tiny, [asked("a", deadline=9), asked("b")], batching)
        assert found["a"].timed_out and found["a"].finish_reason == "error" and not found["a"].refused
        assert (found["b"].text, found["b"].n_output_tokens) == (alone.text, alone.n_output_tokens)
        assert next(ticks) < 20, "after its time nobody looks at the clock for it"

    def test_a_question_whose_time_is_up_is_not_written(
        self, tiny: Any, batching: Literal["continuous", "static"]
    ) -> None:
        found = self.answers(tiny, [asked("a", deadline=time.monotonic() - 1)], batching)
        assert found["a"].timed_out and found["a"].text == ""


# --- a server


def ask(url: str, request: Request, **more: Any) -> Completion:
    config = openai.Config.model_validate({"base_urls": (url,), "model": "m", "attempts": 4} | more)
    backend = openai.OpenAI(config, httpx.Client(timeout=5))
    backend.retry.first_wait = 100.0
    try:
        return next(backend.generate([request], Sampling()))
    finally:
        backend.close()


def test_a_server_is_not_asked_when_the_time_is_up() -> None:
    with chat_server(lambda _: chat("ya")) as server:
        found = ask(server.url, asked("a", deadline=time.monotonic() - 1))
        assert found.timed_out and server.bodies == []
        assert ask(server.url, asked("a", deadline=time.monotonic() + 100)).text == "ya"


def test_no_attempt_waits_beyond_the_time_of_the_request() -> None:
    with chat_server(lambda _: (429, {"error": {"message": "rate limit"}})) as server:
        found = ask(server.url, asked("a", deadline=time.monotonic() + 40))
        assert found.error and "429" in found.error and len(server.bodies) == 1


@pytest.mark.parametrize(
    ("status", "error", "refused"),
    [
        (400, {"code": "context_length_exceeded", "message": "x"}, True),
        (400, {"message": "This model's maximum context length is 4096 tokens, you requested 5000"}, True),
        (400, {"message": "The prompt is too long: 5000 tokens"}, True),
        (413, {"message": "no"}, True),
        (400, {"message": "unknown parameter seed"}, False),
        (500, {"message": "maximum context length"}, False),
        (404, {"message": "the model does not exist; its context length is 3"}, False),
    ],
)
def test_a_question_that_a_server_finds_too_long_is_told_from_a_failure(
    status: int, error: dict[str, str], refused: bool
) -> None:
    from dfkdata.common.errors import BackendError

    with chat_server(lambda _: (status, {"error": error})) as server:
        try:
            assert ask(server.url, asked("a"), attempts=1).refused == refused
        except BackendError:
            assert not refused
