"""The callbacks that every stage has: progress, whole checkpoints, epochs, two checks, and the page of curves.

Guarantees:
    - The page is written at most once in `PAUSE_S` seconds, by rank 0 only.
    - A run whose first gradient is zero or not finite, or whose loss is not finite, stops with an error."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dfkdata.common.errors import BackendError
from dfktrain.training.checkpoints import mark_complete
from dfktrain.training.state import OnProgress, TrainingProgress

if TYPE_CHECKING:
    from dfktrain.training.trainer import AnswerTrainer
from collections.abc import Mapping, Sequence

from dfktrain.reports.curves.page import write
from dfktrain.reports.curves.stage_curve import WATCHED, StageCurve


class ProgressCallback(TrainerCallback):
    """Report progress, mark whole checkpoints, set the sampler's epoch, and stop a run that learns nothing.

    Args:
        stage: Name of the stage.
        on_progress: Called after every optimiser step, if it is not None.
        clock: Returns seconds; the stage begins when the callback is made.
    """

    def __init__(self, stage: str, on_progress: OnProgress | None, clock: Callable[[], float]) -> None:
        self.stage, self.on_progress, self.clock = stage, on_progress, clock
        self.start = clock()
        self.loss: float | None = None
        self.trainer: AnswerTrainer | None = None

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the order of this epoch, also when it is resumed in the middle."""
        if self.trainer is not None and self.trainer.train_sampler is not None:
            self.trainer.train_sampler.set_epoch(math.floor((state.epoch or 0.0) + 1e-9))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the gradient of the first step."""
        if state.global_step == 0:
            engine = getattr(self.trainer, "deepspeed", None)  # it has stepped by now and keeps only the norm
            check_norm(float(engine.get_global_grad_norm()) if engine else gradient_norm(kwargs["model"]))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report the steps that have no log line."""
        if state.global_step % args.logging_steps:
            self._report(state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: Any,
    ) -> None:
        """Keep the loss and report it; raise `BackendError` if it is not finite."""
        if "loss" in logs:
            self.loss = logs["loss"]
            if not math.isfinite(self.loss):
                raise BackendError(
                    f"stage {self.stage}: the loss is {self.loss} at step {state.global_step}; "
                    f"lower learning_rate"
                )
            self._report(state)

    def _report(self, state: TrainerState) -> None:
        if self.on_progress is not None:
            seconds = self.clock() - self.start
            self.on_progress(
                TrainingProgress(self.stage, state.global_step, state.max_steps, self.loss, seconds)
            )

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Mark the checkpoint as whole."""
        if state.is_world_process_zero and self.trainer is not None:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            mark_complete(checkpoint, int(self.trainer.tokens), int(self.trainer.scored))


def gradient_norm(model: nn.Module) -> float:
    """Return the norm of the gradient of all trained weights, 0 if there is no gradient."""
    squares = [
        p.grad.float().pow(2).sum() for p in model.parameters() if p.requires_grad and p.grad is not None
    ]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def check_norm(norm: float) -> None:
    """Raise `BackendError` unless the norm of a gradient is finite and not zero."""
    if not math.isfinite(norm) or norm == 0.0:
        raise BackendError(
            f"the gradient of the first step has norm {norm}: nothing would be trained; "
            f"check target_modules, the attention and GDN kernels, and the precision"
        )


PAUSE_S = 5.0


class CurvesCallback(TrainerCallback):
    """Write the page after a log line.

    Args:
        page: The HTML file.
        title: Its title.
        name: Name of the stage.
        earlier: Curves of the finished stages.
        clock: Returns seconds.
        lang: Language of the page.
    """

    def __init__(
        self,
        page: Path,
        title: str,
        name: str,
        earlier: Sequence[StageCurve],
        clock: Callable[[], float],
        lang: str = "en",
    ) -> None:
        self.lang = lang
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
        write(self.page, self.title, [*self.earlier, now], finished=False, lang=self.lang)


def _is_shown(line: Mapping[str, float]) -> bool:
    return "loss" in line or "eval_loss" in line or any(name.startswith(WATCHED) for name in line)
