"""Reproduce the published SITA results, under SITA's names and with its rules.

`sita: {evaluator: vlm_gen}` says which evaluator is repeated: vlm_gen, text_gen or text_gen_v3. What differs
from `labels`, on purpose and only here: the label is read from the raw text by that evaluator's rules; the
macro average runs over the union of gold and predicted labels, so "<UNPARSED>" and every invented label is a
class with F1 0; ROUGE-L is the mean over pairs where both sides have text, other pairs are dropped, and the
whole raw output stands for an explanation that was not found. Rows without a gold label are dropped, as
there. BERTScore under SITA's names is `sita_bertscore`."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

import numpy as np

from dfkdata.schemas import Label
from dfkeval.metrics import Floats, Measured, Metric, Scoring, _sita, column, f1, ratio
from dfkeval.metrics import _rouge_l as rouge_l
from dfkeval.metrics._sita import Options as Options
from dfkeval.types import Sample

ROUGE = ("rouge_n", "rouge_precision", "rouge_recall", "rouge_f1")
_MARK = "\x1f"  # joins the parts of a column's name


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, K) statistics: n, `ROUGE`, and for each label the answers with it, the gold rows, and the hits.

    An invented label has answers only, so a base model that invents one a row costs one column a row."""
    places, pairs, scores = array("Q"), list[tuple[str, str]](), np.zeros((len(samples), len(ROUGE)))
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for at, row_read in enumerate(_sita.read(samples, scoring)):
        if row_read is None:
            continue
        labels = row_read.gold, row_read.predicted
        places.append(at)
        pairs.append(seen.setdefault(labels, labels))
        if row_read.texts:
            scores[at] = (1, *rouge_l.latin_pair(row_read.explanation, row_read.reference))
    gold, names = {one for one, _ in pairs}, sorted({name for pair in pairs for name in pair})
    counted = [("predicted", name) for name in names]
    counted += [(kind, name) for name in names if name in gold for kind in ("support", "hits")]
    columns = ("n", *ROUGE, *map(_MARK.join, counted))
    place = {name: index for index, name in enumerate(columns)}
    values = np.zeros((len(samples), len(columns)))
    for at, (right, predicted) in zip(places, pairs, strict=True):
        row = values[at]
        row[0] = row[place[f"predicted{_MARK}{predicted}"]] = row[place[f"support{_MARK}{right}"]] = 1
        row[place[f"hits{_MARK}{right}"]] = right == predicted
    values[:, 1:5] = scores
    details: dict[str, object] = {"dropped_pairs": int(values[:, 0].sum() - values[:, 1].sum())}
    if _sita.options_of(scoring).evaluator == "vlm_gen":  # the text evaluators give no matrix
        details["confusion_matrix"] = _matrix(pairs, names)
    return Measured(columns, values, values[:, 0] > 0, details | _sita.options_of(scoring).details)


def _matrix(pairs: Sequence[tuple[str, str]], names: Sequence[str]) -> dict[str, object]:
    """Return the labels, and the number of answers by gold label (rows) and label of the answer (columns)."""
    place = {name: index for index, name in enumerate(names)}
    matrix = np.zeros((len(names), len(names)), dtype=int)
    for gold, predicted in pairs:
        matrix[place[gold], place[predicted]] += 1
    return {"labels": list(names), "matrix": matrix.tolist()}


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Return cls_accuracy, cls_{precision,recall,f1}_{macro,weighted}, values of each class, and rouge_l_...."""
    place = {name: index for index, name in enumerate(columns)}
    names = [name.partition(_MARK)[2] for name in columns if name.startswith(f"predicted{_MARK}")]
    predicted, support, hits = (
        _counts(sums, place, [f"{kind}{_MARK}{name}" for name in names])
        for kind in ("predicted", "support", "hits")
    )
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


def _counts(sums: Floats, place: Mapping[str, int], wanted: Sequence[str]) -> Floats:
    """Return the columns `wanted`; one that is not there is 0."""
    out = np.zeros((len(sums), len(wanted)))
    there = [index for index, name in enumerate(wanted) if name in place]
    out[:, there] = sums[:, [place[wanted[index]] for index in there]]
    return out


METRIC = Metric(
    measure,
    reduce,
    needs=(Label,),
    reproduces="SITA vlm_gen, text_gen, text_gen_v3",
    counted={f"rouge_l_{name}": "rouge_n" for name in ("precision", "recall", "f1")},
    unbounded=("_support",),
    settings=_sita.SETTINGS,
)
