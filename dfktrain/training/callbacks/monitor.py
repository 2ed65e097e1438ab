"""A fixed slice of rows, answered by the model while it is trained.

    DIR/stages/NAME/watch/rows.jsonl     the slice, drawn by the run's seed
    DIR/stages/NAME/watch/step-000100/   each point, a run directory of dfkeval

Strategy: `dfkeval` asks the live model through its own transformers backend, after an optimiser step; the
metrics become a line of the training log ("watch/labels.macro_f1"), so trackers, curves and run.json get them
like a loss.
Promises: the training does not notice: random states, each module's mode and the gradients are as before, and
the tokenizer is a copy, so a watched run ends with the weights of one that was not; only rank 0 asks, the
others wait for it at the next step; what could not be asked is said before the first step."""

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
from dfktrain.config.run import Stage, TrainConfig
from dfktrain.config.sections import MonitorConfig
from dfktrain.reports.curves.stage_curve import WATCHED
from dfktrain.training.monitor_plan import LIVE, evaluation, slice_of

if TYPE_CHECKING:
    from dfktrain.training.trainer import AnswerTrainer

FOLDER = "watch"


def callbacks(
    config: TrainConfig, stage: Stage, folder: Path, model: Any, processor: Any, precision: str
) -> list[MonitorCallback]:
    """The callback of a stage whose folder is `folder`; none where nothing is watched."""
    watched = config.watched(stage)
    if watched is None:
        return []
    live = LiveModel(model, processor, precision, stage.max_pixels)
    return [MonitorCallback(watched, config.seed, folder / FOLDER, live)]


class LiveModel:
    """The model in training as something that can be asked, and left as it was found.

    precision: "bf16" asks under autocast, as the training's forward runs. max_pixels: the stage's budget."""

    def __init__(self, model: Any, processor: Any, precision: str, max_pixels: int | None) -> None:
        self.model, self.precision = model, precision
        self.processor = copy.deepcopy(processor)  # padding and truncation are state of a tokenizer
        if max_pixels is not None:
            set_pixels(self.processor, max_pixels=max_pixels)

    @contextmanager
    def backend(self, batch_tokens: int) -> Iterator[Transformers]:
        """Within, a backend around the model in eval mode."""
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
    """Whatever happens within, random states and every module's training mode are restored."""
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
    """Asks at the start of a stage, every so many steps, and after its last one.

    trainer: set once it is made; it keeps the log lines."""

    def __init__(self, watched: MonitorConfig, seed: int, folder: Path, live: LiveModel) -> None:
        self.watched, self.seed, self.folder, self.live = watched, seed, folder, live
        self.trainer: AnswerTrainer | None = None
        self.rows: Path | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The slice, and the point before the first step. Raises `ConfigError` for sharded training."""
        trainer = self.trainer
        if trainer is not None and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
            raise ConfigError(
                "watch asks the model on rank 0, which holds only a part of it here; leave watch out of "
                "sharded training, and score the saved adapter with evaluate:"
            )
        if not state.is_world_process_zero:
            return
        self.rows = slice_of(self.watched, self.seed, self.folder)
        if state.global_step == 0:
            self._ask(state, control)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A point, where one is due."""
        due = state.global_step % self.watched.every_steps == 0 or state.global_step >= state.max_steps
        if due and state.is_world_process_zero:
            self._ask(state, control)

    def _ask(self, state: TrainerState, control: TrainerControl) -> None:
        if self.trainer is None or self.rows is None:
            raise RuntimeError("a watch is asked before its trainer has begun")
        out = self.folder / f"step-{state.global_step:06d}"
        with self.live.backend(self.watched.batch_tokens) as backend:
            settings = evaluation(self.watched, self.rows)
            run = evaluate.evaluate(settings, out, backend=backend, overwrite=True)
        due = control.should_log
        self.trainer.log(numbers(run))
        control.should_log = due  # the library takes any line for the one of the loss


def numbers(run: Run) -> dict[str, float]:
    """The run's metrics as a log line; "watch/failed_share" where a request got no answer."""
    found = {
        f"{WATCHED}{name}": float(each["value"])
        for name, each in run.summary["metrics"].items()
        if each["value"] is not None and math.isfinite(each["value"])
    }
    if run.failed_share:
        found[f"{WATCHED}failed_share"] = run.failed_share
    return found
