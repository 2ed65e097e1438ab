"""Exact match and token F1 of short answers, as to visual questions.

Texts are compared without case, punctuation and English articles, as question-answering benchmarks do; an answer that
is not valid matches nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from dfkdata.schemas import Prose
from dfkeval.metrics import Floats, Measured, Metric, Scoring, column, ratio
from dfkeval.metrics._prose import each_pair
from dfkeval.types import Sample

COLUMNS = ("n", "exact", "f1")
_WORD = re.compile(r"\w+")
_ARTICLES = frozenset({"a", "an", "the"})


def tokens(text: str) -> list[str]:
    """Return the lower-case words without articles; articles stay only if there is nothing else."""
    words = _WORD.findall(text.lower())
    return [word for word in words if word not in _ARTICLES] or words


def score_pair(answer: str, gold: str) -> tuple[float, float]:
    """Return exact match and token F1; texts without words match if they are equal."""
    a, b = tokens(answer), tokens(gold)
    if not a or not b:
        same = float(answer.strip() == gold.strip())
        return same, same
    left, common = Counter(a), 0
    for word in b:  # the size of the bags' overlap; Counter's own & takes three times as long
        if left.get(word, 0) > 0:
            left[word] -= 1
            common += 1
    return float(a == b), 2 * common / (len(a) + len(b))


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, 3) statistics for `COLUMNS`."""
    values = np.zeros((len(samples), len(COLUMNS)))
    for place, answer, gold in each_pair(samples, scoring):
        values[place] = (1, *score_pair(answer, gold))
    return Measured(COLUMNS, values, values[:, 0] > 0)


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Return the means of exact and f1."""
    return {name: ratio(column(sums, columns, name), column(sums, columns, "n")) for name in COLUMNS[1:]}


METRIC = Metric(measure, reduce, needs=(Prose,), binary={"exact": "exact"})
