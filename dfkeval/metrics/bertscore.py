"""BERTScore over the answer's prose: greedy matching of contextual token embeddings (`score` explains it)."""

from __future__ import annotations

from collections.abc import Sequence

from dfkeval.metrics import Measured, Metric, Scoring
from dfkeval.metrics._bertscore import SETTINGS, settings
from dfkeval.metrics._bertscore import Options as Options
from dfkeval.metrics._bertscore import check_model as check_model
from dfkeval.metrics._bertscore import score as score
from dfkeval.metrics._prose import COLUMNS, NAMES, means, pairs, table
from dfkeval.types import Sample


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, 4) statistics: n, precision, recall, f1."""
    options = scoring.options_of("bertscore", Options)
    places, said, gold = pairs(samples, scoring)
    scores = score(said, gold, **options.model_dump())
    values = table(len(samples), places, scores)
    return Measured(COLUMNS, values, values[:, 0] > 0, settings(options, scores))


METRIC = Metric(measure, means, unbounded=NAMES, settings=SETTINGS)
