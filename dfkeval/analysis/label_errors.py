"""Find gold labels that look wrong: every run answers another label, and all of them the same one."""

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
    """A row whose gold label every run contradicts with the same other label.

    Attributes:
        id: The id of the row.
        gold: Its gold label.
        answered: The label that all runs answered.
        runs: Number of runs.
        source_text: The text of the row.
        confidence: The runs' mean probability of the answered label; None if one of them gave none.
    """

    id: str
    gold: str
    answered: str
    runs: int
    source_text: str
    confidence: float | None = None


def suspects(runs: Sequence[Run], least: float = 0.0) -> list[Suspect]:
    """Return the rows of which all runs gave a valid answer and agreed on a label that is not the gold's.

    Args:
        runs: Runs on the same rows.
        least: Smallest confidence; above 0, rows without a known confidence are left out too.

    Returns:
        The surest first, those without confidence last in the order of the data.

    Raises:
        ConfigError: The schema has no label field, or no run is given.
    """
    fields = fields_of(runs[0].schema, (Label,)) if runs else []
    if not fields:
        raise ConfigError("suspects: give runs of a schema with a label field")
    tables = [{sample.id: sample for sample in run.samples} for run in runs]
    candidates = [_suspect([table.get(name) for table in tables], fields[0]) for name in tables[0]]
    suspects = [row for row in candidates if row is not None and (row.confidence or 0.0) >= least]
    return sorted(suspects, key=lambda row: -1.0 if row.confidence is None else -row.confidence - 1)


def _suspect(samples: Sequence[Sample | None], field: str) -> Suspect | None:
    """Return the row if every run answered it with the same label other than the gold's."""
    valid = [sample for sample in samples if sample is not None and sample.value is not None]
    first = valid[0] if valid else None
    if first is None or len(valid) < len(samples) or first.gold is None:
        return None
    labels = {str((sample.value or {}).get(field)) for sample in valid}
    gold = str(first.gold.get(field))
    if len(labels) > 1 or gold in labels:
        return None
    confidences = [sample.confidence for sample in valid if sample.confidence is not None]
    mean = sum(confidences) / len(confidences) if len(confidences) == len(valid) else None
    return Suspect(first.id, gold, labels.pop(), len(valid), first.source_text or first.prompt, mean)
