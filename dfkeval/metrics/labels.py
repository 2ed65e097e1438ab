"""Accuracy, macro and weighted F1, numbers of each class and the confusion matrix of a classification.

How it works: the sufficient statistic of an answer is its cell (gold class, predicted class or "unparsed"),
so resamples are sums over cells. Unparsed answers and labels outside the set are errors of their gold class
and never left out. The macro average runs over the classes that occur in the gold, so an invented label does
not become a class of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfkdata.schemas import Label
from dfkeval.metrics import Floats, Measured, Metric, Scoring, column, f1, fields_of, ratio
from dfkeval.metrics._contract import canonical, slug
from dfkeval.types import Sample

UNPARSED = "<unparsed>"
SEPARATOR = " -> "


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, C·(C+1) + 2) statistics of the first label field: a column for each cell, then n and hit."""
    field = fields_of(scoring.schema, (Label,))[0]
    role = scoring.schema.roles[field]
    classes = role.labels.canonical if isinstance(role, Label) else ()
    columns = [f"{gold}{SEPARATOR}{predicted}" for gold in classes for predicted in (*classes, UNPARSED)]
    place = {name: index for index, name in enumerate(columns)}
    values = np.zeros((len(samples), len(columns) + 2))
    for row, sample in zip(values, samples, strict=True):
        gold = canonical(sample.gold, field, role)
        if gold is None or not sample.answered:
            continue
        predicted = canonical(sample.value, field, role)
        row[place[f"{gold}{SEPARATOR}{predicted or UNPARSED}"]] = 1
        row[-2:] = 1, predicted == gold
    matrix = values[:, :-2].sum(axis=0).reshape(len(classes), len(classes) + 1).astype(int)
    aliases = sum("label_alias" in sample.repairs for sample in samples)
    details = {
        "confusion": {"labels": [*classes, UNPARSED], "matrix": matrix.tolist()},
        "alias_hits": aliases,
    }
    return Measured((*columns, "n", "hit"), values, values[:, -2] > 0, details)


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Return accuracy, macro and weighted values, the parsed share, and precision, recall and F1 of each class."""
    cells = _cells(sums, columns)
    hits = np.diagonal(cells, axis1=1, axis2=2)  # (R, C)
    support, predicted = cells.sum(axis=2), cells[:, :, :-1].sum(axis=1)
    n = column(sums, columns, "n")
    per_class = {
        "precision": _zero(ratio(hits, predicted), support),
        "recall": ratio(hits, support),
        "f1": _zero(f1(hits, predicted - hits, support - hits), support),
    }
    out = {"accuracy": ratio(hits.sum(axis=1), n), "parsed": ratio(cells[:, :, :-1].sum(axis=(1, 2)), n)}
    out |= {f"macro_{name}": _mean(values) for name, values in per_class.items()}
    out["weighted_f1"] = ratio(np.nansum(per_class["f1"] * support, axis=1), n)
    for index, label in enumerate(_classes(columns)):
        out |= {f"{name}.{slug(label)}": values[:, index] for name, values in per_class.items()}
    return out


def _classes(columns: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(name.split(SEPARATOR)[0] for name in columns[:-2]))


def _cells(sums: Floats, columns: tuple[str, ...]) -> Floats:
    """Reshape sums (R, K) to (R, C, C + 1); the last predicted class is "unparsed"."""
    count = len(_classes(columns))
    return sums[:, :-2].reshape(len(sums), count, count + 1)


def _zero(values: Floats, support: Floats) -> Floats:
    """Return 0 for a class of the gold that was never predicted, and NaN for a class that is not in the gold."""
    return np.where(support > 0, np.nan_to_num(values, nan=0.0), np.nan)


def _mean(values: Floats) -> Floats:
    """Return the mean over the classes that occur in the gold; NaN if none does."""
    return ratio(np.nansum(values, axis=1), np.isfinite(values).sum(axis=1).astype(float))


METRIC = Metric(
    measure,
    reduce,
    needs=(Label,),
    binary={"accuracy": "hit"},
    averages={f"macro_{name}": f"{name}.*" for name in ("precision", "recall", "f1")},
)
