"""Compute intervals and tests for any metric from its sufficient statistics.

How it works: resampled sums over groups (`bootstrap`) go through the metric's own `reduce`, so a value, its
interval and a difference between runs are one computation. The spread of several runs of one model (other
seeds) is in the interval too (`repeated_runs`).

Guarantees:

- A seed gives the same numbers on every machine.
- Intervals are percentile intervals, widened to hold the point value; samples of one group alone have none.
- Comparisons use only rows that all runs have.
- An interval of a share stays within [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from dfkeval.analysis.bootstrap import clusters, resample_all
from dfkeval.analysis.repeated_runs import moved_difference, moved_mean, resampled_means
from dfkeval.metrics import Bools, Floats, Measured, Metric

RESAMPLES = 10_000
CONFIDENCE = 0.95


class Estimate(msgspec.Struct, frozen=True):
    """A value of a metric with its interval.

    Attributes:
        value: None if nothing was scored.
        low: Lower bound of the interval; None without one.
        high: Upper bound.
        n: Number of samples that were scored.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


class Pooled(msgspec.Struct, frozen=True):
    """The mean of several runs with its interval.

    Attributes:
        value: None if nothing was scored.
        low: Lower bound of the interval; None without one.
        high: Upper bound.
        n: Number of rows; of values with fewer, that of the run with the fewest.
        spread: Standard deviation of the runs' values; None for one run alone.
        by_run: The value of each run.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    spread: float | None
    by_run: tuple[float | None, ...]


class Difference(msgspec.Struct, frozen=True):
    """The second run minus the first, on their common samples.

    Attributes:
        value: The difference; None if nothing was scored.
        low: Lower bound of its interval; None without one.
        high: Upper bound.
        n: Number of common samples.
        a: The first run's value.
        b: The second run's value.
        p: Two-sided p value.
        p_holm: The p value corrected for the comparisons beside it; None if it was not corrected.
        test: Where `p` is from.
        lower_is_better: Whether a negative difference is an improvement.
        confidence: Coverage of the interval.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    a: float | None = None
    b: float | None = None
    p: float | None = None
    p_holm: float | None = None
    test: str = "paired bootstrap"
    lower_is_better: bool = False
    confidence: float = CONFIDENCE

    @property
    def verdict(self) -> str:
        """Whether the second run is "better" or "worse": the interval excludes 0, and a corrected p is small
        enough.

        Else "no difference shown"; "n/a" without an interval.
        """
        if self.low is None or self.high is None:
            return "n/a"
        by_chance = self.p_holm is not None and self.p_holm > 1 - self.confidence
        if self.low <= 0 <= self.high or by_chance:
            return "no difference shown"
        return "better" if (self.low > 0) != self.lower_is_better else "worse"


def estimate(
    metric: Metric,
    measured: Measured,
    groups: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 42,
) -> dict[str, Estimate]:
    """Return each value of a metric with its interval; `groups` holds the group of each sample, of length
    N."""
    one = {"": (metric, measured)}
    return estimates(one, groups, resamples=resamples, confidence=confidence, seed=seed)[""]


def estimates(
    scored: Mapping[str, tuple[Metric, Measured]],
    groups: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 42,
) -> dict[str, dict[str, Estimate]]:
    """Estimate the values of several metrics of the same samples, which share the draws of groups.

    Args:
        scored: Metric name -> the metric and its statistics.
        groups: The group of each sample, of length N; groups are resampled whole.
        resamples: Number of resamples.
        confidence: Coverage of the intervals.
        seed: Seed of the resamples.

    Returns:
        Metric name -> value name -> estimate.
    """
    sums = {
        name: clusters(measured.values[measured.scored], _kept(groups, measured))
        for name, (_, measured) in scored.items()
    }
    several = [name for name, table in sums.items() if len(table) > 1]
    drawn = dict(zip(several, resample_all([sums[name] for name in several], resamples, seed), strict=True))
    return {
        name: _estimates(metric, measured, drawn.get(name), confidence)
        for name, (metric, measured) in scored.items()
    }


def _estimates(
    metric: Metric, measured: Measured, drawn: Floats | None, confidence: float
) -> dict[str, Estimate]:
    """Return the estimates from resampled sums of shape (R, K); None for samples of one group alone."""
    counts = _counts(metric, [measured], measured.scored)
    point = metric.reduce(measured.values.sum(axis=0, keepdims=True), measured.columns)
    if drawn is None:
        return {name: _without_interval(value[0], counts(name)) for name, value in point.items()}
    resampled = metric.reduce(drawn, measured.columns)
    return {
        name: _interval(value[0], resampled[name], counts(name), confidence) for name, value in point.items()
    }


def _counts(metric: Metric, runs: Sequence[Measured], scored_rows: Bools) -> Callable[[str], int]:
    """Return a function: value name -> number of rows that it is made of; of several runs the fewest."""

    def count(name: str) -> int:
        title = metric.counted.get(name, metric.counted.get(name.partition(".")[0]))
        if title is None:
            return int(scored_rows.sum())
        return min(int(run.values[scored_rows, run.columns.index(title)].sum()) for run in runs)

    return count


def _kept(groups: Sequence[str], measured: Measured) -> list[str]:
    return [group for group, scored in zip(groups, measured.scored, strict=True) if scored]


def _without_interval(value: float, n: int) -> Estimate:
    return Estimate(None if math.isnan(value) or not n else float(value), None, None, n)


def _interval(value: float, drawn: Floats, n: int, confidence: float) -> Estimate:
    """Return the percentile interval over the resamples in which the value is defined."""
    defined = drawn[~np.isnan(drawn)]
    if math.isnan(value) or not len(defined):
        return _without_interval(value, n)
    low, high = np.quantile(defined, ((1 - confidence) / 2, (1 + confidence) / 2))
    return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)), n)


def pooled(
    metric: Metric,
    runs: Sequence[Measured],
    groups: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 42,
) -> dict[str, Pooled]:
    """Return the mean over several runs of one model on the same samples in the same order.

    Samples that any run did not score are left out of all; values that not all runs have are left out.

    Args:
        metric: The metric.
        runs: Its statistics of each run.
        groups: The group of each sample, of length N.
        resamples: Number of resamples.
        confidence: Coverage of the intervals.
        seed: Seed of the resamples.

    Returns:
        Value name -> mean with its interval and the runs' spread.
    """
    both = _scored_by_all(runs)
    counts = _counts(metric, runs, both)
    points, drawn = resampled_means([runs], metric, both, groups, resamples, seed)
    means = {}
    for name in points[0]:
        values = points[0][name]
        mean, n = float(values.mean()), counts(name)
        whole = _without_interval(mean, n)
        if drawn is not None:
            moved = moved_mean(drawn[0][name], values, seed, share=metric.is_share(name))
            whole = _interval(mean, moved, n, confidence)
        spread = float(values.std(ddof=1)) if len(runs) > 1 and not math.isnan(mean) else None
        means[name] = Pooled(whole.value, whole.low, whole.high, n, spread, tuple(map(_number, values)))
    return means


def difference(
    metric: Metric,
    a: Measured | Sequence[Measured],
    b: Measured | Sequence[Measured],
    groups: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 42,
) -> dict[str, Difference]:
    """Return each value of b minus a; of several runs, the difference of their means.

    Samples that any run did not score are left out of all, and `n` says how many remain; for a value that is
    made of fewer rows (`Metric.counted`), how many the run with the fewest has. Values that not all runs
    have are left out.

    Args:
        metric: The metric.
        a: Its statistics of the first run, or of several; all measured the same samples in the same order.
        b: The same of the second.
        groups: The group of each sample, of length N.
        resamples: Number of resamples.
        confidence: Coverage of the intervals.
        seed: Seed of the resamples.

    Returns:
        Value name -> difference.
    """
    left, right = _as_list(a), _as_list(b)
    both = _scored_by_all([*left, *right])
    counts = _counts(metric, [*left, *right], both)
    points, drawn = resampled_means([left, right], metric, both, groups, resamples, seed)
    scored_groups = [group for group, scored in zip(groups, both, strict=True) if scored]
    alone = len(left) == len(right) == 1 and len(set(scored_groups)) == len(scored_groups)
    differences = {}
    for name in [name for name in points[0] if name in points[1]]:
        x, y, n = float(points[0][name].mean()), float(points[1][name].mean()), counts(name)
        change = _without_interval(y - x, n)
        p, test = None, "paired bootstrap"
        if drawn is not None:
            moved = moved_difference(
                drawn[1][name] - drawn[0][name], points[0][name], points[1][name], seed,
                share=metric.is_share(name),
            )  # fmt: skip
            change, p = _interval(y - x, moved, n, confidence), _sign_p(moved)
            if alone and name in metric.binary:
                p, test = _mcnemar_of(metric.binary[name], left[0], right[0], both), "McNemar, exact"
        differences[name] = Difference(
            change.value, change.low, change.high, n, _number(x), _number(y), p, None, test,
            name in metric.lower_is_better, confidence,
        )  # fmt: skip
    return differences


def _as_list(runs: Measured | Sequence[Measured]) -> list[Measured]:
    return [runs] if isinstance(runs, Measured) else list(runs)


def _scored_by_all(runs: Sequence[Measured]) -> Bools:
    scored: Bools = np.logical_and.reduce([run.scored for run in runs])
    return scored


def _mcnemar_of(column: str, a: Measured, b: Measured, both: Bools) -> float:
    left, right = (run.values[both, run.columns.index(column)] for run in (a, b))
    return mcnemar(int(((left == 1) & (right == 0)).sum()), int(((left == 0) & (right == 1)).sum()))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _sign_p(drawn: Floats) -> float | None:
    """Return the two-sided p: how often resamples lie beyond 0; at least 2 / (R + 1)."""
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        return None
    tail = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(defined) + 1))


def mcnemar(lost: int, won: int) -> float:
    """Return the exact two-sided p of McNemar's test.

    Args:
        lost: Samples that only the first run has right.
        won: Samples that only the second run has right.
    """
    total, small = lost + won, min(lost, won)
    if total == 0:
        return 1.0
    log_half = total * math.log(2)
    tail = math.fsum(math.exp(_log_choose(total, k) - log_half) for k in range(small + 1))
    return min(1.0, 2 * tail)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return p values with Holm's correction for looking at several at once; order and names are kept."""
    known = sorted((p, name) for name, p in p_values.items() if p is not None)
    corrected: dict[str, float | None] = dict.fromkeys(p_values)
    worst = 0.0
    for rank, (p, name) in enumerate(known):
        worst = max(worst, min(1.0, p * (len(known) - rank)))
        corrected[name] = worst
    return corrected


def detectable(
    low: float | None, high: float | None, *, confidence: float = CONFIDENCE, power: float = 0.8
) -> float | None:
    """Return the smallest true difference that a comparison with an interval of this width would find.

    It is (z of the confidence + z of the power) times the standard error that the interval shows.

    Args:
        low: Lower bound of the interval; None without one.
        high: Upper bound.
        confidence: Coverage of the interval.
        power: Probability with which the difference would be found.

    Returns:
        The difference; None without an interval.
    """
    if low is None or high is None:
        return None
    from statistics import NormalDist

    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return (z + NormalDist().inv_cdf(power)) * (high - low) / (2 * z)
