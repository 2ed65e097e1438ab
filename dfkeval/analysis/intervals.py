"""Intervals of shares that hold at the edges: 5 of 5 right answers are no proof of 100 %.

How it works: resamples of rows that are all alike have no spread, and those of few rows too little. So the
resamples only give the variance (known exactly for a mean over rows); the interval is an exact one of as many
independent rows as have this variance:

    a share        Clopper and Pearson (1934) at the effective number of rows v (1 - v) / variance, less where few
                   groups give the variance: times (t(rows - 1) / t(groups - 1))^2 (Korn and Graubard 1998). It holds
                   at least what a kind of group that none of G showed could change: its share is at most
                   1 - (alpha / 2)^(1 / G), the bound of Clopper and Pearson for none of G
    a macro average of shares the same, with the variance of each class at least that of two more right and two more
                   wrong groups (Agresti and Coull 1998): a rare class that is hard shows too little of it
    a difference   as if one more group had got better by 1 and one more worse by 1 (Bonett and Price 2012), with
                   Student's t instead of the normal distribution
    other values   percentiles of the resamples, their distance to the value stretched by
                   sqrt(G / (G - 1)) t(G - 1) / z (after Hesterberg 2015)

G is Kish's (1965) effective number of groups, (sum of weights)^2 / sum of squared weights: large groups weigh more,
and so do the rows of rare classes in a macro average.

Guarantees:

- The interval of a share holds the value, lies in [0, 1] and is never of width zero; nor is that of a difference.
- A share of independent right or wrong answers has the interval of Clopper and Pearson to 1e-9."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dfkeval.metrics import Floats

#: Terms of the continued fraction and the change at which it ends; the same of Newton's steps.
TERMS, EXACT, STEPS, CLOSE = 3000, 1e-13, 100, 1e-7
#: Effective rows beyond which a share counts as known.
KNOWN = 1e7


class Evidence(NamedTuple):
    """What a value rests on.

    Attributes:
        groups: Effective number of groups.
        rows: Number of their rows.
        mean: Mean over rows of the groups' own values.
        variance: Its variance over resampled groups (Cochran 1977, the variance of a ratio).
    """

    groups: float
    rows: float
    mean: float
    variance: float

    def variance_of(self, value: float, drawn: Floats) -> float:
        """Return the variance of a value: exact for a mean over rows, else that of its resamples."""
        exact = math.isclose(value, self.mean, rel_tol=1e-9, abs_tol=1e-12)
        return self.variance if exact else float(np.nanvar(drawn))


def evidence(alone: Mapping[str, Floats], sizes: Floats, averages: Mapping[str, str]) -> dict[str, Evidence]:
    """Return for each value the groups that it rests on: those on which it is defined.

    Args:
        alone: Value name -> the value of each group alone, of shape (G,); NaN where it says nothing.
        sizes: Number of rows of each group, of shape (G,).
        averages: Value name -> pattern of the values that it is the plain mean of (`Metric.averages`).
    """
    found = {}
    for name, values in alone.items():
        weights = np.where(np.isnan(values), 0.0, sizes)
        rows = float(weights.sum())
        if not rows:
            found[name] = Evidence(0.0, 0.0, math.nan, math.nan)
            continue
        sums = weights * np.nan_to_num(values)
        mean = float(sums.sum()) / rows
        variance = float(((sums - mean * weights) ** 2).sum()) / rows**2
        found[name] = Evidence(rows**2 / float((weights**2).sum()), rows, mean, variance)
    for name, pattern in averages.items():
        parts = [part for title, part in found.items() if fnmatchcase(title, pattern) and part.rows]
        if name in found and parts:
            apart = len(parts) ** 2 / math.fsum(1 / part.groups for part in parts)
            groups = min(apart, found[name].groups)  # classes that share groups are not apart
            found[name] = found[name]._replace(groups=groups)
    return found


def average_variance(
    values: Mapping[str, float], variances: Mapping[str, float], known: Mapping[str, Evidence], whole: float
) -> float:
    """Return the variance of a plain mean of shares, some of which may rest on few groups.

    Few groups show too little spread where they are nearly alike, and none where all are. So each part has at least the
    variance of Agresti and Coull (1998), that of two more right and two more wrong groups.

    Args:
        values: Part -> its value.
        variances: Part -> its variance over resampled groups.
        known: Part -> what it rests on.
        whole: The variance of the mean over resampled groups.
    """
    lacking = 0.0
    for name, value in values.items():
        groups = known[name].groups + 4
        middle = (value * known[name].groups + 2) / groups
        lacking += max(0.0, middle * (1 - middle) / groups - variances[name])
    return whole + lacking / len(values) ** 2


def share_interval(
    value: ArrayLike, variance: ArrayLike, groups: ArrayLike, rows: ArrayLike, confidence: float
) -> tuple[Floats, Floats]:
    """Return lower and upper bounds of shares.

    Args:
        value: The shares.
        variance: Their variances over resamples.
        groups: Effective numbers of groups.
        rows: Numbers of rows.
        confidence: Coverage.
    """
    v, spread, g, n = np.broadcast_arrays(
        *(np.asarray(x, dtype=float) for x in (value, variance, groups, rows))
    )
    tail = (1 - confidence) / 2
    unseen = tail ** (1 / g)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.where(spread > 0, v * (1 - v) / spread, KNOWN)
    size = size * (student(np.maximum(n - 1, 1), confidence) / student(np.maximum(g - 1, 1), confidence)) ** 2
    exact = (spread > 0) & (size < KNOWN) & (v > 0) & (v < 1)
    low, high = np.array(v), np.array(v)
    hits, size = (v * size)[exact], size[exact]
    low[exact] = beta_quantile(hits, size - hits + 1, tail)
    high[exact] = beta_quantile(hits + 1, size - hits, 1 - tail)
    return np.minimum(low, v * unseen), np.maximum(high, 1 - (1 - v) * unseen)


def difference_interval(
    value: ArrayLike, variance: ArrayLike, groups: ArrayLike, confidence: float
) -> tuple[Floats, Floats]:
    """Return lower and upper bounds of paired differences of shares.

    Args:
        value: The differences.
        variance: Their variances over resamples.
        groups: Effective numbers of groups.
        confidence: Coverage.
    """
    d, spread, g = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in (value, variance, groups)))
    shrunk = g * d / (g + 2)
    squares = (g * (g * spread + d**2) + 2) / (g + 2)
    half = student(g + 1, confidence) * np.sqrt((squares - shrunk**2) / (g + 2))
    return np.clip(np.minimum(shrunk - half, d), -1, 1), np.clip(np.maximum(shrunk + half, d), -1, 1)


def student(freedom: ArrayLike, confidence: float) -> Floats:
    """Return the two-sided quantiles of Student's t for degrees of freedom of at least 1."""
    known, places = np.unique(np.asarray(freedom, dtype=float), return_inverse=True)
    return np.array([_student(each, confidence) for each in known.tolist()])[
        places.reshape(np.shape(freedom))
    ]


@lru_cache(maxsize=4096)
def _student(freedom: float, confidence: float) -> float:
    x = float(beta_quantile(freedom / 2, 0.5, 1 - confidence))
    return math.sqrt(freedom * (1 / x - 1))


def percentiles(drawn: Floats, confidence: float) -> tuple[float, float]:
    """Return lower and upper percentiles of the resamples in which a value is defined."""
    low, high = np.quantile(drawn[~np.isnan(drawn)], ((1 - confidence) / 2, (1 + confidence) / 2))
    return float(low), float(high)


def hull(*bounds: tuple[float, float]) -> tuple[float, float]:
    """Return the smallest interval that holds all of several."""
    return min(low for low, _ in bounds), max(high for _, high in bounds)


def stretched(value: float, drawn: Floats, groups: float, confidence: float) -> tuple[float, float]:
    """Return percentiles of the resamples, their distance to the value stretched for few groups."""
    low, high = percentiles(drawn, confidence)
    by = stretch(groups, confidence)
    return value - max(0.0, value - low) * by, value + max(0.0, high - value) * by


def stretch(groups: float, confidence: float) -> float:
    """Return by how much the distance of percentiles to the value is too small for few groups."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return (
        math.sqrt(groups / (groups - 1)) * float(student(groups - 1, confidence)) / z if groups > 1 else 1.0
    )


def beta_quantile(a: ArrayLike, b: ArrayLike, share: float) -> Floats:
    """Return the quantiles of beta distributions, by Newton's steps on log share over log x within a bracket."""
    if share > 0.5:
        return np.asarray(1 - beta_quantile(b, a, 1 - share))
    a, b = np.broadcast_arrays(np.asarray(a, dtype=float), np.asarray(b, dtype=float))
    log_beta = _log_gamma(a) + _log_gamma(b) - _log_gamma(a + b)
    mean = a / (a + b)
    x = mean + NormalDist().inv_cdf(share) * np.sqrt(mean * (1 - mean) / (a + b + 1))
    x = np.where(x > 0, x, mean / 4)
    low, high = np.zeros(a.shape), np.ones(a.shape)
    for _ in range(STEPS):
        found = beta_share(a, b, x, log_beta)
        low, high = np.where(found < share, x, low), np.where(found < share, high, x)
        with np.errstate(all="ignore"):
            slope = np.exp(a * np.log(x) + (b - 1) * np.log1p(-x) - log_beta) / found
            step = x * np.exp(-np.log(found / share) / slope)
        step = np.where((step >= low) & (step <= high), step, (low + high) / 2)
        done = bool(np.all(np.abs(step - x) <= CLOSE * x))
        x = step
        if done:
            break
    return np.asarray(x)


def beta_share(a: Floats, b: Floats, x: Floats, log_beta: Floats) -> Floats:
    """Return the regularised incomplete beta function by its continued fraction (Lentz 1976)."""
    turned = x > (a + 1) / (a + b + 2)
    p, q, y = np.where(turned, b, a), np.where(turned, a, b), np.where(turned, 1 - x, x)
    with np.errstate(divide="ignore"):
        front = np.exp(p * np.log(y) + q * np.log1p(-y) - log_beta) / p
    d = 1 / _not_zero(1 - (p + q) * y / (p + 1))
    c, fraction = np.ones_like(d), np.array(d)
    for m in range(1, TERMS):
        for term in (
            m * (q - m) * y / ((p + 2 * m - 1) * (p + 2 * m)),
            -(p + m) * (p + q + m) * y / ((p + 2 * m) * (p + 2 * m + 1)),
        ):
            d, c = 1 / _not_zero(1 + term * d), _not_zero(1 + term / c)
            fraction = fraction * d * c
        if np.all(np.abs(d * c - 1) < EXACT):
            break
    return np.asarray(np.where(turned, 1 - front * fraction, front * fraction))


def _not_zero(values: Floats) -> Floats:
    return np.where(np.abs(values) < 1e-300, 1e-300, values)


def _log_gamma(values: Floats) -> Floats:
    return np.asarray([math.lgamma(each) for each in values.ravel().tolist()]).reshape(values.shape)
