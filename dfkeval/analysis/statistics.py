"""Compute intervals and tests for any metric from its sufficient statistics.

How it works: resampled sums over groups (`bootstrap`) go through the metric's own `reduce`, so a value, its
interval and a difference between runs are one computation. The spread of several runs of one model (other
seeds) is in the interval too (`repeated_runs`).

Guarantees:

- A seed gives the same numbers on every machine.
- Intervals hold the value; samples of one group alone have none. `intervals` says how they are made.
- Comparisons use only rows that all runs have.
- An interval of a share stays within [0, 1] and is never of width zero, nor is one of a difference of shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from dfkeval.analysis import intervals
from dfkeval.analysis.bootstrap import clusters, resample_all
from dfkeval.analysis.estimates import CONFIDENCE
from dfkeval.analysis.estimates import Difference as Difference
from dfkeval.analysis.estimates import Estimate as Estimate
from dfkeval.analysis.estimates import Pooled as Pooled
from dfkeval.analysis.intervals import Evidence
from dfkeval.analysis.repeated_runs import RunMeans, Values, moved_difference, moved_mean, resampled_means
from dfkeval.metrics import Bools, Floats, Measured, Metric

RESAMPLES = 10_000


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
        name: _estimates(metric, measured, groups, sums[name], drawn.get(name), confidence)
        for name, (metric, measured) in scored.items()
    }


def _estimates(
    metric: Metric,
    measured: Measured,
    groups: Sequence[str],
    sums: Floats,
    drawn: Floats | None,
    confidence: float,
) -> dict[str, Estimate]:
    """Return the estimates from sums of groups (G, K) and resampled ones (R, K); None for one group alone."""
    counts = _counts(metric, [measured], measured.scored)
    point = metric.reduce(measured.values.sum(axis=0, keepdims=True), measured.columns)
    values = {name: float(value[0]) for name, value in point.items()}
    bounds: dict[str, tuple[float, float]] = {}
    if drawn is not None:
        kept = _kept(groups, measured)
        sizes = clusters(np.ones((len(kept), 1)), kept)[:, 0]
        alone = intervals.evidence(metric.reduce(sums, measured.columns), sizes, metric.averages)
        bounds = _bounds(metric, values, metric.reduce(drawn, measured.columns), alone, confidence)
    return {name: _estimate(value, bounds.get(name), counts(name)) for name, value in values.items()}


def _bounds(
    metric: Metric,
    values: Mapping[str, float],
    drawn: Values,
    known: Mapping[str, Evidence],
    confidence: float,
) -> dict[str, tuple[float, float]]:
    """Return the interval of each value that has one, from its resamples and what it rests on."""
    usual = [
        name for name, value in values.items() if not math.isnan(value) and not np.isnan(drawn[name]).all()
    ]
    shares = [name for name in usual if metric.is_share(name) and 0 <= values[name] <= 1 and known[name].rows]
    bounds = {
        name: intervals.stretched(values[name], drawn[name], known[name].groups, confidence)
        for name in usual
        if name not in shares
    }
    low, high = intervals.share_interval(
        [values[name] for name in shares], [_variance(metric, name, values, drawn, known) for name in shares],
        [known[name].groups for name in shares], [known[name].rows for name in shares], confidence,
    )  # fmt: skip
    return bounds | dict(zip(shares, zip(low.tolist(), high.tolist(), strict=True), strict=True))


def _variance(
    metric: Metric, name: str, values: Mapping[str, float], drawn: Values, known: Mapping[str, Evidence]
) -> float:
    """Return the variance of a share."""
    variance = known[name].variance_of(values[name], drawn[name])
    parts = {
        part: value
        for part, value in values.items()
        if fnmatchcase(part, metric.averages.get(name, "")) and known[part].rows and 0 <= value <= 1
    }
    if not parts:
        return variance
    each = {part: known[part].variance_of(value, drawn[part]) for part, value in parts.items()}
    return intervals.average_variance(parts, each, known, variance)


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


def _estimate(value: float, bounds: tuple[float, float] | None, n: int) -> Estimate:
    if math.isnan(value) or bounds is None:
        return _without_interval(value, n)
    return Estimate(value, min(bounds[0], value), max(bounds[1], value), n)


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
    found = resampled_means([runs], metric, both, groups, resamples, seed)
    points = {name: float(values.mean()) for name, values in found.points[0].items()}
    bounds: dict[str, tuple[float, float]] = {}
    if found.drawn is not None:
        known = intervals.evidence(found.alone[0], found.sizes, metric.averages)
        bounds = _bounds(metric, points, found.drawn[0], known, confidence)
    means = {}
    for name, values in found.points[0].items():
        mean, n, rows_only = points[name], counts(name), bounds.get(name)
        if found.drawn is not None and rows_only is not None and len(runs) > 1:
            moved = moved_mean(found.drawn[0][name], values, seed, share=metric.is_share(name))
            bounds[name] = intervals.hull(rows_only, intervals.percentiles(moved, confidence))
        whole = _estimate(mean, bounds.get(name), n)
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
    found = resampled_means([left, right], metric, both, groups, resamples, seed)
    alone = len(left) == len(right) == 1 and bool((found.sizes == 1).all())
    differences = {}
    for name in [name for name in found.points[0] if name in found.points[1]]:
        x, y = (found.points[side][name] for side in (0, 1))
        value, n = float(y.mean() - x.mean()), counts(name)
        bounds, p, test = None, None, "paired bootstrap"
        if found.drawn is not None:
            drawn = found.drawn[1][name] - found.drawn[0][name]
            moved = moved_difference(drawn, x, y, seed, share=metric.is_share(name))
            bounds, p = _difference_bounds(metric, name, found, moved, confidence), _sign_p(moved)
            if alone and name in metric.binary:
                p, test = _mcnemar_of(metric.binary[name], left[0], right[0], both), "McNemar, exact"
        change = _estimate(value, bounds, n)
        differences[name] = Difference(
            change.value, change.low, change.high, n, _number(float(x.mean())), _number(float(y.mean())),
            p, None, test, name in metric.lower_is_better, confidence,
        )  # fmt: skip
    return differences


def _difference_bounds(
    metric: Metric, name: str, found: RunMeans, moved: Floats, confidence: float
) -> tuple[float, float] | None:
    """Return the interval of a difference; that of several runs also holds what their spread leaves unknown."""
    x, y = (found.points[side][name] for side in (0, 1))
    value = float(y.mean() - x.mean())
    if found.drawn is None or math.isnan(value) or np.isnan(moved).all():
        return None
    alone = {
        each: side - found.alone[0][each] for each, side in found.alone[1].items() if each in found.alone[0]
    }
    known = intervals.evidence(alone, found.sizes, metric.averages)[name]
    drawn = found.drawn[1][name] - found.drawn[0][name]
    inside = all(0 <= each <= 1 for side in (x, y) for each in side)
    if metric.is_share(name) and inside and known.rows:
        low, high = intervals.difference_interval(
            value, known.variance_of(value, drawn), known.groups, confidence
        )
        bounds = float(low), float(high)
    else:
        bounds = intervals.stretched(value, drawn, known.groups, confidence)
    return intervals.hull(bounds, intervals.percentiles(moved, confidence)) if len(x) + len(y) > 2 else bounds


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
