"""Send a run's log lines to TensorBoard files and to Weights & Biases.

Guarantees:
    - Nothing is sent or written unless the configuration names the tracker, and only by rank 0.
    - The configuration and numbers are recorded, never the environment."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dfkdata.common.credentials import public
from dfktrain.config.launch import is_main_process
from dfktrain.config.run import TrainConfig
from dfktrain.config.stage import Stage


def callbacks(config: TrainConfig, stage: Stage, folder: Path) -> list[TrainerCallback]:
    """Return the callbacks of the trackers that `config` names, for the stage in `folder`."""
    if not is_main_process():
        return []
    trackers: list[TrainerCallback] = []
    for name in config.trackers:
        match name:
            case "tensorboard":
                trackers.append(_tensorboard(folder / "tensorboard"))
            case "wandb":
                trackers.append(WandbCallback(config, stage.name))
    return trackers


def _tensorboard(folder: Path) -> TrainerCallback:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(log_dir=str(folder)))


class WandbCallback(TrainerCallback):
    """Send all stages to one W&B run, in which a number is called STAGE/name and drawn over STAGE/step.

    The project is $WANDB_PROJECT, else "dfk"; $WANDB_MODE=offline keeps everything on this machine.

    Args:
        config: The run's configuration, which is recorded.
        stage: Name of the stage.
    """

    def __init__(self, config: TrainConfig, stage: str) -> None:
        self.config, self.stage = config, stage
        self.wandb: Any = importlib.import_module("wandb")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the run, unless an earlier stage has opened it."""
        if self.wandb.run is None:
            self.wandb.init(
                project=os.environ.get("WANDB_PROJECT", "dfk"),
                name=self.config.run_name,
                config=public(self.config.model_dump(mode="json")),
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
        """Send the numbers of a log line."""
        numbers = {key: value for key, value in logs.items() if isinstance(value, int | float)}
        line = {"step": state.global_step, **numbers}
        self.wandb.log({f"{self.stage}/{key}": value for key, value in line.items()})
