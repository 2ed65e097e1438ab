"""How often nominal 95 % intervals hold the true value, by simulation.

    nice -n 10 python bench/interval_coverage.py [--trials 4000] [--only values differences pooled macro hard]
        [--groups alone clusters]

Rows are right with the chance p, alone or in clusters whose chances are of a beta distribution with mean p and the
intraclass correlation 0.3 (sizes 1 to 9). The lowest cell of each part is what counts: 93 % are asked for."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from dfkeval.analysis import intervals, statistics
from dfkeval.metrics import Measured, labels

SHARES, SIZES = (0.5, 0.9, 0.97, 0.99, 1.0), (3, 20, 30, 85, 300)
#: How much of a rare class is right in the part "hard".
HARD = (0.2, 0.35, 0.5)
CONFIDENCE, ICC = 0.95, 0.3
GROUPS = ("alone", "clusters")
#: Methods that were tried and not taken.
OTHERS = ("before", "wilson")
CLASSES = ("a", "b", "c", "d")
WEIGHTS = {"equal classes": (0.25, 0.25, 0.25, 0.25), "rare classes": (0.6, 0.25, 0.1, 0.05)}
Array = Any
Rng = np.random.Generator


def cluster_sizes(rows: int, clustered: bool) -> Array:
    """Return the sizes of the groups: ones, or 1, 3, 5, 7, 9 in turn; at least two groups."""
    if not clustered:
        return np.ones(rows, dtype=int)
    sizes: list[int] = []
    while sum(sizes) < rows:
        sizes.append(min((1, 3, 5, 7, 9)[len(sizes) % 5], rows - sum(sizes)))
    return np.array(sizes)


def chances(rng: Rng, p: float, shape: tuple[int, ...], clustered: bool) -> Array:
    """Return the chance of each group: p, or drawn with the mean p and the intraclass correlation `ICC`."""
    if not clustered or p == 1:
        return np.full(shape, p)
    strength = 1 / ICC - 1
    return rng.beta(p * strength, (1 - p) * strength, shape)


def spread(hits: Array, sizes: Array) -> tuple[Array, Array]:
    """Return share and variance over resampled groups of each trial, from hits of shape (trials, groups)."""
    value = hits.sum(axis=1) / sizes.sum()
    return value, ((hits - value[:, None] * sizes) ** 2).sum(axis=1) / sizes.sum() ** 2


def kish(sizes: Array) -> float:
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def held(low: Array, high: Array, truth: float) -> float:
    return float(np.mean((low <= truth + 1e-12) & (truth - 1e-12 <= high)))


def percentile(rng: Rng, hits: Array, sizes: Array, truth: float) -> float:
    """Return the coverage of percentiles over resampled groups, what was used before; 300 trials."""
    inside = []
    for row in hits[:300]:
        drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=400)
        low, high = np.quantile((drawn @ row) / (drawn @ sizes), (0.025, 0.975))
        inside.append(low - 1e-12 <= truth <= high + 1e-12)
    return float(np.mean(inside))


def wilson(value: Array, rows: int) -> tuple[Array, Array]:
    z = intervals.student(1e9, CONFIDENCE)
    middle = (value + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * np.sqrt(value * (1 - value) / rows + z**2 / (4 * rows**2))
    return middle - half, middle + half


def values(rng: Rng, p: float, rows: int, clustered: bool, trials: int) -> dict[str, float]:
    sizes = cluster_sizes(rows, clustered)
    hits = rng.binomial(sizes, chances(rng, p, (trials, len(sizes)), clustered))
    value, variance = spread(hits, sizes)
    found = intervals.share_interval(value, variance, kish(sizes), rows, CONFIDENCE)
    graded = value_of_graded(rng, p, rows, trials) if not clustered else None
    out = {
        "before": percentile(rng, hits, sizes, p),
        "wilson": held(*wilson(value, rows), p),
        "taken": held(*found, p),
    }
    return out if graded is None else out | {"graded": graded}


def value_of_graded(rng: Rng, p: float, rows: int, trials: int) -> float:
    """Return the coverage for rows that are right with the chance p, else of any value in [0, 1]."""
    marks = np.where(rng.random((trials, rows)) < p, 1.0, rng.random((trials, rows)))
    value, variance = spread(marks, np.ones(rows))
    return held(*intervals.share_interval(value, variance, rows, rows, CONFIDENCE), p + (1 - p) / 2)


def differences(rng: Rng, p: float, rows: int, clustered: bool, trials: int) -> dict[str, float]:
    """Two runs: equal ones that share a part of their errors, one with twice the errors, and one without any."""
    sizes = cluster_sizes(rows, clustered)
    shape = (trials, len(sizes))
    out = {}
    twice = 1 - 2 * (1 - p) if p > 0.5 else 0.25
    for name, other in (("equal", p), ("twice the errors", twice), ("no errors", 1.0)):
        same = rng.random(shape) < 0.5
        left, right = chances(rng, p, shape, clustered), chances(rng, other, shape, clustered)
        if name == "equal":
            right = np.where(same, left, right)
        hits = rng.binomial(sizes, right) - rng.binomial(sizes, left)
        value, variance = spread(hits, sizes)
        found = intervals.difference_interval(value, variance, kish(sizes), CONFIDENCE)
        out[f"{name}, before"] = percentile(rng, hits, sizes, other - p)
        out[name] = held(*found, other - p)
    return out


def table_of(right: Array) -> Measured:
    rows = np.stack([np.ones(len(right)), right.astype(float)], axis=1)
    return Measured(("n", "x"), rows, np.ones(len(right), dtype=np.bool_))


def groups_of(sizes: Array) -> list[str]:
    return [str(name) for name, size in enumerate(sizes) for _ in range(size)]


def pooled(rng: Rng, p: float, rows: int, clustered: bool, trials: int) -> dict[str, float]:
    """Three runs, whose rows share their chances; each run's own effect is 0 or 0.5 on the logit scale."""
    from dfkeval.metrics import Metric, ratio

    metric = Metric(lambda *_: table_of(np.zeros(0)), lambda sums, _: {"mean": ratio(sums[:, 1], sums[:, 0])})
    sizes = cluster_sizes(rows, clustered)
    names = groups_of(sizes)
    out = {}
    for effect in (0.0, 0.5):
        inside = []
        for trial in range(max(200, trials // 10)):
            row_chance = np.repeat(chances(rng, p, (len(sizes),), clustered), sizes)
            runs = [table_of(rng.random(rows) < _moved(row_chance, effect, rng.normal())) for _ in range(3)]
            each = statistics.pooled(metric, runs, names, resamples=300, seed=trial)["mean"]
            truth = (
                float(np.mean(_moved(p, effect, rng.normal(size=2000)))) if effect and not clustered else p
            )
            inside.append(each.low is not None and each.low - 1e-12 <= truth <= (each.high or 0) + 1e-12)
        if not (effect and clustered):
            out[f"effect {effect}"] = float(np.mean(inside))
    return out


def _moved(p: Array, effect: float, by: Array) -> Array:
    if effect == 0:
        return p
    odds = np.log(np.clip(p, 1e-12, 1)) - np.log(np.clip(1 - p, 1e-300, 1))
    return 1 / (1 + np.exp(-(odds + effect * by)))


def confusions(rng: Rng, p: float, rows: int, sizes: Array, clustered: bool, shares: Array) -> Measured:
    right = rng.random(rows) < np.repeat(chances(rng, p, (len(sizes),), clustered), sizes)
    gold = rng.choice(4, rows, p=shares)
    wrong = (gold + rng.integers(1, 4, rows)) % 4
    columns = [f"{a}{labels.SEPARATOR}{b}" for a in CLASSES for b in (*CLASSES, labels.UNPARSED)]
    table = np.zeros((rows, len(columns) + 2))
    table[np.arange(rows), gold * 5 + np.where(right, gold, wrong)] = 1
    table[:, -2:] = np.stack([np.ones(rows), right], axis=1)
    return Measured((*columns, "n", "hit"), table, np.ones(rows, dtype=np.bool_))


def macro(rng: Rng, p: float, rows: int, clustered: bool, trials: int) -> dict[str, float]:
    """Macro-F1 over four classes and its difference between equal runs. The truth is that of very many rows."""
    sizes = cluster_sizes(rows, clustered)
    names = groups_of(sizes)
    out = {}
    for title, shares in WEIGHTS.items():
        many = confusions(rng, p, 400_000, np.ones(400_000, dtype=int), False, shares)
        truth = float(labels.reduce(many.values.sum(axis=0, keepdims=True), many.columns)["macro_f1"][0])
        inside, apart = [], []
        for trial in range(max(100, trials // 20)):
            a, b = (confusions(rng, p, rows, sizes, clustered, shares) for _ in range(2))
            options = {"resamples": 300, "seed": trial}
            each = statistics.estimate(labels.METRIC, a, names, **options)["macro_f1"]  # type: ignore[arg-type]
            change = statistics.difference(labels.METRIC, a, b, names, **options)["macro_f1"]  # type: ignore[arg-type]
            inside.append((each.low or 0) - 1e-9 <= truth <= (each.high or 0) + 1e-9)
            apart.append((change.low or 0) - 1e-9 <= 0 <= (change.high or 0) + 1e-9)
        out |= {title: float(np.mean(inside)), f"{title}, difference": float(np.mean(apart))}
    return out


def hard_confusions(
    rng: Rng, rows: int, sizes: Array, share: float, right: float
) -> tuple[Measured, list[int]]:
    """Return the cells of answers among which class d is rare and hard, and the classes that occur; the luck of the
    rows of a group is alike."""
    classes = rng.choice(4, rows, p=(0.6 - share / 2, 0.25 - share / 2, 0.15, share))
    luck = np.repeat(rng.normal(size=len(sizes)), sizes) * math.sqrt(ICC if len(sizes) < rows else 0.0)
    luck += rng.normal(size=rows) * math.sqrt(1 - ICC if len(sizes) < rows else 1.0)
    cuts = np.array([NormalDist().inv_cdf(each) for each in (0.95, 0.92, 0.9, right)])
    hit = luck < cuts[classes]
    wrong = (classes + rng.integers(1, 4, rows)) % 4
    columns = [f"{a}{labels.SEPARATOR}{b}" for a in CLASSES for b in (*CLASSES, labels.UNPARSED)]
    table = np.zeros((rows, len(columns) + 2))
    table[np.arange(rows), classes * 5 + np.where(hit, classes, wrong)] = 1
    table[:, -2:] = np.stack([np.ones(rows), hit], axis=1)
    return Measured((*columns, "n", "hit"), table, np.ones(rows, dtype=np.bool_)), sorted(
        set(classes.tolist())
    )


def hard(rng: Rng, p: float, rows: int, clustered: bool, trials: int) -> dict[str, float]:
    """Macro-F1 where class d is rare and p of it is right. The truth is that of very many rows, of the classes that
    occur."""
    sizes = cluster_sizes(rows, clustered)
    names, out = groups_of(sizes), {}
    for share in (0.01, 0.03, 0.05, 0.1):
        many, _ = hard_confusions(rng, 400_000, np.ones(400_000, dtype=int), share, p)
        of_many = labels.reduce(many.values.sum(axis=0, keepdims=True), many.columns)
        truths, inside = [float(of_many[f"f1.{name}"][0]) for name in CLASSES], []
        for trial in range(max(20, trials // 20)):
            drawn, present = hard_confusions(rng, rows, sizes, share, p)
            each = statistics.estimate(labels.METRIC, drawn, names, resamples=200, seed=trial)["macro_f1"]
            truth = float(np.mean([truths[at] for at in present]))
            inside.append((each.low or 0) - 1e-9 <= truth <= (each.high or 0) + 1e-9)
        out[f"share {share}"] = float(np.mean(inside))
    return out


PARTS: dict[str, Callable[[Rng, float, int, bool, int], dict[str, float]]] = {
    "values": values, "differences": differences, "pooled": pooled, "macro": macro, "hard": hard,
}  # fmt: skip


def cells(
    part: str, trials: int, seed: int = 1, groups: Sequence[str] = GROUPS
) -> Iterator[tuple[bool, float, int, dict[str, float]]]:
    """Yield clustered, p, rows and the coverage of each method."""
    for clustered in (group == "clusters" for group in groups):
        for p in HARD if part == "hard" else SHARES:
            for rows in (30, 85, 300, 1000) if part == "hard" else SIZES:
                rng = np.random.default_rng((seed, int(1000 * p), rows, clustered))
                yield clustered, p, rows, PARTS[part](rng, p, rows, clustered, trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--groups", nargs="*", default=list(GROUPS), choices=list(GROUPS))
    chosen = parser.parse_args()
    for part in chosen.only:
        lowest: dict[tuple[bool, str], tuple[float, float, int]] = {}
        for clustered, p, rows, found in cells(part, chosen.trials, groups=chosen.groups):
            print(f"{part:12} {'clusters' if clustered else 'alone':9} p {p:4} n {rows:3}  ", end="")
            print("  ".join(f"{name} {100 * share:.1f}" for name, share in found.items()), flush=True)
            for name, share in found.items():
                lowest[clustered, name] = min(lowest.get((clustered, name), (2.0, 0, 0)), (share, p, rows))
        for (clustered, name), (share, p, rows) in lowest.items():
            print(
                f"lowest of {part}, {'clusters' if clustered else 'alone'}, {name}: {100 * share:.1f} (p {p}, n {rows})"
            )


if __name__ == "__main__":
    main()
