"""Confidence against truth: equal to plain second implementations and to scikit-learn, and robust to what
backends leave out."""

from __future__ import annotations

import random

import numpy as np
import pytest
from msgspec.structs import replace

from dfkeval.analysis import statistics
from dfkeval.metrics import Measured, Scoring, calibration
from dfkeval.types import Sample
from tests.helpers.runs import DFK, LABELS, sample_of

SCORING = Scoring(DFK)


def answered(index: int, said: str | None, probs: dict[str, float] | None) -> Sample:
    """The sample `index` with the answer `said`, None for one that cannot be read."""
    text = "?" if said is None else f"Label: {said}\n\nAnalisis: sebab"
    return replace(sample_of(index, DFK, text), label_probs=probs)


def drawn(count: int, seed: int, levels: int = 8) -> list[Sample]:
    """Answers of a model that is right more often where it is surer; `levels` different confidences."""
    rng = random.Random(seed)
    found = []
    for index in range(count):
        gold = LABELS[index % 4]
        sure = 0.3 + 0.65 * rng.randrange(levels) / (levels - 1)
        said = gold if rng.random() < sure else rng.choice([each for each in LABELS if each != gold])
        probs = {label: sure if label == said else (1 - sure) / 3 for label in LABELS}
        found.append(answered(index, said, probs))
    return found


def values(samples: list[Sample]) -> dict[str, float]:
    table = calibration.METRIC.measure(samples, SCORING)
    found = calibration.METRIC.reduce(table.values.sum(axis=0, keepdims=True), table.columns)
    return {name: float(value[0]) for name, value in found.items()}


def facts(samples: list[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """(confidence, hit) of each sample."""
    sure = np.array([sample.confidence for sample in samples], dtype=float)
    return sure, np.array([sample.label == (sample.gold or {})["label"] for sample in samples])


@pytest.mark.parametrize("levels", [8, 5000])
def test_calibration_error_equals_a_plain_loop(levels: int) -> None:
    samples = drawn(300, 1, levels)
    sure, hit = facts(samples)
    want = 0.0
    for low in range(15):
        inside = (sure >= low / 15) & (sure < (low + 1) / 15)
        if inside.any():
            want += inside.mean() * abs(hit[inside].mean() - sure[inside].mean())
    got = values(samples)
    assert got["ece"] == pytest.approx(want)
    assert got["accuracy"] == pytest.approx(hit.mean())
    assert got["confidence"] == pytest.approx(sure.mean())


@pytest.mark.parametrize(("levels", "tolerance"), [(8, 1e-12), (5000, 0.01)])
def test_average_precision_brier_and_log_loss_equal_scikit_learn(levels: int, tolerance: float) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    samples = drawn(400, 2, levels)
    gold = [str((sample.gold or {})["label"]) for sample in samples]
    probs = np.array([[(sample.label_probs or {})[label] for label in LABELS] for sample in samples])
    truth = np.array([[each == label for label in LABELS] for each in gold])
    got = values(samples)
    areas = [sklearn.average_precision_score(truth[:, i], probs[:, i]) for i in range(4)]
    assert got["average_precision"] == pytest.approx(np.mean(areas), abs=tolerance)
    assert got["average_precision.fitnah"] == pytest.approx(areas[2], abs=tolerance)
    assert got["brier"] == pytest.approx(((probs - truth) ** 2).sum(axis=1).mean())
    order = np.argsort(LABELS)
    want = sklearn.log_loss(gold, probs[:, order], labels=sorted(LABELS))
    assert got["nll"] == pytest.approx(want)


def test_the_risk_coverage_area_is_the_mean_error_rate_over_all_shares() -> None:
    rng = random.Random(3)
    sure = sorted((rng.random() * 0.7 + 0.3 for _ in range(30)), reverse=True)
    right = [rng.random() < each for each in sure]
    samples = [
        answered(index, LABELS[index % 4] if hit else LABELS[(index + 1) % 4], None)
        for index, hit in enumerate(right)
    ]
    samples = [
        replace(each, label_probs={label: p if label == each.label else (1 - p) / 3 for label in LABELS})
        for each, p in zip(samples, sure, strict=True)
    ]
    errors = np.cumsum(~np.array(right)) / np.arange(1, 31)
    got = values(samples)
    assert got["aurc"] == pytest.approx(errors.mean())
    assert got["accuracy_at_80"] == pytest.approx(1 - errors[23])
    enough = np.flatnonzero(1 - errors >= 0.95)
    assert got["coverage_at_95"] == pytest.approx((enough[-1] + 1) / 30 if len(enough) else 0.0)


def test_without_probabilities_nothing_is_scored() -> None:
    samples = [answered(index, LABELS[0], None) for index in range(6)]
    table = calibration.METRIC.measure(samples, SCORING)
    found = statistics.estimate(calibration.METRIC, table, list("abcdef"), resamples=100)
    assert {(each.value, each.n) for each in found.values()} == {(None, 0)}
    assert table.details == {}


def test_an_unreadable_answer_is_an_error_that_cannot_leave_the_accuracy() -> None:
    good = drawn(8, 4)
    silent = [answered(index, None, None) for index in range(8, 16)]
    got, alone = values([*good, *silent]), values(good)
    assert got["accuracy"] == pytest.approx(alone["accuracy"] / 2)
    assert got["ece"] == pytest.approx(alone["ece"])
    assert got["aurc"] > alone["aurc"]
    sure = answered(16, None, {LABELS[0]: 1.0, LABELS[1]: 0.0, LABELS[2]: 0.0, LABELS[3]: 0.0})
    assert values([*good, sure])["ece"] != pytest.approx(alone["ece"])
    table = calibration.METRIC.measure([*good, *silent], SCORING)
    assert table.details["without_probabilities"] == 8


def test_n_is_the_answers_that_a_value_is_made_of() -> None:
    samples = [*drawn(8, 4), *(answered(index, None, None) for index in range(8, 13))]
    table = calibration.METRIC.measure(samples, SCORING)
    groups = [str(index) for index in range(13)]
    found = statistics.estimate(calibration.METRIC, table, groups, resamples=100)
    of_all = {"accuracy", "aurc", "accuracy_at_80", "coverage_at_95"}
    assert {name for name, each in found.items() if each.n == 13} == of_all
    assert {each.n for name, each in found.items() if name not in of_all} == {8}
    fewer = calibration.METRIC.measure([replace(samples[0], label_probs=None), *samples[1:]], SCORING)
    change = statistics.difference(calibration.METRIC, table, fewer, groups, resamples=100)
    assert (change["accuracy"].n, change["ece"].n, change["average_precision.fitnah"].n) == (13, 7, 7)
    both = statistics.pooled(calibration.METRIC, [table, fewer], groups, resamples=100)
    assert (both["accuracy"].n, both["ece"].n) == (13, 7)
    alone = statistics.estimate(calibration.METRIC, table, ["one"] * 13, resamples=100)
    assert (alone["accuracy"].n, alone["brier"].n) == (13, 8)


@pytest.mark.parametrize(
    "probs", [{}, {"netral": 0.2}, {"netral": 4.0, "fitnah": -3.0}, {"else": 1.0}, {"netral": 1.0}]
)
def test_probabilities_that_are_none_or_of_other_labels_do_no_harm(probs: dict[str, float]) -> None:
    samples = [*drawn(12, 5), answered(12, "netral", probs), answered(13, None, probs)]
    table = calibration.METRIC.measure(samples, SCORING)
    found = statistics.estimate(calibration.METRIC, table, [str(i) for i in range(14)], resamples=200)
    assert all(each.value is not None and np.isfinite(each.value) for each in found.values())
    assert found["accuracy"].n == 14


def test_a_single_answer_and_a_single_class_have_numbers() -> None:
    one = answered(0, "netral", dict(zip(LABELS, (0.7, 0.1, 0.1, 0.1), strict=True)))
    got = values([one])
    assert (got["accuracy"], got["aurc"], got["coverage_at_95"]) == (1.0, 0.0, 1.0)
    assert got["ece"] == pytest.approx(0.3)
    assert got["average_precision"] == 1.0
    assert np.isnan(got["average_precision.fitnah"])


def test_the_intervals_hold_for_resamples_of_many_confidences() -> None:
    samples = drawn(500, 6, 5000)
    table: Measured = calibration.METRIC.measure(samples, SCORING)
    found = statistics.estimate(
        calibration.METRIC, table, [str(index) for index in range(500)], resamples=500
    )
    for name, each in found.items():
        assert each.low is not None and each.high is not None and each.value is not None, name
        assert each.low <= each.value <= each.high, name
        assert each.high - each.low < 0.4, name


def test_the_curves_of_the_report_end_at_every_answer() -> None:
    details = calibration.METRIC.measure(drawn(200, 7), SCORING).details
    last = details["abstention"][-1]
    assert (last["kept"], last["accuracy"]) == (1.0, pytest.approx(values(drawn(200, 7))["accuracy"]))
    kept = [point["kept"] for point in details["abstention"]]
    assert kept == sorted(kept)
    assert sum(point["n"] for point in details["reliability"]) == 200
    assert {label: curve[-1][0] for label, curve in details["precision_recall"].items()} == dict.fromkeys(
        LABELS, 1.0
    )
