"""Resample the mean of several runs of one model (other seeds), for pooling and comparisons.

How it works: all runs are resampled with the same groups, so what they have in common is paired. A few runs
say little about the spread of all that could have been, so their standard deviation s enters as one that is
estimated from S runs:

    a mean         each resampled mean moves by s / sqrt(S) times a draw of Student's t with S - 1 degrees of
                   freedom (Behrens 1929, Fisher 1935); a share on the logit scale, its error divided by
                   p (1 - p) (delta method), so that no draw leaves [0, 1]
    a difference   the resampled difference moves by a normal draw of both groups' s^2 / S together, and its
                   whole deviation is stretched as Student's t with the degrees of freedom that Satterthwaite
                   (1946) gives rows and runs together; a difference of shares is kept in [-1, 1]

The first interval is rather too wide than too narrow; the second is closer to its nominal coverage, which a
verdict needs. Noise of rows that runs do not share is counted with the rows and with the runs (Owen 2007, The
pigeonhole bootstrap), which makes intervals a little too wide again.
tests/dfkeval/analysis/test_repeated_runs.py measures coverage and false verdicts.

Guarantees:

- A seed gives the same resamples; the mean of one run alone moves by its rows only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dfkeval.analysis.bootstrap import clusters, resample
from dfkeval.metrics import Bools, Floats, Measured, Metric

#: Value name -> one number a run, or one a resample.
Values = dict[str, Floats]


@dataclass(frozen=True)
class RunMeans:
    """Groups of runs on the same rows, and their resampled means.

    Attributes:
        points: For each group of runs its values by run, of shape (S,).
        drawn: The resampled means of its runs, of shape (R,); None if all samples are of one group.
        alone: The means on each group of samples alone, of shape (G,).
        sizes: Number of rows of each group of samples.
    """

    points: list[Values]
    drawn: list[Values] | None
    alone: list[Values]
    sizes: Floats


def resampled_means(
    run_groups: Sequence[Sequence[Measured]],
    metric: Metric,
    both: Bools,
    groups: Sequence[str],
    resamples: int,
    seed: int,
) -> RunMeans:
    """Resample the means of groups of runs.

    Args:
        run_groups: For each group of runs, the statistics of each run on the same samples.
        metric: Their metric.
        both: Booleans of shape (N,): whether all runs scored the sample.
        groups: The group of each sample, of length N.
        resamples: Number of resamples R.
        seed: Seed of the resamples.
    """
    runs = [run for members in run_groups for run in members]
    joint = np.concatenate([run.values[both] for run in runs], axis=1)
    kept = [group for group, scored in zip(groups, both, strict=True) if scored]
    sums, sizes = clusters(joint, kept), clusters(np.ones((len(kept), 1)), kept)[:, 0]
    points = _by_group(run_groups, metric, joint.sum(axis=0, keepdims=True))
    values = [{name: table[:, 0] for name, table in tables.items()} for tables in points]
    alone = _means(_by_group(run_groups, metric, sums))
    if len(sums) < 2:
        return RunMeans(values, None, alone, sizes)
    drawn = _means(_by_group(run_groups, metric, resample(sums, resamples, seed)))
    return RunMeans(values, drawn, alone, sizes)


def _means(tables: Sequence[Values]) -> list[Values]:
    return [{name: table.mean(axis=0) for name, table in values.items()} for values in tables]


def _by_group(run_groups: Sequence[Sequence[Measured]], metric: Metric, sums: Floats) -> list[Values]:
    """Return for each group of runs value name -> (S, R), from sums (R, sum of all K)."""
    values: list[Values] = []
    start = 0
    for members in run_groups:
        tables = []
        for run in members:
            tables.append(metric.reduce(sums[:, start : start + len(run.columns)], run.columns))
            start += len(run.columns)
        names = [name for name in tables[0] if all(name in table for table in tables)]
        values.append({name: np.stack([table[name] for table in tables]) for name in names})
    return values


def moved_mean(whole: Floats, values: Floats, seed: int, *, share: bool) -> Floats:
    """Move resampled means by what a few runs leave unknown about all possible runs.

    Args:
        whole: Resampled means of the runs, of shape (R,).
        values: The value of each run on the real rows, of shape (S,).
        seed: Seed of the moves.
        share: Whether the value lies in [0, 1].
    """
    mean, error = float(values.mean()), _error(values)
    if not error > 0:
        return whole
    moved = error * np.random.default_rng((seed, 1)).standard_t(len(values) - 1, size=len(whole))
    if not share or not 0 < mean < 1:
        return np.asarray(whole + moved)
    inside = np.clip(whole, 0, 1)
    with np.errstate(divide="ignore", over="ignore"):
        logit = np.log(inside) - np.log1p(-inside) + moved / (mean * (1 - mean))
        return np.asarray(1 / (1 + np.exp(-logit)))


def moved_difference(whole: Floats, a: Floats, b: Floats, seed: int, *, share: bool) -> Floats:
    """Move and stretch resampled differences of means by what a few runs leave unknown.

    Args:
        whole: Resampled differences of the two groups' means, of shape (R,).
        a: The value of each run of the first group on the real rows, of shape (S,).
        b: The same of the second group.
        seed: Seed of the moves.
        share: Whether the values lie in [0, 1].
    """
    errors = [(len(values), _error(values)) for values in (a, b)]
    known = [(count, error) for count, error in errors if error > 0]
    if not known:
        return whole
    runs = math.fsum(error**2 for _, error in known)
    rows = float(np.nanvar(whole))
    freedom = (rows + runs) ** 2 / math.fsum(error**4 / (count - 1) for count, error in known)
    rng = np.random.default_rng((seed, 1))
    moved = whole + math.sqrt(runs) * rng.standard_normal(len(whole))
    point = float(b.mean() - a.mean())
    moved = point + (moved - point) * np.sqrt(freedom / rng.chisquare(freedom, size=len(whole)))
    return np.clip(moved, -1, 1) if share else np.asarray(moved)


def _error(values: Floats) -> float:
    """Return the standard error of the mean of several runs; 0 for one alone, NaN if a value is unknown."""
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
