"""The arguments of transformers' Trainer for one stage; nothing is left to the library's defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from dfktrain.config.run import TrainConfig
from dfktrain.config.stage import Stage

MOST_WORKERS = 8
"""Processes of a loader that are chosen without being asked for."""


def loader_workers(config: TrainConfig, *, pictures: bool) -> int:
    """Return how many processes make batches ahead of the steps.

    Args:
        config: The run's configuration.
        pictures: Whether the stage has images or videos, which are opened and resized.
    """
    if config.workers is not None or not torch.cuda.is_available():
        return config.workers or 0
    gpus: int = torch.cuda.device_count()
    spare = max(1, (os.cpu_count() or 1) // max(1, gpus) - 1)
    return min(MOST_WORKERS if pictures else 2, spare)


def training_arguments(
    config: TrainConfig, stage: Stage, index: int, precision: str, folder: Path, workers: int = 0
) -> Any:
    """Return the `TrainingArguments` of a stage.

    Args:
        config: The run's configuration.
        stage: The stage.
        index: Its place in the run; each stage has a seed of its own.
        precision: "fp32" or "bf16".
        folder: Where checkpoints go.
        workers: Processes of the loader.
    """
    from transformers import TrainingArguments

    warmup = stage.warmup_ratio if stage.warmup_ratio is not None else stage.warmup_steps
    saves = stage.save_steps or (stage.eval_steps if stage.best else None)
    evaluates = ("steps" if stage.eval_steps else "epoch") if stage.validation else "no"
    checkpointing = config.checkpointing == "torch"
    compares = stage.best or stage.patience
    cuda = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=stage.epochs or 1.0,
        max_steps=stage.steps or -1,
        per_device_train_batch_size=stage.batch_size,
        per_device_eval_batch_size=stage.batch_size,
        gradient_accumulation_steps=stage.accumulation,
        learning_rate=stage.learning_rate,
        lr_scheduler_type=stage.scheduler,
        warmup_steps=warmup or 0,
        optim=stage.optimizer,
        weight_decay=stage.weight_decay,
        adam_beta2=stage.beta2,
        max_grad_norm=stage.clip,
        bf16=precision == "bf16",
        gradient_checkpointing=checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
        save_strategy="steps" if saves else "epoch",
        save_steps=saves or 500,
        save_total_limit=stage.save_total_limit,
        eval_strategy=evaluates,
        eval_steps=stage.eval_steps,
        load_best_model_at_end=stage.best,
        metric_for_best_model="eval_loss" if compares else None,
        greater_is_better=False if compares else None,
        logging_steps=stage.log_steps,
        logging_nan_inf_filter=False,
        report_to="none",  # trackers are callbacks of their own
        run_name=config.run_name,
        seed=config.seed + index,
        use_cpu=not cuda,
        **_loader(cuda, workers),
        remove_unused_columns=False,
        label_names=["labels"],
        disable_tqdm=True,
    )
    # several GPUs in one process would be DataParallel; several processes (torchrun) are used instead
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _loader(cuda: bool, workers: int) -> dict[str, Any]:
    return {
        "dataloader_pin_memory": cuda,
        "dataloader_num_workers": workers,
        "dataloader_persistent_workers": workers > 0,
        "accelerator_config": {"non_blocking": cuda},
    }
