"""The Trainer's callback that keeps the page and the picture of a stage up to date.

Promises: at most one page a few seconds; only rank 0 writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dfktrain.reports.curves.page import write
from dfktrain.reports.curves.stage_curve import WATCHED, StageCurve

PAUSE_S = 5.0


class CurvesCallback(TrainerCallback):
    """Writes `page` with `earlier` chapters and the stage `name` as it stands."""

    def __init__(
        self, page: Path, title: str, name: str, earlier: Sequence[StageCurve], clock: Callable[[], float]
    ) -> None:
        self.page, self.title, self.name, self.earlier, self.clock = page, title, name, list(earlier), clock
        self.written: float | None = None

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A new page, unless one was just written."""
        if not state.is_world_process_zero:
            return
        if self.written is not None and self.clock() - self.written < PAUSE_S:
            return
        self.written = self.clock()
        lines = [line for line in state.log_history if _told(line)]
        now = StageCurve(self.name, lines, state.max_steps, finished=False)
        write(self.page, self.title, [*self.earlier, now], finished=False)


def _told(line: Mapping[str, float]) -> bool:
    return "loss" in line or "eval_loss" in line or any(name.startswith(WATCHED) for name in line)
