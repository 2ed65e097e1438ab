"""Short runs of the trainer: their configuration, the weights that they save, and the gradient of one step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dfktrain import TrainConfig
from dfktrain.engines import trainable
from dfktrain.training.trainer import AnswerTrainer


def config(base: Path, data: Path, **changes: Any) -> TrainConfig:
    stage = {
        "name": "sft",
        "data": [str(data)],
        "batch_size": 3,
        "learning_rate": 5e-3,
        "scheduler": "constant",
    }
    return TrainConfig.model_validate({"model": {"name": str(base)}, "stages": [stage | changes]})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(str(folder / "adapter_model.safetensors"))


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def step_gradient(
    model: Any, collator: Any, rows: list[Any], sizes: list[int], folder: Path, accumulation: int
) -> dict[str, torch.Tensor]:
    """The gradients that the Trainer has just before its optimiser step over `rows`, split as `sizes`
    says."""
    from transformers import TrainerCallback, TrainingArguments

    caught: dict[str, torch.Tensor] = {}

    class Catch(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            caught.update(
                {name: p.grad.clone() for name, p in trainable(kwargs["model"]) if p.grad is not None}
            )

    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=sizes[0],
        gradient_accumulation_steps=accumulation,
        max_steps=1, max_grad_norm=0.0, learning_rate=0.0, report_to="none", use_cpu=True, disable_tqdm=True,
        remove_unused_columns=False, label_names=["labels"], save_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = AnswerTrainer(
        group_by_length=False,
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=collator,
        callbacks=[Catch()],
    )
    trainer.train()
    model.zero_grad()
    return caught


def difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """Norm of the difference relative to the norm."""
    assert left.keys() == right.keys()
    one, two = (torch.cat([side[name].flatten().double() for name in left]) for side in (left, right))
    return float((one - two).norm() / one.norm())
