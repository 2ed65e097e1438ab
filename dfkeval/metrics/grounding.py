"""Share of what an answer says that its source text supports.

rate      mean over answers of (supported texts / texts in grounded fields)
clean     share of answers that say something and hold no unsupported text

The rule is `dfkdata.validation.grounding`: each content word of a text shares a base form with a word of the
source, in any order. An answer that is not valid, or that says nothing although the gold says something, has
rate 0. Rows without a source text are not scored (n = 0 if there is none), and neither are rows in which
answer and gold both have nothing to ground."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfkdata.common.config import Config
from dfkdata.schemas import Grounded
from dfkdata.validation import grounding
from dfkdata.validation.morphology import Language
from dfkeval.metrics import Floats, Measured, Metric, Scoring, column, ratio
from dfkeval.types import Sample

COLUMNS = ("n", "rate", "clean", "leaves", "supported")


class Options(Config):
    """language: whose word forms count, "en" or "id"."""

    language: Language = "en"


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, 5) values for `COLUMNS`; "leaves" and "supported" count texts."""
    options = scoring.options_of("grounding", Options)
    values = np.zeros((len(samples), len(COLUMNS)))
    unsupported: dict[str, list[str]] = {}
    for row, sample in zip(values, samples, strict=True):
        source = sample.source_text or ""
        if not sample.answered or not source.strip():
            continue
        rate = grounding.rate(sample.value or {}, source, scoring.schema, options.language)
        gold_texts = grounding.grounded_texts(sample.gold or {}, scoring.schema)
        if sample.value is not None and not rate.texts and not any(gold_texts):
            continue
        clean = bool(rate.texts) and not rate.missing
        row[:] = (1, rate.value or 0.0, clean, rate.texts, rate.supported)
        if rate.missing:
            unsupported[sample.id] = list(rate.missing)
    details: dict[str, object] = {"unsupported": unsupported}
    if options.language != "en":
        details["language"] = options.language
    return Measured(COLUMNS, values, values[:, 0] > 0, details)


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Return rate and clean per answer, and leaf_rate over all texts of all answers."""
    n = column(sums, columns, "n")
    out = {name: ratio(column(sums, columns, name), n) for name in ("rate", "clean")}
    return out | {"leaf_rate": ratio(column(sums, columns, "supported"), column(sums, columns, "leaves"))}


METRIC = Metric(measure, reduce, needs=(Grounded,), binary={"clean": "clean"}, settings=("language",))
