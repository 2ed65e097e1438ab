"""Intervals and tests: seeded, clustered, and equal to the textbook where there is one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfkeval.analysis import bootstrap, statistics
from dfkeval.metrics import Measured, Metric, Scoring, column, labels, ratio, validity
from tests.helpers.runs import DFK, sample_of

MEAN = Metric(
    lambda samples, scoring: Measured((), np.zeros((0, 0)), np.zeros(0, dtype=np.bool_)),
    lambda sums, columns: {"mean": ratio(column(sums, columns, "x"), column(sums, columns, "n"))},
    binary={"mean": "x"},
)


def measured(values: list[float], scored: list[bool] | None = None) -> Measured:
    kept = np.array(scored if scored is not None else [True] * len(values))
    table = np.stack([np.ones(len(values)), np.array(values, dtype=float)], axis=1) * kept[:, None]
    return Measured(("n", "x"), table, kept)


def groups(count: int) -> list[str]:
    return [str(index) for index in range(count)]


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    data = measured(np.random.default_rng(1).random(80).tolist())
    free = Metric(MEAN.measure, MEAN.reduce, unbounded=("mean",))
    first = statistics.estimate(free, data, groups(80), seed=1)
    assert first == statistics.estimate(free, data, groups(80), seed=1)
    assert first != statistics.estimate(free, data, groups(80), seed=2)


def test_the_interval_of_a_mean_needs_no_draws() -> None:
    data = measured(np.random.default_rng(1).random(80).tolist())
    found = [statistics.estimate(MEAN, data, groups(80), resamples=9, seed=seed) for seed in (1, 2)]
    assert found[0] == found[1] == statistics.estimate(MEAN, data, groups(80))


def test_metrics_estimated_together_have_the_numbers_that_each_has_alone() -> None:
    rng = np.random.default_rng(8)
    some = [index % 7 > 0 for index in range(600)]
    scored = {
        "shares": (MEAN, measured(rng.random(600).tolist())),
        "lumped": (MEAN, measured(rng.integers(0, 2, 600).astype(float).tolist())),
        "some": (MEAN, measured(rng.random(600).tolist(), some)),
        "others": (MEAN, measured(rng.random(600).tolist())),
    }
    names = [str(index // 2) for index in range(600)]
    together = statistics.estimates(scored, names, resamples=300, seed=3)
    for name, (metric, data) in scored.items():
        assert together[name] == statistics.estimate(metric, data, names, resamples=300, seed=3), name


def test_sums_of_groups_do_not_depend_on_whether_each_row_is_one() -> None:
    values = np.random.default_rng(9).random((50, 3))
    alone = bootstrap.clusters(values, groups(50))
    assert sorted(alone.tolist()) == sorted(values.tolist())
    pairs = bootstrap.clusters(np.repeat(values, 2, axis=0), [str(index // 2) for index in range(100)])
    assert pairs == pytest.approx(2 * alone)


@pytest.mark.parametrize("distinct", [2, 400])
def test_the_interval_has_the_width_that_theory_gives(distinct: int) -> None:
    values = np.random.default_rng(2).integers(0, distinct, 400) / (distinct - 1)
    found = statistics.estimate(MEAN, measured(values.tolist()), groups(400))["mean"]
    assert found.low is not None and found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(400), rel=0.06)


def test_samples_of_one_group_do_not_count_as_independent() -> None:
    values = [float(index // 10 % 2) for index in range(200)]
    alone = statistics.estimate(MEAN, measured(values), groups(200))["mean"]
    together = statistics.estimate(MEAN, measured(values), [str(index // 10) for index in range(200)])["mean"]
    assert alone.low is not None and together.low is not None
    assert together.low < alone.low
    assert together.n == alone.n == 200


def test_one_group_has_no_interval_and_nothing_scored_has_no_value() -> None:
    assert statistics.estimate(MEAN, measured([0.5, 1.0]), ["a", "a"])["mean"] == statistics.Estimate(
        0.75, None, None, 2
    )
    nothing = statistics.estimate(MEAN, measured([0.5], [False]), ["a"])["mean"]
    assert nothing == statistics.Estimate(None, None, None, 0)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_the_interval_always_holds_the_value(values: list[float], seed: int) -> None:
    found = statistics.estimate(MEAN, measured(values), groups(len(values)), resamples=200, seed=seed)["mean"]
    assert found.low is not None and found.value is not None and found.high is not None
    assert found.low <= found.value <= found.high


def test_a_paired_difference_is_sharper_than_two_intervals() -> None:
    rng = np.random.default_rng(3)
    base = rng.random(200)
    a, b = measured(base.tolist()), measured((base + 0.02).tolist())
    found = statistics.difference(Metric(MEAN.measure, MEAN.reduce), a, b, groups(200))["mean"]
    assert found.low is not None and found.high is not None and 0 < found.low < 0.02 < found.high < 0.04
    alone = statistics.estimate(MEAN, a, groups(200))["mean"]
    assert alone.low is not None and alone.high is not None
    assert found.high - found.low < (alone.high - alone.low) / 2
    assert found.p is not None and found.p < 0.001


def test_a_run_against_itself_shows_no_difference() -> None:
    a = measured([0.0, 1.0] * 30)
    found = statistics.difference(MEAN, a, a, groups(60))["mean"]
    assert (found.value, found.p, found.verdict) == (0.0, 1.0, "no difference shown")
    assert found.high == pytest.approx(-(found.low or 0)) and 0 < (found.high or 0) < 0.06


def test_samples_that_one_run_did_not_score_are_left_out_of_both() -> None:
    a = measured([1.0, 1.0, 0.0], [True, True, False])
    b = measured([1.0, 0.0, 1.0], [True, True, True])
    found = statistics.difference(MEAN, a, b, groups(3))["mean"]
    assert (found.n, found.a, found.b) == (2, 1.0, 0.5)


@pytest.mark.parametrize(
    ("lost", "won", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (1, 9, 0.021484375)]
)
def test_mcnemar_is_the_exact_binomial_test(lost: int, won: int, p: float) -> None:
    assert statistics.mcnemar(lost, won) == pytest.approx(p)
    assert statistics.mcnemar(won, lost) == pytest.approx(p)


def test_mcnemar_does_not_overflow_on_large_runs() -> None:
    assert statistics.mcnemar(4000, 6000) < 1e-80


def test_clustered_runs_are_not_tested_as_if_independent() -> None:
    a, b = measured([0.0] * 20), measured([1.0] * 20)
    assert statistics.difference(MEAN, a, b, groups(20))["mean"].test == "McNemar, exact"
    clustered = statistics.difference(MEAN, a, b, [str(index // 5) for index in range(20)])["mean"]
    assert clustered.test == "paired bootstrap"


def test_holm_corrects_and_keeps_order() -> None:
    found = statistics.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None})
    assert found == {"a": pytest.approx(0.03), "b": pytest.approx(0.06), "c": pytest.approx(0.06), "d": None}


def test_the_detectable_difference_is_2_8_standard_errors() -> None:
    assert statistics.detectable(0.4, 0.6) == pytest.approx(2.8016 * 0.2 / (2 * 1.95996), rel=1e-3)
    assert statistics.detectable(None, None) is None


def test_resampled_confusions_stay_within_what_was_seen() -> None:
    samples = [sample_of(index, DFK, None if index % 3 else "?") for index in range(60)]
    scoring = Scoring(DFK)
    for metric in (labels.METRIC, validity.METRIC):
        table = metric.measure(samples, scoring)
        drawn = bootstrap.resample(bootstrap.clusters(table.values, [s.group for s in samples]), 200, 1)
        for values in metric.reduce(drawn, table.columns).values():
            assert np.nanmin(values) >= 0.0 and np.nanmax(values) <= 1.0


def test_a_count_is_the_sum_over_the_common_rows_and_not_their_mean() -> None:
    counting = Metric(MEAN.measure, lambda sums, columns: {"total": sums[:, 0].copy()})
    a, b = (Measured(("total",), np.full((20, 1), value), np.ones(20, dtype=bool)) for value in (1.0, 3.0))
    found = statistics.difference(counting, a, b, groups(20), resamples=100)["total"]
    assert (found.a, found.b, found.value, found.low, found.high) == (20.0, 60.0, 40.0, 40.0, 40.0)
    assert statistics.pooled(counting, [a, b], groups(20), resamples=100)["total"].value == 40.0


def test_another_seed_draws_other_runs_too() -> None:
    runs = [Measured(("x", "n"), np.full((9, 2), (v, 1.0)), np.ones(9, dtype=bool)) for v in (0.1, 0.4, 0.9)]
    mean = Metric(MEAN.measure, lambda sums, columns: {"mean": sums[:, 0] / sums[:, 1]})
    bounds = [
        statistics.pooled(mean, runs, groups(9), resamples=101, seed=seed)["mean"].low for seed in range(8)
    ]
    assert len(set(bounds)) > 1  # the rows of a run are all alike, so only the drawn runs can differ


def test_rare_answers_are_drawn_as_often_as_they_are_there() -> None:
    found = statistics.estimate(MEAN, measured([1.0] * 20 + [0.0] * 180), groups(200), seed=3)["mean"]
    assert found.low is not None and found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(0.1 * 0.9 / 200), rel=0.1)
    assert (found.low + found.high) / 2 == pytest.approx(0.1, abs=0.01)


def paired(shift: float, repeat: int = 1) -> tuple[Measured, Measured]:
    """Two runs of 100 * `repeat` rows whose differences have the mean `shift` and the deviation 1."""
    moved = np.random.default_rng(5).normal(size=100)
    moved = (moved - moved.mean()) / moved.std() + shift
    return measured([0.0] * 100 * repeat), measured(np.repeat(moved, repeat).tolist())


@pytest.mark.parametrize("deviations", [0.5, 1.0, 1.5, 2.0])
def test_the_p_of_a_paired_difference_is_two_sided(deviations: float) -> None:
    plain = Metric(MEAN.measure, MEAN.reduce)
    found = statistics.difference(plain, *paired(deviations / 10), groups(100), seed=1)["mean"]
    assert found.p == pytest.approx(math.erfc(deviations / math.sqrt(2)), abs=0.03)


def test_differences_and_means_of_runs_know_groups_and_seeds() -> None:
    a, b = paired(0.1, repeat=4)
    names = [str(index // 4) for index in range(400)]

    free = Metric(MEAN.measure, MEAN.reduce, unbounded=("mean",))

    def width(names: list[str], seed: int = 1) -> float:
        found = statistics.difference(free, a, b, names, seed=seed, resamples=2000)["mean"]
        assert found.low is not None and found.high is not None
        return found.high - found.low

    assert width(names) == pytest.approx(2 * width(groups(400)), rel=0.1)  # four equal rows are one
    assert width(names) == width(names)
    assert width(names) != width(names, seed=2)
    low = [statistics.pooled(free, [b], each, seed=1)["mean"].low for each in (names, groups(400))]
    assert low[0] is not None and low[1] is not None
    assert low[0] < low[1] - 0.05


@pytest.mark.parametrize(
    ("low", "high", "p_holm", "verdict"),
    [
        (0.1, 0.3, 0.01, "better"),
        (-0.3, -0.1, 0.01, "worse"),
        (0.1, 0.3, 0.06, "no difference shown"),  # one of many comparisons: chance enough
        (0.1, 0.3, None, "better"),  # not among the corrected values
        (-0.1, 0.3, 0.01, "no difference shown"),
    ],
)
def test_a_verdict_needs_the_interval_and_the_corrected_p(
    low: float, high: float, p_holm: float | None, verdict: str
) -> None:
    assert statistics.Difference(0.2, low, high, 40, p=0.004, p_holm=p_holm).verdict == verdict
    strict = statistics.Difference(0.2, low, high, 40, p=0.004, p_holm=0.03, confidence=0.99)
    assert strict.verdict == "no difference shown"
