"""ROUGE-L over the answer's prose fields: the longest common subsequence of words."""

from __future__ import annotations

from collections.abc import Sequence

from dfkeval.metrics import Measured, Metric, Scoring
from dfkeval.metrics._prose import COLUMNS, means, pairs, table
from dfkeval.metrics._rouge_l import rouge_l as rouge_l
from dfkeval.types import Sample


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, 4) statistics: n, precision, recall, f1."""
    places, answers, golds = pairs(samples, scoring)
    values = table(len(samples), places, rouge_l(answers, golds))
    return Measured(COLUMNS, values, values[:, 0] > 0)


METRIC = Metric(measure, means)
