"""Services that get a run's log lines too: TensorBoard files, Weights & Biases.

Promises: nothing is sent or written unless the configuration names the tracker; only rank 0 speaks; what is
recorded is the configuration and numbers, never the environment."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dfktrain.config.launch import is_main_process
from dfktrain.config.run import Stage, TrainConfig


def callbacks(config: TrainConfig, stage: Stage, folder: Path) -> list[TrainerCallback]:
    """The callbacks of the trackers that `config` names, for one stage whose folder is `folder`."""
    if not is_main_process():
        return []
    made: list[TrainerCallback] = []
    for name in config.trackers:
        match name:
            case "tensorboard":
                made.append(_tensorboard(folder / "tensorboard"))
            case "wandb":
                made.append(WandbCallback(config, stage.name))
    return made


def _tensorboard(folder: Path) -> TrainerCallback:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(log_dir=str(folder)))


class WandbCallback(TrainerCallback):
    """One W&B run for all stages; every number is called STAGE/name and drawn over STAGE/step.

    The project is $WANDB_PROJECT, else "dfk"; $WANDB_MODE=offline keeps everything on this machine."""

    def __init__(self, config: TrainConfig, stage: str) -> None:
        self.config, self.stage = config, stage
        self.wandb: Any = importlib.import_module("wandb")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the run, unless an earlier stage has."""
        if self.wandb.run is None:
            self.wandb.init(
                project=os.environ.get("WANDB_PROJECT", "dfk"),
                name=self.config.run_name,
                config=self.config.model_dump(mode="json"),
            )
        self.wandb.define_metric(f"{self.stage}/*", step_metric=f"{self.stage}/step")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        """The numbers of a log line."""
        numbers = {key: value for key, value in logs.items() if isinstance(value, int | float)}
        line = {"step": state.global_step, **numbers}
        self.wandb.log({f"{self.stage}/{key}": value for key, value in line.items()})
