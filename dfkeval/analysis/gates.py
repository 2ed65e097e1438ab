"""Conditions for pipelines, trends over a folder of runs, and golds that look wrong.

A gate is one comparison such as `labels.macro_f1.low < 0.8`; when it holds, the command exits 1."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError
from dfkdata.common.plugins import suggestion
from dfkdata.schemas import Label
from dfkeval.analysis.comparison import HEADLINES
from dfkeval.evaluation.evaluate import Run
from dfkeval.metrics import fields_of
from dfkeval.runs import directory
from dfkeval.types import Sample

_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_GATE = re.compile(r"\s*([\w.<>]+?)\.(value|low|high|n)\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True)
class Gate:
    """`metric`.`part` `sign` `bound`."""

    metric: str
    part: str
    sign: str
    bound: float

    def fails(self, summary: dict[str, Any]) -> bool:
        """Whether the condition holds, or has no number to hold for. Raises `ConfigError` for an unknown
        metric."""
        found = summary["metrics"]
        if self.metric not in found:
            near = suggestion(self.metric, sorted(found))
            raise ConfigError(f"--fail-if: the run has no metric {self.metric!r}{near}")
        value = found[self.metric][self.part]
        return value is None or _SIGNS[self.sign](value, self.bound)


def gate(text: str) -> Gate:
    """Read "labels.macro_f1.low < 0.8". Raises `ConfigError` with the form when it is not one."""
    found = _GATE.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"--fail-if {text!r}: write METRIC.value, .low, .high or .n, a sign and a number, "
            "for example 'labels.macro_f1.low < 0.8'"
        )
    return Gate(found[1], found[2], found[3], float(found[4]))


def runs_in(folder: Path) -> list[Path]:
    """The scored runs directly below `folder`, oldest first. Raises `ConfigError` when there are none."""
    found = [
        path
        for path in folder.glob("*/")
        if (path / directory.SUMMARY).is_file() and (path / directory.CONFIG).is_file()
    ]
    if not found:
        raise ConfigError(f"{folder}: holds no scored runs")
    return sorted(found, key=lambda path: ((path / directory.COMPLETIONS).stat().st_mtime_ns, path.name))


def history(folder: Path, names: Sequence[str] = ()) -> tuple[list[str], list[tuple[str, ...]]]:
    """(header, rows) of the runs below `folder`: n, each metric's value, and its change to the run before.

    names: values to show; without any, those of `HEADLINES` that some run has. Raises `ConfigError` for a
    name that no run has, or a folder without runs."""
    runs = [(path.name, directory.read_summary(path)) for path in runs_in(folder)]
    known = {name for _, summary in runs for name in summary["metrics"]}
    refuse_unknown(names, known)
    shown = [name for name in names or HEADLINES if name in known]
    rows = []
    before: dict[str, float | None] = {}
    for name, summary in runs:
        cells = []
        for metric in shown:
            value = summary["metrics"].get(metric, {}).get("value")
            cells.append(_trend(value, before.get(metric)))
            before[metric] = value if value is not None else before.get(metric)
        rows.append((name, str(summary["n"]), *cells))
    return ["run", "n", *shown], rows


def refuse_unknown(names: Sequence[str], known: Iterable[str]) -> None:
    """Raises `ConfigError` for a value that the runs do not have."""
    there = sorted(known)
    for name in names:
        if name not in there:
            raise ConfigError(f"--metric: no run has a value {name!r}{suggestion(name, there)}")


def _trend(value: float | None, before: float | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:.3f}" if before is None else f"{value:.3f} ({value - before:+.3f})"


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
