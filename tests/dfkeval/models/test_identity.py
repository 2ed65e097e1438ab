"""One identity decides whether an answer is used again, a run goes on, and two runs are compared."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from dfkeval.backends.openai import Config, OpenAI
from dfkeval.backends.scripted import Scripted
from dfkeval.models import identity
from dfkeval.models.identity import NOT_DECIDING, AnswerIdentity

INFO: dict[str, Any] = {
    "kind": "transformers", "model": "m", "revision": "r", "weights_sha256": "w", "adapter_sha256": "a",
    "template_sha256": "t", "pixels": {"shortest_edge": 1}, "dtype": "float32", "attention": "sdpa",
    "kernels": {"f": "torch"}, "image_backend": "fast", "torch": "2", "transformers": "5", "device": "cuda:0",
    "vllm": "1", "batching": "continuous",
}  # fmt: skip


def test_every_fact_of_an_identity_decides_something() -> None:
    facts = {each.name for each in fields(AnswerIdentity)} - {"settings"}
    assert facts == {*INFO, "server", "engine_args"}
    used = {*identity._CACHE, *identity._SERVER_CACHE, *identity._RESUME, *identity._COMPARE}
    by_own_rule = {"batching", "device", "vllm", "engine_args"}
    assert facts - used == by_own_rule


@pytest.mark.parametrize("name", sorted(INFO.keys() - {"kind", "model", "pixels"}))
def test_an_answer_is_used_again_only_where_every_fact_is_equal(name: str) -> None:
    assert AnswerIdentity.of(INFO | {name: "other"}).for_cache() != AnswerIdentity.of(INFO).for_cache()


def test_engine_options_decide_what_is_used_again_and_their_absence_changes_no_old_key() -> None:
    plain = AnswerIdentity.of(INFO)
    eager = AnswerIdentity.of(INFO | {"engine_args": {"enforce_eager": True}})
    assert eager.for_cache() != plain.for_cache()
    assert AnswerIdentity.of(INFO | {"engine_args": {}}).for_cache() == plain.for_cache()
    assert eager.for_resume() == plain.for_resume()


def test_the_number_of_a_card_decides_no_answer() -> None:
    assert AnswerIdentity.of(INFO | {"device": "cuda:7"}).for_cache() == AnswerIdentity.of(INFO).for_cache()


def test_predictions_go_on_with_other_kernels_and_not_with_other_weights() -> None:
    begun = AnswerIdentity.of(INFO).for_resume()
    assert AnswerIdentity.of(INFO | {"kernels": {"f": "fla"}, "torch": "3"}).for_resume() == begun
    for name in ("kind", "model", "revision", "weights_sha256", "adapter_sha256", "template_sha256", "dtype"):
        assert AnswerIdentity.of(INFO | {name: "other"}).for_resume() != begun, name


def test_runs_are_compared_where_questions_were_shown_alike_whatever_answered() -> None:
    one = AnswerIdentity.of(INFO)
    assert one.shown_differently(AnswerIdentity.of(INFO | {"weights_sha256": "other", "model": "n"})) is None
    assert one.shown_differently(AnswerIdentity.of(INFO | {"template_sha256": "other"})) == "template_sha256"
    assert one.shown_differently(AnswerIdentity.of(INFO | {"pixels": {}})) == "pixels"
    assert one.shown_differently(AnswerIdentity.of({})) is None  # unknown facts count as equal


def test_what_a_backend_records_is_a_fact_of_the_identity_or_declared_to_decide_nothing() -> None:
    server = OpenAI(Config(base_urls=("http://x/v1",), model="m", revision="1"), client=None)
    backends = [Scripted({}, "source"), server]
    for info in [INFO, *(backend.info for backend in backends)]:
        unknown = info.keys() - {each.name for each in fields(AnswerIdentity)} - NOT_DECIDING
        assert not unknown, unknown
    assert server.identity.for_cache() == {"model": "m", "revision": "1", "server": server.config.server}
