"""What a metric divides by, which side is which, and what must not count: one small case each, by hand."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from dfkdata.schemas import Schema
from dfkeval import metrics
from dfkeval.metrics import Scoring, answers
from dfkeval.types import Sample
from tests.helpers.runs import CAPTION, DFK, LABELS, sample_of


def values(name: str, samples: list[Sample], schema: Schema = DFK) -> dict[str, float]:
    metric = metrics.load(name)
    table = metric.measure(samples, Scoring(schema))
    found = metric.reduce(table.values.sum(axis=0, keepdims=True), table.columns)
    return {key: float(value[0]) for key, value in found.items()}


def test_rouge_precision_is_of_the_answer_and_recall_of_the_gold() -> None:
    sample = sample_of(0, DFK)
    gold = {"label": LABELS[0], "analisis": "satu dua tiga empat"}
    found = values("rouge", [replace(sample, gold=gold, value=gold | {"analisis": "satu dua"})])
    assert (found["precision"], found["recall"]) == (1.0, 0.5)


def test_an_answer_that_only_the_lenient_reading_finds_is_unparsed_for_labels() -> None:
    sample = sample_of(0, DFK)
    assert sample.lenient is not None
    found = values("labels", [sample, replace(sample_of(4, DFK), value=None)])
    assert (found["accuracy"], found["parsed"]) == (0.5, 0.5)


def test_answers_without_probabilities_do_not_thin_brier_and_log_loss() -> None:
    probs = dict(zip(LABELS, (0.5, 0.5, 0.0, 0.0), strict=True))
    sure = replace(sample_of(0, DFK), label_probs=probs)
    found = values("calibration", [sure, sample_of(4, DFK)])
    assert (found["brier"], found["confidence"]) == (pytest.approx(0.5), 0.5)


def test_a_short_answer_in_a_longer_gold_has_the_f1_of_its_words() -> None:
    assert answers.score_pair("left lung", "left lung of man here") == (0.0, pytest.approx(4 / 7))


def test_a_source_word_of_three_letters_has_to_be_covered() -> None:
    sample = replace(sample_of(0, CAPTION), source_text="dog bench")
    value = {"subjects": [{"name": "bench", "attributes": []}]}
    assert values("coverage", [replace(sample, value=value)], CAPTION)["rate"] == 0.5
