"""One stage of a run as its story tells it, and how a finished run's folder becomes chapters again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkdata.common.errors import DataError
from dfktrain.reports.curves.diagnosis import Diagnosis, Point, diagnose
from dfktrain.reports.curves.usage import Usage

WATCHED = "watch/"
"""How the names of watched numbers begin in the history."""

PANEL = 4
"""Lines that one panel holds, so that each can be told from the others."""

Panel = tuple[str, dict[str, list[Point]]]
"""(title, name -> points in order of steps)."""


@dataclass(frozen=True)
class StageCurve:
    """history: log lines with "step" and "loss", "eval_loss" or "watch/METRIC". steps: planned. facts:
    more to show, as text."""

    name: str
    history: Sequence[Mapping[str, float]]
    steps: int
    finished: bool
    usage: Usage | None = None
    facts: Mapping[str, str] | None = None

    @property
    def training(self) -> list[Point]:
        """(step, loss a scored token) of the training rows, each the mean since the line before."""
        return _points(self.history, "loss")

    @property
    def validation(self) -> list[Point]:
        """(step, loss a scored token) over all validation rows."""
        return _points(self.history, "eval_loss")

    @property
    def watched(self) -> list[Panel]:
        """What the model answered while it was trained: a panel a metric, or more where it has many numbers.
        Empty where nothing was watched."""
        names = dict.fromkeys(name for line in self.history for name in line if name.startswith(WATCHED))
        metrics: dict[str, list[str]] = {}
        for name in names:
            metrics.setdefault(name.removeprefix(WATCHED).partition(".")[0], []).append(name)
        return [
            (metric, {name.removeprefix(WATCHED): _points(self.history, name) for name in part})
            for metric, members in metrics.items()
            for part in (members[at : at + PANEL] for at in range(0, len(members), PANEL))
        ]

    @property
    def diagnosis(self) -> Diagnosis:
        """What the two curves say."""
        return diagnose(self.training, self.validation)


def _points(history: Sequence[Mapping[str, float]], key: str) -> list[Point]:
    return [(int(line["step"]), float(line[key])) for line in history if key in line and "step" in line]


def stage_curves(run: str | Path) -> list[StageCurve]:
    """The finished stages of a run's folder, in order. Raises `DataError` where there is no run."""
    path = Path(run) / "run.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return [from_stage(stage) for stage in report["stages"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not the run.json of a finished run ({error}); dfktrain run writes one"
        ) from error


def from_stage(stage: Mapping[str, Any]) -> StageCurve:
    """A stage of run.json, or a finished `StageResult` as a dict."""
    usage = stage.get("usage")
    facts = {
        "samples": f"{stage['samples']:,}",
        "tokens": f"{stage['tokens']:,} ({stage['scored_tokens']:,} scored)",
        "packing": str(stage["packing"]),
    }
    return StageCurve(
        name=stage["name"],
        history=stage["history"],
        steps=stage["steps"],
        finished=True,
        usage=Usage(**usage) if isinstance(usage, Mapping) else usage,
        facts=facts,
    )
