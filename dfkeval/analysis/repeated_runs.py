"""Several runs of one model (other seeds) as one side of a comparison: their mean, resampled.

Strategy: all runs are resampled with the same groups, so what they have in common is paired. A few runs say
little about the spread of all that could have been, so their standard deviation s enters as one that is
estimated from S runs:

    a mean         each resampled mean moves by s / sqrt(S) times a draw of Student's t with S - 1 degrees of
                   freedom (Behrens 1929, Fisher 1935); a share on the logit scale, its error divided by
                   p (1 - p) (delta method), so that no draw leaves [0, 1]
    a difference   the resampled difference moves by a normal draw of both sides' s^2 / S together, and its
                   whole deviation is stretched as Student's t with the degrees of freedom that Satterthwaite
                   (1946) gives rows and runs together; a difference of shares is kept in [-1, 1]

The first is rather too wide than too narrow; the second is nearer to what it says, which a verdict needs.
Promises: seeded; one run alone moves by its rows only. The noise of rows that runs do not share is counted
with the rows and with the runs (Owen 2007, The pigeonhole bootstrap): a little too wide again.
tests/dfkeval/analysis/test_repeated_runs.py measures coverage and false verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dfkeval.analysis.bootstrap import clusters, resample
from dfkeval.metrics import Bools, Floats, Measured, Metric

Side = dict[str, Floats]  # value name -> one number a run, or one a resample


def sides(
    runs_of: Sequence[Sequence[Measured]],
    metric: Metric,
    both: Bools,
    groups: Sequence[str],
    resamples: int,
    seed: int,
) -> tuple[list[Side], list[Side] | None]:
    """(each side's values by run (S,), the resampled means of its runs (R,)); no resamples for one group
    alone. both: (N,), whether all runs scored the sample."""
    runs = [run for side in runs_of for run in side]
    joint = np.concatenate([run.values[both] for run in runs], axis=1)
    sums = clusters(joint, [group for group, kept in zip(groups, both, strict=True) if kept])
    points = _by_side(runs_of, metric, joint.sum(axis=0, keepdims=True))
    values = [{name: table[:, 0] for name, table in side.items()} for side in points]
    if len(sums) < 2:
        return values, None
    drawn = _by_side(runs_of, metric, resample(sums, resamples, seed))
    return values, [{name: table.mean(axis=0) for name, table in side.items()} for side in drawn]


def _by_side(runs_of: Sequence[Sequence[Measured]], metric: Metric, sums: Floats) -> list[Side]:
    """(R, sum of all K) -> for each side: value name -> (S, R), of the values that all its runs have."""
    found: list[Side] = []
    start = 0
    for side in runs_of:
        tables = []
        for run in side:
            tables.append(metric.reduce(sums[:, start : start + len(run.columns)], run.columns))
            start += len(run.columns)
        names = [name for name in tables[0] if all(name in table for table in tables)]
        found.append({name: np.stack([table[name] for table in tables]) for name in names})
    return found


def moved_mean(whole: Floats, values: Floats, seed: int, *, share: bool) -> Floats:
    """(R,) resampled means of the runs, moved by what the runs do not say about all.

    values: (S,) of each run on the real rows."""
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
    """(R,) resampled differences of the sides' means, moved and stretched by what the runs do not say.

    a, b: (S,) of each run of a side on the real rows."""
    sides = [(len(values), _error(values)) for values in (a, b)]
    known = [(count, error) for count, error in sides if error > 0]
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
    """Standard error of the mean of several runs; 0 for one alone, NaN where a value is not known."""
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
