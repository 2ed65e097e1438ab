"""Intervals and tests for any metric, from its sufficient statistics.

Strategy: samples of one group are summed first, since they are not independent; a resample draws groups
with replacement and is a row of integer weights, so all resamples of a metric are one matrix product. Equal
groups are lumped and drawn together (a multinomial), which makes ten thousand resamples of a confusion
matrix a matter of milliseconds. Promises: seeded and repeatable; intervals are percentile intervals,
widened to hold the point value; one group alone has no interval; comparisons use only rows that both runs
have."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from dfkeval.metrics import Floats, Measured, Metric

RESAMPLES = 10_000
CONFIDENCE = 0.95
#: Above this many distinct groups a multinomial over them costs more than drawing indices.
LUMPED = 256
#: Weights that are drawn and multiplied at once, in numbers.
CHUNK = 10_000_000


class Estimate(msgspec.Struct, frozen=True):
    """value: None where nothing was scored. low, high: bounds of the interval, None without one. n: samples
    scored."""

    value: float | None
    low: float | None
    high: float | None
    n: int


class Difference(msgspec.Struct, frozen=True):
    """Second run minus first, on their common samples. p: two-sided; `test` names where it is from."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    a: float | None = None
    b: float | None = None
    p: float | None = None
    p_holm: float | None = None
    test: str = "paired bootstrap"


def estimate(
    metric: Metric,
    measured: Measured,
    groups: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 42,
) -> dict[str, Estimate]:
    """Each value of the metric with its interval. groups: (N,) cluster of each sample."""
    n = int(measured.scored.sum())
    point = metric.reduce(measured.values.sum(axis=0, keepdims=True), measured.columns)
    sums = clusters(measured.values[measured.scored], _kept(groups, measured))
    if len(sums) < 2:
        return {name: _without_interval(value[0], n) for name, value in point.items()}
    drawn = metric.reduce(resample(sums, resamples, seed), measured.columns)
    return {name: _interval(value[0], drawn[name], n, confidence) for name, value in point.items()}


def _kept(groups: Sequence[str], measured: Measured) -> list[str]:
    return [group for group, scored in zip(groups, measured.scored, strict=True) if scored]


def clusters(values: Floats, groups: Sequence[str]) -> Floats:
    """(N, K) -> (G, K): sums of each group, groups in sorted order, so that row order does not matter."""
    names, places = np.unique(np.array(groups, dtype=object).astype(str), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, places, values)
    return sums


def resample(sums: Floats, resamples: int, seed: int) -> Floats:
    """(G, K) -> (resamples, K): sums over G groups drawn with replacement."""
    distinct, counts = np.unique(sums, axis=0, return_counts=True)
    if len(distinct) <= LUMPED:
        drawn = np.random.default_rng(seed).multinomial(len(sums), counts / len(sums), size=resamples)
        return drawn.astype(np.float64) @ distinct
    out = np.empty((resamples, sums.shape[1]))
    step = max(1, CHUNK // len(sums))
    for number, start in enumerate(range(0, resamples, step)):
        stop = min(start + step, resamples)
        out[start:stop] = weights(stop - start, len(sums), seed, number).astype(np.float64) @ sums
    return out


@lru_cache(maxsize=16)
def weights(rows: int, groups: int, seed: int, chunk: int) -> NDArray[np.uint8]:
    """(rows, groups): how often each group is drawn in each of these resamples; rows sum to `groups`.

    The last ones are kept, because every metric of a run is resampled with the same ones."""
    rng = np.random.default_rng((seed, chunk))
    drawn = rng.integers(0, groups, size=(rows, groups), dtype=np.int32)
    drawn += (np.arange(rows, dtype=np.int32) * groups)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=rows * groups)
    return np.minimum(counts, 255).astype(np.uint8).reshape(rows, groups)


def _without_interval(value: float, n: int) -> Estimate:
    return Estimate(None if math.isnan(value) or not n else float(value), None, None, n)


def _interval(value: float, drawn: Floats, n: int, confidence: float) -> Estimate:
    """Percentile interval over the resamples where the value is defined."""
    defined = drawn[~np.isnan(drawn)]
    if math.isnan(value) or not len(defined):
        return _without_interval(value, n)
    low, high = np.quantile(defined, ((1 - confidence) / 2, (1 + confidence) / 2))
    return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)), n)


def difference(
    metric: Metric,
    a: Measured,
    b: Measured,
    groups: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 42,
) -> dict[str, Difference]:
    """Each value of b minus a. a and b: the same samples in the same order. Samples that either run did not
    score are left out of both, and `n` says how many remain. Values that only one of the runs has are left
    out."""
    both = a.scored & b.scored
    n = int(both.sum())
    width = len(a.columns)
    joint = np.concatenate([a.values[both], b.values[both]], axis=1)
    point = _pair(metric, joint.sum(axis=0, keepdims=True), a, b, width)
    sums = clusters(joint, [group for group, kept in zip(groups, both, strict=True) if kept])
    if len(sums) < 2:
        return {
            name: Difference(_number(y[0] - x[0]), None, None, n, _number(x[0]), _number(y[0]))
            for name, (x, y) in point.items()
        }
    drawn = _pair(metric, resample(sums, resamples, seed), a, b, width)
    clustered = len(sums) < n
    return {
        name: _judge(metric, name, values, drawn[name], (a, b, both), n, confidence, clustered)
        for name, values in point.items()
    }


Pair = tuple[Floats, Floats]


def _pair(metric: Metric, sums: Floats, a: Measured, b: Measured, width: int) -> dict[str, Pair]:
    left, right = metric.reduce(sums[:, :width], a.columns), metric.reduce(sums[:, width:], b.columns)
    return {name: (left[name], right[name]) for name in left if name in right}


def _judge(
    metric: Metric,
    name: str,
    values: Pair,
    drawn: Pair,
    runs: tuple[Measured, Measured, NDArray[np.bool_]],
    n: int,
    confidence: float,
    clustered: bool,
) -> Difference:
    x, y = _number(values[0][0]), _number(values[1][0])
    change = _interval(float(values[1][0] - values[0][0]), drawn[1] - drawn[0], n, confidence)
    column = metric.binary.get(name)
    if column is not None and not clustered:
        a, b, both = runs
        left, right = (m.values[both, m.columns.index(column)] for m in (a, b))
        p: float | None = mcnemar(
            int(((left == 1) & (right == 0)).sum()), int(((left == 0) & (right == 1)).sum())
        )
        return Difference(change.value, change.low, change.high, n, x, y, p, test="McNemar, exact")
    return Difference(change.value, change.low, change.high, n, x, y, _sign_p(drawn[1] - drawn[0]))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _sign_p(drawn: Floats) -> float | None:
    """Two-sided: how often the resampled difference is on the other side of 0; at least 2 / (R + 1)."""
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        return None
    tail = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(defined) + 1))


def mcnemar(lost: int, won: int) -> float:
    """Exact two-sided p of McNemar's test: `lost` samples only the first run has right, `won` only the
    second."""
    total, small = lost + won, min(lost, won)
    if total == 0:
        return 1.0
    log_half = total * math.log(2)
    tail = math.fsum(math.exp(_log_choose(total, k) - log_half) for k in range(small + 1))
    return min(1.0, 2 * tail)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Holm's correction for looking at several values at once; order and names are kept."""
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
    """Smallest true difference that a comparison with this interval's width would find with `power`; None
    without one.

    (z of the confidence + z of the power) times the standard error that the interval shows."""
    if low is None or high is None:
        return None
    from statistics import NormalDist

    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return (z + NormalDist().inv_cdf(power)) * (high - low) / (2 * z)


def stream(seed: int, name: str) -> int:
    """A seed of its own for each purpose, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big")
