"""Several runs of one model (other seeds) as one side of a comparison: their mean, resampled.

Strategy: all runs are resampled with the same groups, so what they have in common is paired. A few runs say
little about the spread of all that could have been: to each resampled mean of S runs, s / sqrt(S) times a
draw of Student's t with S - 1 degrees of freedom is added (s: the runs' standard deviation), which is the
fiducial distribution of a mean of unknown spread (Behrens 1929, Fisher 1935). A value that is a share moves
on the logit scale, its error divided by p (1 - p) (delta method), so that no draw leaves [0, 1].

Promises: seeded; one run alone moves by its rows only. The noise of rows that runs do not share is counted in
both parts, which makes intervals rather too wide than too narrow (Owen 2007, The pigeonhole bootstrap); with
two runs they are wide. tests/dfkeval/test_repeats.py measures the coverage."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dfkeval._resampling import clusters, resample
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
    """(each side's values by run (S,), each side's resampled means (R,)); no resamples for one group alone.

    both: (N,), whether all runs scored the sample."""
    runs = [run for side in runs_of for run in side]
    joint = np.concatenate([run.values[both] for run in runs], axis=1)
    sums = clusters(joint, [group for group, kept in zip(groups, both, strict=True) if kept])
    points = _by_side(runs_of, metric, joint.sum(axis=0, keepdims=True))
    values = [{name: table[:, 0] for name, table in side.items()} for side in points]
    if len(sums) < 2:
        return values, None
    drawn = _by_side(runs_of, metric, resample(sums, resamples, seed))
    means = []
    for place, side in enumerate(drawn):
        count = len(runs_of[place])
        rng = np.random.default_rng((seed, place + 1))
        t = rng.standard_t(max(1, count - 1), size=resamples)
        means.append(
            {
                name: mean_of_runs(table, values[place][name], t, share=metric.is_share(name))
                for name, table in side.items()
            }
        )
    return values, means


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


def mean_of_runs(table: Floats, values: Floats, t: Floats, *, share: bool) -> Floats:
    """(S, R) -> (R,): the runs' mean in each resample, moved by what S runs do not say about all.

    values: (S,) on the real rows. t: (R,) draws of Student's t with S - 1 degrees of freedom."""
    if len(table) == 1:
        only: Floats = table[0]
        return only
    whole, mean = table.mean(axis=0), float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    if not error > 0:  # all alike, or not known
        return np.asarray(whole)
    if not share or not 0 < mean < 1:
        return np.asarray(whole + error * t)
    inside = np.clip(whole, 0, 1)
    with np.errstate(divide="ignore", over="ignore"):
        moved = np.log(inside) - np.log1p(-inside) + error / (mean * (1 - mean)) * t
        return np.asarray(1 / (1 + np.exp(-moved)))
