"""What ROUGE and BERTScore share: which texts are compared, and means over answers in which failures stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dfkeval.metrics import Bools, Floats, Scoring, column, ratio
from dfkeval.metrics._leaves import prose
from dfkeval.types import Sample

NAMES = ("precision", "recall", "f1")
COLUMNS = ("n", *NAMES)


@dataclass(frozen=True)
class TextScores:
    """One row a pair. precision, recall, f1: (N,) in [0, 1] (unless rescaled). truncated: (N,), whether a
    text of the pair was longer than the model reads."""

    precision: Floats
    recall: Floats
    f1: Floats
    truncated: Bools


def pairs(samples: Sequence[Sample], scoring: Scoring) -> tuple[list[int], list[str], list[str]]:
    """Indices of samples with a gold text, their answers' texts ("" for an invalid answer), and the gold
    texts."""
    found = [
        (index, prose(sample.value or {}, scoring.schema), prose(sample.gold or {}, scoring.schema))
        for index, sample in enumerate(samples)
        if sample.answered
    ]
    kept = [(index, said, gold) for index, said, gold in found if gold]
    return [index for index, _, _ in kept], [said for _, said, _ in kept], [gold for _, _, gold in kept]


def table(count: int, places: Sequence[int], scores: TextScores) -> Floats:
    """(count, 4): `COLUMNS`, zero rows where nothing was compared."""
    values = np.zeros((count, len(COLUMNS)))
    values[list(places)] = np.stack(
        [np.ones(len(places)), scores.precision, scores.recall, scores.f1], axis=1
    )
    return values


def means(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Means of precision, recall and f1."""
    return {name: ratio(column(sums, columns, name), column(sums, columns, "n")) for name in NAMES}
