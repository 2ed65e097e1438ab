"""The curves of one stage, also read again from the folder of a finished run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkdata.common.errors import DataError
from dfktrain.reports.curves.diagnosis import Diagnosis, Point, diagnose
from dfktrain.reports.curves.usage import Usage

WATCHED = "watch/"
"""Prefix of the names of monitored metrics in the history."""

PANEL = 4
"""Number of lines in one panel, few enough to tell them apart."""

LOG_FROM = 20
"""Greatest loss divided by the least from which on the loss axis is logarithmic."""

Panel = tuple[str, dict[str, list[Point]]]
"""(title, name -> points in order of steps)."""


@dataclass(frozen=True)
class StageCurve:
    """The log lines of one stage so far.

    Attributes:
        name: Name of the stage.
        history: Log lines with "step" and "loss", "learning_rate", "grad_norm", "eval_loss" or "watch/METRIC".
        steps: Number of planned steps.
        finished: Whether the stage is finished.
        usage: Time and memory; None if they are not known yet.
        facts: More to show, as name -> text.
    """

    name: str
    history: Sequence[Mapping[str, float]]
    steps: int
    finished: bool
    usage: Usage | None = None
    facts: Mapping[str, str] | None = None

    @property
    def training(self) -> list[Point]:
        """(step, loss a scored token) on training rows, each the mean since the point before."""
        return _points(self.history, "loss")

    @property
    def validation(self) -> list[Point]:
        """(step, loss a scored token) on all validation rows."""
        return _points(self.history, "eval_loss")

    @property
    def learning_rate(self) -> list[Point]:
        """(step, learning rate) of each log line."""
        return _points(self.history, "learning_rate")

    @property
    def gradient_norm(self) -> list[Point]:
        """(step, norm of the gradient before it is clipped) of each log line."""
        return _points(self.history, "grad_norm")

    @property
    def log_loss(self) -> bool:
        """Whether the losses span so much that only a logarithmic axis shows their end."""
        losses = [loss for _, loss in (*self.training, *self.validation) if math.isfinite(loss)]
        return bool(losses) and min(losses) > 0 and max(losses) / min(losses) > LOG_FROM

    @property
    def watched(self) -> list[Panel]:
        """Return the monitored metrics during training, a panel or more for each; empty if nothing was
        monitored."""
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
        """Return the diagnosis of the two loss curves."""
        return diagnose(self.training, self.validation)


def _points(history: Sequence[Mapping[str, float]], key: str) -> list[Point]:
    return [(int(line["step"]), float(line[key])) for line in history if key in line and "step" in line]


def stage_curves(run: str | Path) -> list[StageCurve]:
    """Return the stages of a finished run in order.

    Raises:
        DataError: The folder holds no finished run.
    """
    path = Path(run) / "run.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return [from_stage(stage) for stage in report["stages"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not the run.json of a finished run ({error}); dfktrain run writes one"
        ) from error


def from_stage(stage: Mapping[str, Any]) -> StageCurve:
    """Return the curve of a stage of run.json, or of a finished `StageResult` as a dict."""
    usage = stage.get("usage")
    facts = {
        "samples": f"{stage['samples']:,}",
        "tokens": f"{stage['tokens']:,}",
        "scored tokens": f"{stage['scored_tokens']:,}",
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
