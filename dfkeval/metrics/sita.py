"""Reproduce the published SITA results, under SITA's names and with its rules.

`sita: {evaluator: vlm_gen}` says which evaluator is repeated: vlm_gen, text_gen or text_gen_v3. What differs
from `labels`, on purpose and only here: the label is read from the raw text by that evaluator's rules; the
macro average runs over the union of gold and predicted labels, so "<UNPARSED>" and every invented label is a
class with F1 0; ROUGE-L is the mean over pairs where both sides have text, other pairs are dropped, and the
whole raw output stands for an explanation that was not found. Rows without a gold label are dropped, as
there. BERTScore under SITA's names is `sita_bertscore`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfkdata.schemas import Label
from dfkeval.metrics import Floats, Measured, Metric, Scoring, _sita, column, f1, ratio
from dfkeval.metrics import _rouge_l as rouge_l
from dfkeval.metrics._sita import Options as Options
from dfkeval.types import Sample

CELL = "\x1f"
ROUGE = ("rouge_n", "rouge_precision", "rouge_recall", "rouge_f1")


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, K) statistics: n, `ROUGE`, and a column for each cell over the union of labels."""
    read = _sita.read(samples, scoring)
    names = sorted({name for pair in read if pair is not None for name in (pair.gold, pair.predicted)})
    columns = ("n", *ROUGE, *(CELL.join((gold, predicted)) for gold in names for predicted in names))
    place = {name: index for index, name in enumerate(columns)}
    values = np.zeros((len(samples), len(columns)))
    for row, pair in zip(values, read, strict=True):
        if pair is None:
            continue
        row[0] = row[place[CELL.join((pair.gold, pair.predicted))]] = 1
        if pair.texts:
            row[1:5] = (1, *rouge_l.latin_pair(pair.explanation, pair.reference))
    matrix = values[:, 5:].sum(axis=0).reshape(len(names), len(names)).astype(int)
    details: dict[str, object] = {"confusion_matrix": {"labels": names, "matrix": matrix.tolist()}}
    details["dropped_pairs"] = int(values[:, 0].sum() - values[:, 1].sum())
    return Measured(columns, values, values[:, 0] > 0, details | _sita.options_of(scoring).details)


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Return cls_accuracy, cls_{precision,recall,f1}_{macro,weighted}, values of each class, and rouge_l_...."""
    names = list(dict.fromkeys(name.split(CELL)[0] for name in columns[5:]))
    cells = sums[:, 5:].reshape(len(sums), len(names), len(names))
    hits, support, predicted = np.diagonal(cells, axis1=1, axis2=2), cells.sum(axis=2), cells.sum(axis=1)
    scores = {
        "precision": np.nan_to_num(ratio(hits, predicted)),
        "recall": np.nan_to_num(ratio(hits, support)),
        "f1": np.nan_to_num(f1(hits, predicted - hits, support - hits)),
    }
    n, there = column(sums, columns, "n"), (support + predicted > 0).astype(float)
    out = {"cls_accuracy": ratio(hits.sum(axis=1), n)}
    for name, table in scores.items():
        out[f"cls_{name}_macro"] = ratio((table * there).sum(axis=1), there.sum(axis=1))
        out[f"cls_{name}_weighted"] = ratio((table * support).sum(axis=1), n)
    for index, label in enumerate(names):
        key = label.lower().replace(" ", "_")
        out |= {f"cls_{key}_{name}": table[:, index] for name, table in scores.items()}
        out[f"cls_{key}_support"] = support[:, index]
    pairs = column(sums, columns, "rouge_n")
    return out | {f"rouge_l_{name}": ratio(column(sums, columns, f"rouge_{name}"), pairs) for name in scores}


METRIC = Metric(
    measure,
    reduce,
    needs=(Label,),
    reproduces="SITA vlm_gen, text_gen, text_gen_v3",
    counted={f"rouge_l_{name}": "rouge_n" for name in ("precision", "recall", "f1")},
    unbounded=("_support",),
    settings=_sita.SETTINGS,
)
