"""Reproduce the published results of SITA's `keyword_gen`, under SITA's names and with its rules.

What differs from `keywords`, on purpose and only here: the list is read from the raw text by SITA's
fallbacks, valid or not; keywords of signs alone are equal to each other; `kw_precision@5` looks at the
first five keywords and takes one common word for a hit. Rows without gold keywords are dropped, as there."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from dfkdata.schemas import Grounded
from dfkeval.metrics import Floats, Measured, Metric, Scoring, column, fields_of, ratio
from dfkeval.metrics import _rouge_l as rouge_l
from dfkeval.metrics._leaves import overlap
from dfkeval.parsing.legacy import sita_keywords
from dfkeval.types import Sample

NAMES = (
    "kw_token_precision", "kw_token_recall", "kw_token_f1",
    "kw_phrase_precision", "kw_phrase_recall", "kw_phrase_f1",
    "kw_novelty", "kw_diversity", "kw_exact_hit", "kw_precision@5", "kw_rouge_l",
)  # fmt: skip
_SIGNS = re.compile(r"[^\w\s]")


def fold(text: str) -> str:
    """Return the text in lower case with punctuation as blanks; blanks inside stay as they are."""
    return _SIGNS.sub(" ", text.lower()).strip()


def score_lists(answer: Sequence[str], gold: Sequence[str]) -> tuple[float, ...]:
    """Return the values of `NAMES` for one answer."""
    words, gold_words = fold(" ".join(answer)).split(), set(fold(" ".join(gold)).split())
    phrases = ({fold(keyword) for keyword in keywords if keyword.strip()} for keywords in (answer, gold))
    common = [bool(set(fold(keyword).split()) & gold_words) for keyword in answer]
    hit = bool({fold(keyword) for keyword in answer} & {fold(keyword) for keyword in gold})
    return (
        *overlap(set(words), gold_words),
        *overlap(*phrases),
        common.count(False) / len(answer) if answer else 0.0,
        len(set(words)) / len(words) if words else 0.0,
        float(hit),
        sum(common[:5]) / min(5, len(answer)) if answer and gold else 0.0,
        _rouge(answer, gold),
    )


def _rouge(answer: Sequence[str], gold: Sequence[str]) -> float:
    """Return F1 by the plain word rule of the rouge_score package, which ignores letters outside a-z."""
    a, b = (rouge_l.latin_words(" ".join(map(fold, keywords))) for keywords in (answer, gold))
    return rouge_l.score_words(a, b)[2]


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, 12) statistics: n and `NAMES`."""
    values = np.zeros((len(samples), 1 + len(NAMES)))
    for row, sample in zip(values, samples, strict=True):
        gold = [
            text
            for name in fields_of(scoring.schema, (Grounded,))
            for text in (sample.gold or {}).get(name) or ()
            if isinstance(text, str)
        ]
        if sample.answered and gold:
            row[:] = (1, *score_lists(sita_keywords(sample.text), gold))
    return Measured(("n", *NAMES), values, values[:, 0] > 0)


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Return the means over rows."""
    return {name: ratio(column(sums, columns, name), column(sums, columns, "n")) for name in NAMES}


METRIC = Metric(measure, reduce, needs=(Grounded,), reproduces="SITA keyword_gen")
