"""How much of the source text the answer takes up: content words of the source that occur in the answer.

rate: mean over answers; an answer that is not valid covers nothing. Rows without content words in their
source text are not scored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfkdata.schemas import Grounded
from dfkeval.metrics import Floats, Measured, Metric, Scoring, column, ratio
from dfkeval.metrics._leaves import prose
from dfkeval.metrics._words import STOP, forms, words
from dfkeval.types import Sample

COLUMNS = ("n", "rate")


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """(N, 2): `COLUMNS`."""
    values = np.zeros((len(samples), len(COLUMNS)))
    for row, sample in zip(values, samples, strict=True):
        source = {word for word in words(sample.source_text or "") if word not in STOP and len(word) > 2}
        if not sample.answered or not source:
            continue
        said = {form for word in words(prose(sample.value or {}, scoring.schema)) for form in forms(word)}
        row[:] = (1, sum(not forms(word).isdisjoint(said) for word in source) / len(source))
    return Measured(COLUMNS, values, values[:, 0] > 0)


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """rate."""
    return {"rate": ratio(column(sums, columns, "rate"), column(sums, columns, "n"))}


METRIC = Metric(measure, reduce, needs=(Grounded,))
