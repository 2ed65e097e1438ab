"""Share of the source text that the answer takes up: content words of the source that occur in the answer.

rate: mean over answers; an answer that is not valid covers nothing. Rows without content words in their
source text are not scored. Words count as the same word as in the metric `grounding`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfkdata.common.config import Config
from dfkdata.schemas import Grounded
from dfkdata.validation import grounding
from dfkdata.validation.morphology import Language
from dfkeval.metrics import Floats, Measured, Metric, Scoring, column, ratio
from dfkeval.metrics._leaves import prose
from dfkeval.types import Sample

COLUMNS = ("n", "rate")


class Options(Config):
    """language: whose word forms count, "en" or "id"."""

    language: Language = "en"


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, 2) values for `COLUMNS`."""
    options = scoring.options_of("coverage", Options)
    values = np.zeros((len(samples), len(COLUMNS)))
    for row, sample in zip(values, samples, strict=True):
        if not sample.answered:
            continue
        answer = prose(sample.value or {}, scoring.schema)
        covered = grounding.coverage(answer, sample.source_text or "", options.language)
        if covered is not None:
            row[:] = (1, covered)
    details = {} if options.language == "en" else {"language": options.language}
    return Measured(COLUMNS, values, values[:, 0] > 0, details)


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Return the mean rate."""
    return {"rate": ratio(column(sums, columns, "rate"), column(sums, columns, "n"))}


METRIC = Metric(measure, reduce, needs=(Grounded,), settings=("language",))
