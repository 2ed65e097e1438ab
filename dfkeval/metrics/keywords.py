"""Precision, recall and F1 of keyword lists, by phrases and by tokens, as means over answers.

phrase_…    whole keywords, compared without case and punctuation
token_…     the words of all keywords, as sets
exact_hit   any keyword equals a gold one
distinct    share of keywords that are not repeats

An answer that is not valid has said nothing and scores 0; a keyword without letters or digits never counts
as a hit."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from dfkdata.schemas import Grounded
from dfkdata.validation.grounding import grounded_texts
from dfkeval.metrics import Floats, Measured, Metric, Scoring, column, ratio
from dfkeval.metrics._leaves import overlap
from dfkeval.types import Sample

PARTS = ("precision", "recall", "f1")
NAMES = (*(f"{kind}_{part}" for kind in ("phrase", "token") for part in PARTS), "exact_hit", "distinct")
_WORD = re.compile(r"\w+")


def fold(keyword: str) -> str:
    """Return the lower-case words of a keyword with one blank between them; empty for punctuation alone."""
    return " ".join(_WORD.findall(keyword.lower()))


def score_lists(answer: Sequence[str], gold: Sequence[str]) -> tuple[float, ...]:
    """Return the values of `NAMES` for one answer."""
    a, b = [fold(keyword) for keyword in answer], [fold(keyword) for keyword in gold]
    phrases = set(filter(None, a)), set(filter(None, b))
    words = (
        {word for phrase in a for word in phrase.split()},
        {word for phrase in b for word in phrase.split()},
    )
    hit = float(bool(phrases[0] & phrases[1]))
    distinct = len(set(a)) / len(a) if a else 0.0
    return (*overlap(*phrases), *overlap(*words), hit, distinct)


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, 9) statistics: n and `NAMES`. Rows whose gold list is empty are not scored."""
    values = np.zeros((len(samples), 1 + len(NAMES)))
    for row, sample in zip(values, samples, strict=True):
        gold = list(grounded_texts(sample.gold or {}, scoring.schema))
        if sample.answered and gold:
            row[:] = (1, *score_lists(list(grounded_texts(sample.value or {}, scoring.schema)), gold))
    return Measured(("n", *NAMES), values, values[:, 0] > 0)


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Return the means over answers."""
    return {name: ratio(column(sums, columns, name), column(sums, columns, "n")) for name in NAMES}


METRIC = Metric(measure, reduce, needs=(Grounded,), binary={"exact_hit": "exact_hit"})
