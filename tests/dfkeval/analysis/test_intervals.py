"""Intervals at the edges: never of width zero, equal to exact ones where these exist, and as wide as they say."""

from __future__ import annotations

import importlib
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import interval_coverage
from dfkeval.analysis import gates, intervals, statistics
from dfkeval.metrics import Measured, Metric, Scoring, column, labels, ratio
from tests.helpers.runs import DFK, sample_of

MEAN = Metric(
    lambda samples, scoring: Measured((), np.zeros((0, 0)), np.zeros(0, dtype=np.bool_)),
    lambda sums, columns: {"mean": ratio(column(sums, columns, "x"), column(sums, columns, "n"))},
    binary={"mean": "x"},
)


def measured(values: list[float]) -> Measured:
    table = np.stack([np.ones(len(values)), np.array(values, dtype=float)], axis=1)
    return Measured(("n", "x"), table, np.ones(len(values), dtype=np.bool_))


def names(count: int, size: int = 1) -> list[str]:
    return [str(index // size) for index in range(count)]


def scipy(name: str) -> Any:
    return pytest.importorskip(f"scipy.{name}")


@pytest.mark.parametrize("share", [0.0005, 0.005, 0.025, 0.5, 0.9, 0.975, 0.995])
def test_beta_quantiles_are_those_of_scipy(share: float) -> None:
    rng = np.random.default_rng(1)
    a, b = (10 ** rng.uniform(-1, 5, 500) for _ in range(2))
    assert np.abs(intervals.beta_quantile(a, b, share) - scipy("stats").beta.ppf(share, a, b)).max() < 1e-10


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_quantiles_of_student_are_those_of_scipy(confidence: float) -> None:
    freedom = [1, 1.5, 2, 3, 10, 100.5, 1e4]
    want = scipy("stats").t.ppf((1 + confidence) / 2, freedom)
    assert intervals.student(freedom, confidence) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("n", [2, 3, 5, 20, 85, 300])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_independent_right_and_wrong_answers_have_the_exact_interval(n: int, confidence: float) -> None:
    binomtest = scipy("stats").binomtest
    for hits in sorted({0, 1, n // 3, n // 2, n - 1, n}):
        found = statistics.estimate(
            MEAN, measured([1.0] * hits + [0.0] * (n - hits)), names(n), confidence=confidence, resamples=50
        )["mean"]
        want = binomtest(hits, n).proportion_ci(confidence, "exact")
        assert (found.low, found.high) == (
            pytest.approx(want.low, abs=1e-9),
            pytest.approx(want.high, abs=1e-9),
        )


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (0, 5), (3, 9), (10, 11), (40, 60)])
def test_p_of_mcnemar_is_that_of_scipy(lost: int, won: int) -> None:
    want = scipy("stats").binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert statistics.mcnemar(lost, won) == pytest.approx(want)


def test_five_of_five_are_no_proof_of_all() -> None:
    found = statistics.estimate(MEAN, measured([1.0] * 5), names(5))["mean"]
    assert (found.value, found.high) == (1.0, 1.0) and found.low == pytest.approx(0.478, abs=1e-3)
    three = statistics.estimate(MEAN, measured([1.0] * 3), names(3))["mean"]
    summary = {"metrics": {"validity.schema_valid": {"value": 1.0, "low": three.low, "high": 1.0, "n": 3}}}
    assert gates.gate("validity.schema_valid.low < 0.99").fails(summary)
    assert not gates.gate("validity.schema_valid.value < 0.99").fails(summary)


@given(
    st.integers(2, 12).flatmap(
        lambda n: st.tuples(
            st.lists(st.sampled_from([0.0, 0.25, 0.7, 1.0]), min_size=n, max_size=n),
            st.lists(st.sampled_from([0.0, 0.25, 0.7, 1.0]), min_size=n, max_size=n),
            st.integers(1, 3),
        )
    )
)
@settings(max_examples=60, deadline=None)
def test_no_interval_of_a_share_is_of_width_zero(case: tuple[list[float], list[float], int]) -> None:
    left, right, size = case
    groups = names(len(left), size)
    a, b = measured(left), measured(right)
    if len(set(groups)) < 2:
        return
    for metric in (MEAN, Metric(MEAN.measure, MEAN.reduce)):
        one = statistics.estimate(metric, a, groups, resamples=60)["mean"]
        many = statistics.pooled(metric, [a, b, a], groups, resamples=60)["mean"]
        for found in (one, many):
            assert found.low is not None and found.high is not None and found.value is not None
            assert 0 <= found.low <= found.value <= found.high <= 1 and found.high - found.low > 0.01
        for sides in ((a, b), ([a, a], [b, b])):
            change = statistics.difference(metric, *sides, groups, resamples=60)["mean"]
            assert change.low is not None and change.high is not None and change.value is not None
            assert -1 <= change.low <= change.value <= change.high <= 1 and change.high - change.low > 0.01


def test_every_value_of_perfect_answers_has_a_width() -> None:
    samples = [sample_of(index, DFK, None) for index in range(12)]
    groups = [sample.group for sample in samples]
    for name in ("labels", "validity", "fields", "rouge", "sita", "answers"):
        metric = importlib.import_module(f"dfkeval.metrics.{name}").METRIC
        table = metric.measure(samples, Scoring(DFK))
        for value, found in statistics.estimate(metric, table, groups, resamples=100).items():
            if found.value is not None and metric.is_share(value):
                assert found.low is not None and found.high is not None and found.high > found.low, (
                    name,
                    value,
                )


def test_a_rare_class_has_the_interval_of_its_own_rows() -> None:
    table = np.zeros((300, 22))
    gold = np.array([0] * 297 + [1] * 3)
    columns = [f"{a}{labels.SEPARATOR}{b}" for a in "abcd" for b in (*"abcd", labels.UNPARSED)]
    table[np.arange(300), 6 * gold] = 1
    table[:, -2:] = 1
    found = statistics.estimate(
        labels.METRIC, Measured((*columns, "n", "hit"), table, np.ones(300, dtype=np.bool_)), names(300)
    )
    low = {name: each.low for name, each in found.items()}
    assert low["recall.a"] == pytest.approx(0.025 ** (1 / 297)) and low["recall.b"] == pytest.approx(
        0.025 ** (1 / 3)
    )
    assert low["accuracy"] == pytest.approx(0.025 ** (1 / 300))
    assert low["macro_f1"] == pytest.approx(0.025 ** ((1 / 297 + 1 / 3) / 4))
    assert low["recall.c"] is None


def test_classes_that_share_their_groups_are_no_more_than_these_groups() -> None:
    columns = [f"{a}{labels.SEPARATOR}{b}" for a in "abcd" for b in (*"abcd", labels.UNPARSED)]
    table = np.zeros((40, 22))
    table[np.arange(40), 6 * (np.arange(40) % 4)] = 1
    table[:, -2:] = 1
    perfect = Measured((*columns, "n", "hit"), table, np.ones(40, dtype=np.bool_))
    for size in (1, 4):
        found = statistics.estimate(labels.METRIC, perfect, names(40, size))["macro_f1"]
        assert found.low == pytest.approx(0.025 ** (size / 40))


def test_clusters_of_other_sizes_count_for_less() -> None:
    groups = ["big"] * 16 + list("abcd")
    found = statistics.estimate(MEAN, measured([1.0] * 20), groups)["mean"]
    assert found.low == pytest.approx(0.025 ** ((16**2 + 4) / 20**2))


def test_clusters_have_the_interval_of_korn_and_graubard() -> None:
    stats = scipy("stats")
    hits, size, groups = np.array([4, 4, 3, 0, 4, 2, 1, 4]), 4, 8
    values = [float(row < right) for right in hits for row in range(size)]
    found = statistics.estimate(MEAN, measured(values), names(groups * size, size))["mean"]
    v, n = hits.sum() / (groups * size), groups * size
    variance = ((hits - v * size) ** 2).sum() / n**2
    rows = v * (1 - v) / variance * (stats.t.ppf(0.975, n - 1) / stats.t.ppf(0.975, groups - 1)) ** 2
    want = (
        stats.beta.ppf(0.025, v * rows, rows - v * rows + 1),
        stats.beta.ppf(0.975, v * rows + 1, rows - v * rows),
    )
    assert (found.low, found.high) == pytest.approx(want, abs=1e-9)


def test_other_values_are_stretched_for_few_groups() -> None:
    free = Metric(MEAN.measure, MEAN.reduce, unbounded=("mean",))
    values = np.random.default_rng(4).normal(size=8)
    found = statistics.estimate(free, measured(values.tolist()), names(8))["mean"]
    want = 2 * 2.3646 * values.std(ddof=1) / math.sqrt(8)
    assert (found.high or 0) - (found.low or 0) == pytest.approx(want, rel=0.1)


SMALL = [
    (p, n, bool((place + row) % 2))
    for place, p in enumerate((0.9, 0.97, 1.0))
    for row, n in enumerate((3, 30, 85))
]
"""All pairs of a share, a number of rows and of groups or none."""


@pytest.mark.parametrize(("p", "n", "clustered"), SMALL)
def test_nineteen_of_twenty_intervals_hold_the_truth(p: float, n: int, clustered: bool) -> None:
    """Seeded, so that it always says the same; the whole grid is the next test."""
    for part, trials in (("values", 1500), ("differences", 1500)):
        rng = np.random.default_rng((2, int(100 * p), n, clustered))
        found = interval_coverage.PARTS[part](rng, p, n, clustered, trials)
        for method, share in found.items():
            if method not in interval_coverage.OTHERS and "before" not in method:
                assert share >= 0.93, (part, method)


@pytest.mark.parametrize("clustered", [False, True])
def test_macro_f1_holds_the_truth_where_a_rare_class_is_hard(clustered: bool) -> None:
    rng = np.random.default_rng(15)
    found = interval_coverage.hard(rng, 0.2, 85, clustered, 1200)
    assert min(found.values()) >= 0.93


def test_a_class_that_is_always_wrong_in_few_rows_widens_the_macro_average() -> None:
    known = {name: intervals.Evidence(5.0, 5.0, 0.0, 0.0) for name in ("a", "b")}
    widened = intervals.average_variance({"a": 0.0, "b": 1.0}, {"a": 0.0, "b": 0.0}, known, 0.0)
    middle = 2 / 9
    assert widened == pytest.approx(2 * middle * (1 - middle) / 9 / 4)
    assert intervals.average_variance({"a": 0.4, "b": 0.6}, {"a": 0.9, "b": 0.9}, known, 0.3) == 0.3


def test_percentiles_of_the_resamples_did_not_hold_it() -> None:
    rng = np.random.default_rng(3)
    assert interval_coverage.values(rng, 0.97, 30, False, 400)["before"] < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("part", list(interval_coverage.PARTS))
def test_the_whole_grid_holds_the_truth(part: str) -> None:
    grid = itertools.product((False, True), interval_coverage.SHARES, interval_coverage.SIZES)
    assert len(list(grid)) == 50
    for clustered, p, n, found in interval_coverage.cells(part, 3000):
        for method, share in found.items():
            if method not in interval_coverage.OTHERS and "before" not in method:
                assert share >= 0.93, (clustered, p, n, method)
