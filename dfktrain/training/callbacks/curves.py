"""Keep the page with the loss curves up to date while a stage is trained.

Guarantees:
    - The page is written at most once in `PAUSE_S` seconds, by rank 0 only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dfktrain.reports.curves.page import write
from dfktrain.reports.curves.stage_curve import WATCHED, StageCurve

PAUSE_S = 5.0


class CurvesCallback(TrainerCallback):
    """Write the page after a log line.

    Args:
        page: The HTML file.
        title: Its title.
        name: Name of the stage.
        earlier: Curves of the finished stages.
        clock: Returns seconds.
    """

    def __init__(
        self, page: Path, title: str, name: str, earlier: Sequence[StageCurve], clock: Callable[[], float]
    ) -> None:
        self.page, self.title, self.name, self.earlier, self.clock = page, title, name, list(earlier), clock
        self.written: float | None = None

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the page, unless it was just written."""
        if not state.is_world_process_zero:
            return
        if self.written is not None and self.clock() - self.written < PAUSE_S:
            return
        self.written = self.clock()
        lines = [line for line in state.log_history if _is_shown(line)]
        now = StageCurve(self.name, lines, state.max_steps, finished=False)
        write(self.page, self.title, [*self.earlier, now], finished=False)


def _is_shown(line: Mapping[str, float]) -> bool:
    return "loss" in line or "eval_loss" in line or any(name.startswith(WATCHED) for name in line)
