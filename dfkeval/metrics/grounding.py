"""How much of what was said is supported by the source text.

rate      mean over answers of (supported leaves / leaves of grounded lists)
clean     share of answers that say something and hold no unsupported leaf

A leaf is supported when its content words stand in the source in their order, close together, in singular
or plural. An answer that is not valid, or that says nothing where the gold says something, has rate 0. Rows
without a source text are not scored (n = 0 when there is none), and neither are rows where answer and gold
both have nothing to ground."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dfkdata.schemas import Grounded, Schema
from dfkeval.metrics import Floats, Measured, Metric, Scoring, column, fields_of, ratio
from dfkeval.metrics._leaves import list_leaves
from dfkeval.metrics._words import bases, content, occurs
from dfkeval.types import Sample

COLUMNS = ("n", "rate", "clean", "leaves", "supported")


def grounded_texts(value: dict[str, Any], schema: Schema) -> Iterator[str]:
    """The texts that must be supported: entries of grounded lists, names and attributes of objects."""
    for name in fields_of(schema, (Grounded,)):
        for leaf in list_leaves(name, value.get(name)):
            yield leaf[-1]


def supported(text: str, source: Sequence[frozenset[str]]) -> bool:
    """Whether `text` is said in the source, whose words come as `bases`."""
    return occurs(content(text), source)


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """(N, 5): `COLUMNS`; "leaves" and "supported" count texts."""
    values = np.zeros((len(samples), len(COLUMNS)))
    unsupported: dict[str, list[str]] = {}
    for row, sample in zip(values, samples, strict=True):
        if not sample.answered or not (sample.source_text or "").strip():
            continue
        texts = list(grounded_texts(sample.value or {}, scoring.schema))
        if (
            sample.value is not None
            and not texts
            and not any(grounded_texts(sample.gold or {}, scoring.schema))
        ):
            continue
        source = bases(sample.source_text or "")
        lost = [text for text in texts if not supported(text, source)]
        good = len(texts) - len(lost)
        row[:] = (1, good / len(texts) if texts else 0.0, bool(texts) and not lost, len(texts), good)
        if lost:
            unsupported[sample.id] = lost
    return Measured(COLUMNS, values, values[:, 0] > 0, {"unsupported": unsupported})


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """rate and clean per answer; leaf_rate over all leaves that were said."""
    n = column(sums, columns, "n")
    out = {name: ratio(column(sums, columns, name), n) for name in ("rate", "clean")}
    return out | {"leaf_rate": ratio(column(sums, columns, "supported"), column(sums, columns, "leaves"))}


METRIC = Metric(measure, reduce, needs=(Grounded,), binary={"clean": "clean"})
