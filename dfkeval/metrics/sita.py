"""Numbers that compare with published SITA `vlm_gen` results, under SITA's names and with its rules.

What differs from `labels`, on purpose and only here: the label is read by SITA's regular expression from
the raw text; the macro average runs over the union of gold and predicted labels, so "<UNPARSED>" and every
invented label is a class with F1 0; ROUGE-L is the mean over pairs where both sides have text, other pairs
are dropped, and the whole raw output stands for an explanation that was not found. Rows without a gold
label are dropped, as there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfkdata.fields import Label, Prose
from dfkeval.compat import sita_vlm_gen
from dfkeval.metrics import Floats, Measured, Metric, Scoring, column, f1, fields_of, ratio
from dfkeval.metrics import rouge as rouge_l
from dfkeval.samples import Sample

UNPARSED = "<UNPARSED>"
CELL = "\x1f"
ROUGE = ("rouge_n", "rouge_precision", "rouge_recall", "rouge_f1")


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """(N, K): "n", `ROUGE`, and one column a cell gold, predicted over the union of labels."""
    field = fields_of(scoring.schema, (Label,))[0]
    prose = fields_of(scoring.schema, (Prose,))
    read = [_read(sample, field, prose) for sample in samples]
    names = sorted({name for pair in read if pair is not None for name in pair[:2]})
    columns = ("n", *ROUGE, *(CELL.join((gold, said)) for gold in names for said in names))
    values = np.zeros((len(samples), len(columns)))
    for row, pair in zip(values, read, strict=True):
        if pair is None:
            continue
        gold, said, reference, explanation = pair
        row[0] = row[columns.index(CELL.join((gold, said)))] = 1
        if reference.strip() and explanation.strip():
            words = map(rouge_l.latin_words, (explanation, reference))
            row[1:5] = (1, *rouge_l.score_words(*words))
    matrix = values[:, 5:].sum(axis=0).reshape(len(names), len(names)).astype(int)
    return Measured(
        columns, values, values[:, 0] > 0, {"confusion_matrix": {"labels": names, "matrix": matrix.tolist()}}
    )


def _read(sample: Sample, field: str, prose: Sequence[str]) -> tuple[str, str, str, str] | None:
    """(gold label, predicted label, gold explanation, predicted explanation); None for a row SITA would not
    count."""
    if not sample.answered or sample.gold is None:
        return None
    pair = sita_vlm_gen(sample.text)
    reference = str(sample.gold.get(prose[0], "")) if prose else ""
    return str(sample.gold[field]), pair.label or UNPARSED, reference, pair.explanation or sample.text


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """SITA's names: cls_accuracy, cls_{precision,recall,f1}_{macro,weighted}, per class, and rouge_l_…."""
    names = list(dict.fromkeys(name.split(CELL)[0] for name in columns[5:]))
    cells = sums[:, 5:].reshape(len(sums), len(names), len(names))
    hits, support, said = np.diagonal(cells, axis1=1, axis2=2), cells.sum(axis=2), cells.sum(axis=1)
    scores = {
        "precision": np.nan_to_num(ratio(hits, said)),
        "recall": np.nan_to_num(ratio(hits, support)),
        "f1": np.nan_to_num(f1(hits, said - hits, support - hits)),
    }
    n, there = column(sums, columns, "n"), (support + said > 0).astype(float)
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


METRIC = Metric(measure, reduce, needs=(Label,), reproduces="SITA vlm_gen")
