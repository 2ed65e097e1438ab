"""Let the model answer and score a fixed set of rows while it is trained.

    DIR/stages/NAME/watch/rows.jsonl     the rows, drawn with the run's seed
    DIR/stages/NAME/watch/step-000100/   one evaluation, a run directory of dfkeval

How it works: after an optimiser step `dfkeval` evaluates the model through its own transformers backend. The
metrics become a line of the training log ("watch/labels.macro_f1"), so trackers, curves and run.json get them
like a loss.

Guarantees:
    - A monitored run ends with the weights of one that was not: random states, the mode of each module and the
      gradients are restored, and the tokenizer is a copy.
    - Only rank 0 evaluates; the others wait for it at the next step.
    - Rows that cannot be asked raise an error before the first step."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dfkdata.common.errors import ConfigError
from dfkeval.backends.transformers import Transformers
from dfkeval.evaluation import evaluate
from dfkeval.models import loader
from dfkeval.models.processor import set_pixels
from dfkeval.runs.run import Run
from dfktrain.config.run import TrainConfig
from dfktrain.config.sections import MonitorConfig
from dfktrain.config.stage import Stage
from dfktrain.reports.curves.stage_curve import WATCHED
from dfktrain.training.monitor_plan import LIVE, evaluation, write_rows

if TYPE_CHECKING:
    from dfktrain.training.trainer import AnswerTrainer

FOLDER = "watch"


def callbacks(
    config: TrainConfig, stage: Stage, folder: Path, model: Any, processor: Any, precision: str
) -> list[MonitorCallback]:
    """Return the monitoring callback of a stage, in a list that is empty if the stage has none.

    Args:
        config: The run's configuration.
        stage: The stage.
        folder: Folder of the stage.
        model: The network with its adapter.
        processor: Its processor.
        precision: "fp32" or "bf16".
    """
    monitor = config.monitor_of(stage)
    if monitor is None:
        return []
    live = LiveModel(model, processor, precision, stage.max_pixels)
    return [MonitorCallback(monitor, config.seed, folder / FOLDER, live)]


class LiveModel:
    """The model in training as a backend that leaves it as it was.

    Args:
        model: The network with its adapter.
        processor: Its processor, which is copied.
        precision: With "bf16" the model answers under autocast, as it is trained.
        max_pixels: Largest number of pixels of an image; None keeps the processor's budget.
    """

    def __init__(self, model: Any, processor: Any, precision: str, max_pixels: int | None) -> None:
        self.model, self.precision = model, precision
        self.processor = copy.deepcopy(processor)  # padding and truncation are state of a tokenizer
        if max_pixels is not None:
            set_pixels(self.processor, max_pixels=max_pixels)

    @contextmanager
    def backend(self, batch_tokens: int) -> Iterator[Transformers]:
        """Give a backend around the model, which is in eval mode within."""
        info = {"model": LIVE, "device": str(self.model.device), "precision": self.precision}
        loaded = loader.Loaded(self.model, self.processor, None, LIVE, info)
        device = torch.device(self.model.device).type
        with (
            untouched(self.model),
            torch.autocast(device, dtype=torch.bfloat16, enabled=self.precision == "bf16"),
        ):
            self.model.eval()
            yield Transformers(loaded, batch_tokens=batch_tokens, workers=1)


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Restore random states and every module's training mode afterwards."""
    import numpy as np

    modes = [(module, module.training) for module in model.modules()]
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    plain, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(arrays)
        for module, training in modes:
            module.training = training


class MonitorCallback(TrainerCallback):
    """Evaluate the model at the start of a stage, every so many steps, and after its last one.

    Args:
        monitor: The rows and how they are scored.
        seed: Decides which rows are drawn.
        folder: Where the rows and the evaluations go.
        live: The model.
    """

    def __init__(self, monitor: MonitorConfig, seed: int, folder: Path, live: LiveModel) -> None:
        self.monitor, self.seed, self.folder, self.live = monitor, seed, folder, live
        self.trainer: AnswerTrainer | None = None
        self.rows: Path | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the rows and evaluate before the first step; raise `ConfigError` for sharded training."""
        trainer = self.trainer
        if trainer is not None and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
            raise ConfigError(
                "watch asks the model on rank 0, which holds only a part of it here; leave watch out of "
                "sharded training, and score the saved adapter with evaluate:"
            )
        if not state.is_world_process_zero:
            return
        self.rows = write_rows(self.monitor, self.seed, self.folder)
        if state.global_step == 0:
            self._evaluate(state, control)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate if it is due."""
        due = state.global_step % self.monitor.every_steps == 0 or state.global_step >= state.max_steps
        if due and state.is_world_process_zero:
            self._evaluate(state, control)

    def _evaluate(self, state: TrainerState, control: TrainerControl) -> None:
        if self.trainer is None or self.rows is None:
            raise RuntimeError("the monitor was called before its trainer has begun")
        out = self.folder / f"step-{state.global_step:06d}"
        with self.live.backend(self.monitor.batch_tokens) as backend:
            settings = evaluation(self.monitor, self.rows)
            run = evaluate.evaluate(settings, out, backend=backend, overwrite=True)
        should_log = control.should_log
        self.trainer.log(numbers(run))
        control.should_log = should_log  # the library takes any line for the one of the loss


def numbers(run: Run) -> dict[str, float]:
    """Return the run's metrics as a log line, with "watch/failed_share" if a request got no answer."""
    line = {
        f"{WATCHED}{name}": float(metric["value"])
        for name, metric in run.summary["metrics"].items()
        if metric["value"] is not None and math.isfinite(metric["value"])
    }
    if run.failed_share:
        line[f"{WATCHED}failed_share"] = run.failed_share
    return line
