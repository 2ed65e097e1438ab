"""Calibration of the model's confidence, and what is gained by leaving unsure answers to people.

accuracy            of the answers, as in `labels`, on the rows scored here
confidence          mean probability of the answered label
ece                 expected calibration error: |accuracy - confidence| in 15 equal bins, by their size
brier               mean over rows of the squared distance of the label probabilities to the gold (0 to 2)
nll                 mean of -log p(gold label), in nats; p is at least 1e-12
average_precision   mean over the gold's classes of the area under the precision-recall curve; per class too
aurc                area under the risk-coverage curve: mean error rate of the surest answers, over all shares
accuracy_at_80      accuracy of the surest 80 % of the answers
coverage_at_95      largest share of the surest answers that is right in 95 % of the cases

How it works: every value is a function of sums over bins, so that resampling is one matrix product. The bins of the
curves are the distinct probabilities themselves if there are few, else quantiles of them: 100 up to 2,000 answers,
fewer above, never less than 20. With few, areas equal scikit-learn's; else they come close (within 0.01 in the tests).

An answer that is not a valid label is an error with the probability of the most likely label. Without probabilities it
is an error of confidence 0, and it is left out of confidence, ece, brier, nll and average_precision, whose n counts
the answers with probabilities. For a run without probabilities n is 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkdata.schemas import Label
from dfkeval.metrics import Bools, Floats, Measured, Metric, Scoring, column, fields_of, ratio
from dfkeval.metrics._contract import canonical, slug
from dfkeval.types import Sample

ECE_BINS = 15
FEWEST, MOST = 20, 100  # bins of a curve
SMALLEST = 1e-12
KEPT, WANTED = 0.8, 0.95
HEAD = ("n", "hit", "asked", "confidence", "brier", "nll")
SIGN = "\x1f"  # joins the parts of a bin's column name; no label holds it
CLASS = "class "  # begins the name of a class's bins


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, K) statistics: `HEAD`, then counts and hits of the bins of each curve."""
    field = fields_of(scoring.schema, (Label,))[0]
    role = scoring.schema.roles[field]
    classes = role.labels.canonical if isinstance(role, Label) else ()
    count = len(samples)
    labelled, with_probs, hit = (np.zeros(count, dtype=np.bool_) for _ in range(3))
    probs, truth = np.zeros((count, len(classes))), np.zeros((count, len(classes)), dtype=np.bool_)
    sure = np.zeros(count)
    for at, sample in enumerate(samples):
        gold = canonical(sample.gold, field, role) if sample.answered else None
        if gold is None:
            continue
        known, answer = _known(sample), canonical(sample.value, field, role)
        labelled[at], with_probs[at], hit[at] = True, bool(known), gold == answer
        probs[at] = [known.get(label, 0.0) for label in classes]
        sure[at] = _sure(answer, known)
        truth[at] = [gold == label for label in classes]
    scored = labelled & with_probs.any()
    parts = [_head(scored, with_probs, hit, sure, probs, truth)]
    reliability = np.minimum((sure * ECE_BINS).astype(int), ECE_BINS - 1)
    parts.append(_bins("ece", reliability, ECE_BINS, with_probs, [hit, sure]))
    edges = _edges(sure[scored])
    parts.append(_bins("kept", _place(sure, edges), len(edges), scored, [hit]))
    for index, label in enumerate(classes):
        cuts = _edges(probs[with_probs, index])
        parts.append(
            _bins(CLASS + label, _place(probs[:, index], cuts), len(cuts), with_probs, [truth[:, index]])
        )
    columns = tuple(name for names, _ in parts for name in names)
    values = np.concatenate([table for _, table in parts], axis=1)
    return Measured(columns, values, scored, _details(values, columns, edges))


def _known(sample: Sample) -> dict[str, float]:
    """Return the label probabilities; empty if there are none, or if they are not a distribution."""
    probs = sample.label_probs or {}
    usable = all(0 <= p <= 1 for p in probs.values()) and abs(sum(probs.values()) - 1) < 1e-3
    return probs if usable else {}


def _sure(label: str | None, known: Mapping[str, float]) -> float:
    """Return the probability of the answered label, of the most likely one without an answer, or 0 if unknown."""
    return known.get(label, 0.0) if label is not None else max(known.values(), default=0.0)


Part = tuple[list[str], Floats]


def _head(scored: Bools, with_probs: Bools, hit: Bools, sure: Floats, probs: Floats, truth: Bools) -> Part:
    right = (probs * truth).sum(axis=1)
    brier = ((probs - truth) ** 2).sum(axis=1)
    nll = -np.log(np.maximum(right, SMALLEST))
    rows = [scored, hit & scored, with_probs, sure * with_probs, brier * with_probs, nll * with_probs]
    return list(HEAD), np.stack([row.astype(np.float64) for row in rows], axis=1)


def _bins(name: str, place: NDArray[np.int64], count: int, mask: Bools, sums: Sequence[NDArray[Any]]) -> Part:
    """Return columns "name, kind, bin": how many rows of `mask` fall into each bin, and the sums over them."""
    table = np.zeros((len(place), (1 + len(sums)) * count))
    rows = np.flatnonzero(mask)
    for kind, weights in enumerate([np.ones(len(place)), *sums]):
        table[rows, kind * count + place[rows]] = np.asarray(weights, dtype=np.float64)[rows]
    names = [
        SIGN.join((name, str(kind), str(bin_))) for kind in range(1 + len(sums)) for bin_ in range(count)
    ]
    return names, table


def _edges(values: Floats) -> Floats:
    """Return the rising lower edges of the bins: the distinct values, or quantiles of them if there are many."""
    distinct = np.unique(values)
    most = max(FEWEST, min(MOST, 200_000 // max(1, len(values))))
    if len(distinct) > most:
        steps = np.linspace(0, 1, most, endpoint=False)
        distinct = np.unique(np.quantile(values, steps, method="lower"))
    return distinct if len(distinct) else np.zeros(1)


def _place(values: Floats, edges: Floats) -> NDArray[np.int64]:
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 1).astype(np.int64)


def _table(sums: Floats, columns: tuple[str, ...], name: str) -> Floats:
    """Reshape one group of columns: (R, K) -> (R, kinds, bins)."""
    matches = [
        (index, title.split(SIGN)) for index, title in enumerate(columns) if title.startswith(name + SIGN)
    ]
    kinds = 1 + max((int(parts[1]) for _, parts in matches), default=0)
    table: Floats = sums[:, [index for index, _ in matches]]
    return table.reshape(len(sums), kinds, len(matches) // kinds)


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Return the values of the table at the top of the module."""
    n, with_probs = column(sums, columns, "n"), column(sums, columns, "asked")
    out = {"accuracy": ratio(column(sums, columns, "hit"), n)}
    out["confidence"] = ratio(column(sums, columns, "confidence"), with_probs)
    right, total = np.moveaxis(_table(sums, columns, "ece")[:, 1:], 1, 0)
    out["ece"] = ratio(np.abs(right - total).sum(axis=1), with_probs)
    out |= {name: ratio(column(sums, columns, name), with_probs) for name in ("brier", "nll")}
    areas = {label: _average_precision(_table(sums, columns, CLASS + label)) for label in _classes(columns)}
    out["average_precision"] = _mean(list(areas.values()), len(sums))
    out |= _abstention(_table(sums, columns, "kept"), n)
    return out | {f"average_precision.{slug(label)}": area for label, area in areas.items()}


def _classes(columns: tuple[str, ...]) -> list[str]:
    names = dict.fromkeys(title.split(SIGN)[0] for title in columns)
    return [name.removeprefix(CLASS) for name in names if name.startswith(CLASS)]


def _average_precision(table: Floats) -> Floats:
    """Return the sum of precision times the recall gained, from the surest bin down: (R, 2, B) -> (R,).

    NaN for a class that is not in the gold.
    """
    count, hits_so_far = (np.cumsum(table[:, kind, ::-1], axis=1) for kind in (0, 1))
    gained = np.diff(hits_so_far, axis=1, prepend=0)
    precision = np.nan_to_num(ratio(hits_so_far, count))
    return ratio((precision * gained).sum(axis=1), hits_so_far[:, -1])


def _mean(areas: Sequence[Floats], rows: int) -> Floats:
    table = np.stack(areas, axis=1) if areas else np.full((rows, 1), np.nan)
    return ratio(np.nansum(table, axis=1), np.isfinite(table).sum(axis=1).astype(np.float64))


def _abstention(table: Floats, n: Floats) -> dict[str, Floats]:
    """Return aurc, accuracy_at_80 and coverage_at_95 of counts and hits of shape (R, 2, B)."""
    count, right = (np.cumsum(table[:, kind, ::-1], axis=1) for kind in (0, 1))
    accuracy, share = ratio(right, count), ratio(count, n[:, None])
    risk = np.nan_to_num(1 - accuracy) * table[:, 0, ::-1]
    enough = np.nan_to_num(share) >= KEPT - 1e-9
    first = np.argmax(enough, axis=1)
    good = (np.nan_to_num(accuracy) >= WANTED - 1e-9) & (count > 0)
    there = n > 0
    return {
        "aurc": ratio(risk.sum(axis=1), n),
        "accuracy_at_80": np.where(there, accuracy[np.arange(len(n)), first], np.nan),
        "coverage_at_95": np.where(there, np.where(good, np.nan_to_num(share), 0.0).max(axis=1), np.nan),
    }


def _details(values: Floats, columns: tuple[str, ...], edges: Floats) -> dict[str, Any]:
    """Return what the report draws: points of reliability, of abstention, and of precision by recall."""
    sums = values.sum(axis=0, keepdims=True)
    n, with_probs = (int(column(sums, columns, name)[0]) for name in ("n", "asked"))
    if not n:
        return {}
    count, right, total = _table(sums, columns, "ece")[0]
    used = np.flatnonzero(count)
    counts_kept, hits = (np.cumsum(row[::-1]) for row in _table(sums, columns, "kept")[0])
    return {
        "without_probabilities": n - with_probs,
        "reliability": [
            {
                "n": int(count[b]),
                "confidence": float(total[b] / count[b]),
                "accuracy": float(right[b] / count[b]),
            }
            for b in used
        ],
        "abstention": [
            {"confidence": float(edge), "kept": float(k / n), "accuracy": float(h / k)}
            for edge, k, h in zip(edges[::-1], counts_kept, hits, strict=True)
            if k
        ],
        "precision_recall": {
            label: _curve(_table(sums, columns, CLASS + label)[0]) for label in _classes(columns)
        },
    }


def _curve(table: Floats) -> list[list[float]]:
    """Return [recall, precision] from the surest bin down; empty for a class that is not in the gold."""
    count, hits_so_far = (np.cumsum(row[::-1]) for row in table)
    if not hits_so_far[-1]:
        return []
    return [
        [float(hit / hits_so_far[-1]), float(hit / all_)]
        for hit, all_ in zip(hits_so_far, count, strict=True)
        if all_
    ]


METRIC = Metric(
    measure,
    reduce,
    needs=(Label,),
    binary={"accuracy": "hit"},
    lower_is_better=("ece", "brier", "nll", "aurc"),
    unbounded=("brier", "nll"),
    counted=dict.fromkeys(("confidence", "ece", "brier", "nll", "average_precision"), "asked"),
)
