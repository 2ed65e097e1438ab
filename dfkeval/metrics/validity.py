"""How many answers are valid: strictly, with repairs, and with something in them.

schema_valid    strict reading, and the JSON Schema holds
non_empty       schema_valid, and it says something
strict_parse    strict reading found one complete answer, whatever it holds
lenient         valid, if need be after named repairs
pydantic        the answer class accepts it as well
complete        not cut by the token limit

The JSON Schema decides. Pydantic is the second opinion: answers where the two differ are listed in the
details with the place, and on the shipped schemas there are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from dfkdata.schemas import Schema
from dfkeval.metrics import Floats, Measured, Metric, Scoring, column, ratio
from dfkeval.metrics._leaves import says_something
from dfkeval.samples import Sample

NAMES = ("schema_valid", "non_empty", "strict_parse", "lenient", "pydantic", "complete")
#: Outcomes where a complete answer was found, whatever it holds.
PARSED = frozenset({"ok", "schema_invalid", "unknown_label"})


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """(N, 7): "n" and one 0/1 column for each of `NAMES`."""
    values = np.zeros((len(samples), 1 + len(NAMES)))
    repairs: Counter[str] = Counter()
    differ: list[dict[str, Any]] = []
    for row, sample in zip(values, samples, strict=True):
        if not sample.answered:
            continue
        fault = None if sample.value is None else disagreement(sample.value, scoring.schema)
        row[:] = (1, *_flags(sample, scoring.schema, fault is None))
        repairs.update(sample.repairs)
        if fault is not None:
            differ.append({"id": sample.id, "place": fault})
    details = {"repairs": dict(sorted(repairs.items())), "pydantic_differs": differ}
    return Measured(("n", *NAMES), values, values[:, 0] > 0, details)


def _flags(sample: Sample, schema: Schema, agreed: bool) -> tuple[bool, ...]:
    valid = sample.value is not None
    return (
        valid,
        sample.value is not None and says_something(sample.value, schema),
        valid or sample.outcome in PARSED,
        sample.lenient is not None,
        valid and agreed,
        sample.finish_reason != "length",
    )


def disagreement(value: dict[str, Any], schema: Schema) -> str | None:
    """JSON pointer and message where the answer class refuses a value that the JSON Schema accepted; None
    if it agrees."""
    if schema.answer.__pydantic_validator__.isinstance_python(value):  # ten times faster than building it
        return None
    try:
        schema.answer.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        return "/" + "/".join(str(step) for step in first["loc"]) + ": " + first["msg"]
    return None


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Shares of all answers."""
    n = column(sums, columns, "n")
    return {name: ratio(column(sums, columns, name), n) for name in NAMES}


METRIC = Metric(measure, reduce, binary={name: name for name in NAMES})
