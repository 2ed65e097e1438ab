"""Likelihood of the gold answers: asked once, stored, and enough to score again without a model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.errors import BackendError, ConfigError
from dfkeval import evaluate, load_run
from dfkeval.backends import Capabilities
from dfkeval.backends.scripted import Scripted
from dfkeval.evaluation import evaluate as evaluation
from dfkeval.evaluation import shards
from dfkeval.types import Completion, GoldAnswer, Likelihood, Sampling
from tests.helpers.runs import DFK, config_of, gold_answers, write_answers, write_rows

N = 6


class Judge(Scripted):
    """Plays answers back and finds row i's gold answer i nats a token unlikely, at i + 1 tokens."""

    capabilities = Capabilities(likelihoods=True)

    def __init__(self, broken: Sequence[str] = (), stop_after: int | None = None) -> None:
        names = [
            (f"{name}{drawing}", text)
            for name, text in gold_answers(DFK, N)
            for drawing in ("", "#1", "#2", "#3")
        ]
        super().__init__({name: Completion(id=name, text=text) for name, text in names})
        self.asked: list[str] = []
        self.broken, self.stop_after = broken, stop_after

    def likelihoods(self, gold_answers: Iterable[GoldAnswer], sampling: Sampling) -> Iterator[Likelihood]:
        for gold_answer in gold_answers:
            if self.stop_after is not None and len(self.asked) == self.stop_after:
                raise BackendError("the engine died")
            self.asked.append(gold_answer.request.id)
            place = int(gold_answer.request.id[1:4])
            if gold_answer.request.id in self.broken:
                yield Likelihood(id=gold_answer.request.id, error="no picture")
            else:
                yield Likelihood(id=gold_answer.request.id, nll=float(place * (place + 1)), tokens=place + 1)


def config(tmp_path: Path, metrics: Sequence[str] = ("validity", "loss"), **more: Any) -> Any:
    data = tmp_path / "test.jsonl"
    if not data.exists():
        write_rows(data, DFK, N)
    return config_of(data, write_answers(tmp_path / "answers.jsonl", gold_answers(DFK, N)), metrics, **more)


def test_the_loss_is_weighted_by_tokens(tmp_path: Path) -> None:
    run = evaluate(config(tmp_path), tmp_path / "run", backend=Judge())
    found = run.summary["metrics"]
    want = sum(i * (i + 1) for i in range(N)) / sum(i + 1 for i in range(N))
    assert found["loss.loss"]["value"] == pytest.approx(want)
    assert found["loss.perplexity"]["value"] == pytest.approx(math.exp(want))
    assert found["loss.row_loss"]["value"] == pytest.approx(2.5)
    assert (found["loss.loss"]["n"], run.summary["details"]["loss"]["tokens"]) == (N, 21)


def test_scoring_again_needs_no_model(tmp_path: Path) -> None:
    run = evaluate(config(tmp_path), tmp_path / "run", backend=Judge())
    again = evaluation.score(tmp_path / "run")
    assert again.summary == run.summary
    (tmp_path / "test.jsonl").unlink()
    assert evaluation.score(tmp_path / "run").summary["metrics"] == run.summary["metrics"]
    assert (
        load_run(tmp_path / "run").measured["loss"][1].values.tolist()
        == run.measured["loss"][1].values.tolist()
    )


def test_a_stopped_run_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BackendError):
        evaluate(config(tmp_path), tmp_path / "run", backend=Judge(stop_after=2))
    with (tmp_path / "run" / "likelihoods.jsonl").open("ab") as file:
        file.write(b'{"id": "r00')
    second = Judge()
    run = evaluate(config(tmp_path), tmp_path / "run", backend=second)
    assert second.asked == [f"r{index:03d}" for index in range(2, N)]
    whole = evaluate(config(tmp_path), tmp_path / "whole", backend=Judge())
    assert run.summary == whole.summary


def test_a_metric_that_is_added_later_keeps_the_answers(tmp_path: Path) -> None:
    evaluate(config(tmp_path, ["validity"]), tmp_path / "run", backend=Judge())
    answers = (tmp_path / "run" / "completions.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"holds none; add the metric .* the answers are kept"):
        evaluation.score(tmp_path / "run", metrics=["loss"])
    run = evaluate(config(tmp_path), tmp_path / "run", backend=Judge())
    assert run.summary["metrics"]["loss.loss"]["n"] == N
    assert (tmp_path / "run" / "completions.jsonl").read_bytes() == answers


def test_rows_without_a_likelihood_are_counted_and_asked_again(tmp_path: Path) -> None:
    run = evaluate(config(tmp_path), tmp_path / "run", backend=Judge(broken=["r001", "r002"]))
    assert run.summary["metrics"]["loss.loss"]["n"] == N - 2
    assert run.summary["details"]["loss"]["without_likelihood"] == 2
    second = Judge()
    evaluate(config(tmp_path), tmp_path / "run", backend=second)
    assert second.asked == ["r001", "r002"]


def test_a_backend_without_likelihoods_is_refused_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"metric 'loss' needs the likelihood .* backend 'scripted' cannot give"
    ):
        evaluate(config(tmp_path), tmp_path / "run")
    with pytest.raises(ConfigError, match="cannot give"):
        evaluate(config(tmp_path), tmp_path / "run", backend=Scripted({}))
    assert not (tmp_path / "run").exists()


def test_rows_without_an_answer_are_not_asked(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in write_rows(tmp_path / "test.jsonl", DFK, N).read_text().splitlines()]
    rows[0]["messages"].pop()
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    engine = Judge()
    run = evaluate(config(tmp_path), tmp_path / "run", backend=engine)
    assert engine.asked == [f"r{index:03d}" for index in range(1, N)]
    assert run.summary["metrics"]["loss.loss"]["n"] == N - 1


def test_a_row_that_is_drawn_often_is_asked_for_its_likelihood_once(tmp_path: Path) -> None:
    engine = Judge()
    sampling = {"repeats": 3, "temperature": 1.0}
    run = evaluate(config(tmp_path, sampling=sampling), tmp_path / "run", backend=engine)
    assert len(engine.asked) == N and run.summary["n"] == 3 * N
    once = evaluate(config(tmp_path), tmp_path / "once", backend=Judge())
    assert [s.gold_nll for s in run.samples] == [s.gold_nll for s in once.samples for _ in range(3)]


def test_shards_bring_their_likelihoods_along(tmp_path: Path) -> None:
    whole = evaluate(config(tmp_path), tmp_path / "whole", backend=Judge())
    parts = [tmp_path / "one", tmp_path / "two"]
    for place, part in enumerate(parts, start=1):
        evaluate(config(tmp_path, shard=f"{place}/2"), part, backend=Judge())
    merged = shards.merge(parts, tmp_path / "merged")
    assert merged.summary["metrics"] == whole.summary["metrics"]
