"""Share of answers that are valid: strictly, after repairs, and with content.

schema_valid    strict reading, and the JSON Schema holds
non_empty       schema_valid, and it says something
strict_parse    strict reading found one complete answer, whatever it holds
lenient         valid, if need be after named repairs
pydantic        schema_valid, and the answer class takes it as well
complete        not cut by the token limit
differs         JSON Schema and answer class disagree (less is better)

The JSON Schema decides. The answer class (pydantic) is checked as well: answers on which the two differ are counted
and listed in the details with the place; on the shipped schemas there are none. An answer that the class refuses has
the outcome `class_refused` and does not count as an answer for the other metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from dfkdata.schemas import Schema
from dfkeval.metrics import Floats, Measured, Metric, Scoring, column, ratio
from dfkeval.metrics._leaves import says_something
from dfkeval.types import Sample

NAMES = ("schema_valid", "non_empty", "strict_parse", "lenient", "pydantic", "complete", "differs")
#: Outcomes of complete answers, whatever they hold.
PARSED = frozenset({"ok", "schema_invalid", "unknown_label", "class_refused"})


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, 8) statistics: n and one 0/1 column for each of `NAMES`."""
    values = np.zeros((len(samples), 1 + len(NAMES)))
    repairs: Counter[str] = Counter()
    differ: list[dict[str, Any]] = []
    for row, sample in zip(values, samples, strict=True):
        if not sample.answered:
            continue
        row[:] = (1, *_flags(sample, scoring.schema))
        repairs.update(sample.repairs)
        if sample.differs is not None:
            differ.append({"id": sample.id, "place": sample.differs})
    details = {"repairs": dict(sorted(repairs.items())), "pydantic_differs": differ}
    return Measured(("n", *NAMES), values, values[:, 0] > 0, details)


def _flags(sample: Sample, schema: Schema) -> tuple[bool, ...]:
    valid = sample.value is not None or sample.outcome == "class_refused"
    return (
        valid,
        sample.value is not None and says_something(sample.value, schema),
        valid or sample.outcome in PARSED,
        sample.lenient is not None,
        sample.value is not None,
        sample.finish_reason == "stop",
        sample.differs is not None,
    )


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Return the shares of all answers."""
    n = column(sums, columns, "n")
    return {name: ratio(column(sums, columns, name), n) for name in NAMES}


METRIC = Metric(measure, reduce, binary={name: name for name in NAMES}, lower_is_better=("differs",))
