"""Golds that look wrong: every run answers another label, and all of them the same one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dfkdata.common.errors import ConfigError
from dfkdata.schemas import Label
from dfkeval.metrics import fields_of
from dfkeval.runs.run import Run
from dfkeval.types import Sample


@dataclass(frozen=True)
class Suspect:
    """A row whose gold every run contradicts with one and the same other label. confidence: the runs' mean
    probability of that label, None where one of them gave none."""

    id: str
    gold: str
    said: str
    runs: int
    source_text: str
    confidence: float | None = None


def suspects(runs: Sequence[Run], least: float = 0.0) -> list[Suspect]:
    """Rows to look at again: all runs gave a valid answer, and agreed on a label that is not the gold's.

    The surest come first, those without confidences last, in the order of the data. least: leaves out rows
    whose confidence is lower or not known, unless it is 0. Raises `ConfigError` when the schema has no label,
    or no run is given."""
    fields = fields_of(runs[0].schema, (Label,)) if runs else []
    if not fields:
        raise ConfigError("suspects: give runs of a schema with a label field")
    tables = [{sample.id: sample for sample in run.samples} for run in runs]
    found = [_suspect([table.get(name) for table in tables], fields[0]) for name in tables[0]]
    kept = [each for each in found if each is not None and (each.confidence or 0.0) >= least]
    return sorted(kept, key=lambda each: -1.0 if each.confidence is None else -each.confidence - 1)


def _suspect(samples: Sequence[Sample | None], field: str) -> Suspect | None:
    """The row, if every run answered it with the same label other than the gold's."""
    there = [sample for sample in samples if sample is not None and sample.value is not None]
    first = there[0] if there else None
    if first is None or len(there) < len(samples) or first.gold is None:
        return None
    labels = {str((sample.value or {}).get(field)) for sample in there}
    gold = str(first.gold.get(field))
    if len(labels) > 1 or gold in labels:
        return None
    sure = [sample.confidence for sample in there if sample.confidence is not None]
    mean = sum(sure) / len(sure) if len(sure) == len(there) else None
    return Suspect(first.id, gold, labels.pop(), len(there), first.source_text or first.prompt, mean)
