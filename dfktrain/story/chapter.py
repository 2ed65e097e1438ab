"""One stage of a run as its story tells it, and how a finished run's folder becomes chapters again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkdata.errors import DataError
from dfktrain.story.usage import Usage
from dfktrain.story.verdict import Point, Verdict, judge


@dataclass(frozen=True)
class Chapter:
    """history: log lines with "step" and "loss" or "eval_loss". steps: planned. facts: more to show, as
    text."""

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
    def verdict(self) -> Verdict:
        """What the two curves say."""
        return judge(self.training, self.validation)


def _points(history: Sequence[Mapping[str, float]], key: str) -> list[Point]:
    return [(int(line["step"]), float(line[key])) for line in history if key in line and "step" in line]


def chapters(run: str | Path) -> list[Chapter]:
    """The finished stages of a run's folder, in order. Raises `DataError` where there is no run."""
    path = Path(run) / "run.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return [from_stage(stage) for stage in report["stages"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not the run.json of a finished run ({error}); dfktrain run writes one"
        ) from error


def from_stage(stage: Mapping[str, Any]) -> Chapter:
    """A stage of run.json, or a finished `StageResult` as a dict."""
    usage = stage.get("usage")
    facts = {
        "samples": f"{stage['samples']:,}",
        "tokens": f"{stage['tokens']:,} ({stage['scored_tokens']:,} scored)",
        "packing": str(stage["packing"]),
    }
    return Chapter(
        name=stage["name"],
        history=stage["history"],
        steps=stage["steps"],
        finished=True,
        usage=Usage(**usage) if isinstance(usage, Mapping) else usage,
        facts=facts,
    )
