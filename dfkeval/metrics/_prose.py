"""Choose the texts that ROUGE and BERTScore compare, and average over answers in which failures stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dfkeval.metrics import Bools, Floats, Scoring, column, ratio
from dfkeval.metrics._leaves import prose
from dfkeval.types import Sample

NAMES = ("precision", "recall", "f1")
COLUMNS = ("n", *NAMES)


@dataclass(frozen=True)
class TextScores:
    """Scores of N pairs of texts.

    Attributes:
        precision: Numbers of shape (N,), in [0, 1].
        recall: The same.
        f1: The same.
        truncated: Booleans of shape (N,): whether a text of the pair was longer than the model reads.
    """

    precision: Floats
    recall: Floats
    f1: Floats
    truncated: Bools


def pairs(samples: Sequence[Sample], scoring: Scoring) -> tuple[list[int], list[str], list[str]]:
    """Return the texts to compare.

    Returns:
        Places of the samples with a gold text, their answers' texts ("" for an invalid answer), and the gold texts.
    """
    scored = list(each_pair(samples, scoring))
    return (
        [index for index, _, _ in scored],
        [answer for _, answer, _ in scored],
        [gold for _, _, gold in scored],
    )


def each_pair(samples: Sequence[Sample], scoring: Scoring) -> Iterator[tuple[int, str, str]]:
    """Yield what `pairs` returns, one pair at a time: place, the answer's text and the gold text."""
    for index, sample in enumerate(samples):
        gold = prose(sample.gold or {}, scoring.schema) if sample.answered else ""
        if gold:
            yield index, prose(sample.value or {}, scoring.schema), gold


def table(count: int, places: Sequence[int], scores: TextScores) -> Floats:
    """Return statistics of shape (count, 4) for `COLUMNS`; rows that were not compared are zero."""
    values = np.zeros((count, len(COLUMNS)))
    values[list(places)] = np.stack(
        [np.ones(len(places)), scores.precision, scores.recall, scores.f1], axis=1
    )
    return values


def means(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Return the means of precision, recall and f1."""
    return {name: ratio(column(sums, columns, name), column(sums, columns, "n")) for name in NAMES}
