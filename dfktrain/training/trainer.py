"""The library's Trainer with the four things that it gets wrong for us put right.

1. Loss: the sum over scored tokens divided by the step's scored tokens on all ranks, so a step is a function
of its samples only. (Vision-language classes declare that they accept no loss arguments; Trainer then
averages micro-batches.)
2. Order: batches of similar length, a function of seed and epoch alone.
3. Validation loss: weighted by tokens, not a mean of batch means.
4. Proof: the first step's gradient is finite and not zero, and the loss stays finite, or the run stops."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dfkdata.common.errors import BackendError
from dfktrain.data.masking import IGNORE
from dfktrain.data.samplers import LengthGroupedSampler, TokenBudgetSampler

COMPLETE = "complete"
"""File in a checkpoint folder that says it was written to the end."""


@dataclass(frozen=True)
class TrainingProgress:
    """Where a run stands. loss: of the last step, None before the first. seconds: since the stage began."""

    stage: str
    step: int
    steps: int
    loss: float | None
    seconds: float


OnProgress = Callable[[TrainingProgress], None]


class AnswerTrainer(Trainer):
    """`Trainer` for models patched by `score_answers`, whose `.loss` is a sum over scored tokens."""

    control: TrainerControl

    def __init__(
        self,
        *,
        group_by_length: bool,
        batch_tokens: int | None = None,
        packed: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.model_accepts_loss_kwargs = True
        self.group_by_length, self.batch_tokens, self.packed = group_by_length, batch_tokens, packed
        self.tokens = torch.zeros((), dtype=torch.long)
        self.scored = torch.zeros((), dtype=torch.long)
        self.parts: Tensor | None = None
        self.train_sampler: LengthGroupedSampler | TokenBudgetSampler | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        samples = self.train_dataset if train_dataset is None else train_dataset
        batch = self.args.per_device_train_batch_size * max(1, self.args.world_size)
        lengths = [len(sample) for sample in samples]
        self.train_sampler = LengthGroupedSampler(lengths, batch, self.args.seed, group=self.group_by_length)
        return self.train_sampler

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The library's loader, or one over batches of a token budget, already this rank's share."""
        if self.batch_tokens is None:
            return super().get_train_dataloader()
        self.train_sampler = TokenBudgetSampler(
            [len(sample) for sample in self.train_dataset],
            self.batch_tokens,
            self.args.seed,
            packed=self.packed,
            rank=self.args.process_index,
            ranks=max(1, self.args.world_size),
        )
        return DataLoader(self.train_dataset, batch_sampler=self.train_sampler, collate_fn=self.data_collator)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor]:
        """The micro-batches of a step, and its scored tokens over all ranks; ours, because engines patch
        it."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        count = torch.zeros((), dtype=torch.long, device=device)
        for batch in batches:
            count += (batch["labels"][:, 1:] != IGNORE).sum().to(device)
        return batches, self.accelerator.gather(count.unsqueeze(0)).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Summed loss / the step's scored tokens over all ranks; times the ranks, since DDP averages
        gradients."""
        self._count(inputs)
        outputs = model(**inputs)
        if outputs.ce is not None:
            found = part_sums(outputs, inputs["labels"])
            self.parts = found if self.parts is None else self.parts + found
        loss = outputs.loss / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _count(self, inputs: dict[str, Tensor]) -> None:
        device = inputs["labels"].device  # the counters stay there: no wait for the device in a step
        mask = inputs.get("attention_mask")
        self.tokens = self.tokens.to(device) + (inputs["input_ids"].numel() if mask is None else mask.sum())
        self.scored = self.scored.to(device) + (inputs["labels"] != IGNORE).sum()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The library's log line; with SFT-Plus also "ce" and "kl" a scored token since the last one."""
        if "loss" in logs and self.parts is not None:
            logs |= means(self.accelerator.reduce(self.parts, "sum"))
            self.parts = None
        super().log(logs, start_time)

    def _validation_batches(self, samples: list[Any]) -> Iterator[dict[str, Tensor]]:
        """This rank's share. Every rank gets as many batches, since a sharded model runs on all ranks or on
        none; those that only fill up score nothing."""
        ranks, size = max(1, self.args.world_size), self.args.per_device_eval_batch_size
        share = samples[self.args.process_index :: ranks]
        yield from DataLoader(share, size, collate_fn=self.data_collator)
        for _ in range(math.ceil(math.ceil(len(samples) / ranks) / size) - math.ceil(len(share) / size)):
            batch = self.data_collator(samples[:1])
            yield batch | {"labels": torch.full_like(batch["labels"], IGNORE)}

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """{"eval_loss": mean loss a scored token} and with SFT-Plus "eval_ce", "eval_kl"; every rank takes
        its share, no sample twice."""
        samples = self.eval_dataset if eval_dataset is None else eval_dataset
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        parts = torch.zeros(3, dtype=torch.float64, device=self.args.device)
        self.model.eval()
        with torch.no_grad():
            for batch in self._validation_batches(list(samples)):
                inputs = self._prepare_inputs(batch)
                outputs = self.model(**inputs)
                total += torch.stack([outputs.loss.double(), (inputs["labels"] != IGNORE).sum().double()])
                parts += part_sums(outputs, inputs["labels"])
        self.model.train()
        loss, count = self.accelerator.reduce(total, "sum").tolist()
        metrics = {f"{metric_key_prefix}_loss": loss / max(1.0, count)}
        found = means(self.accelerator.reduce(parts, "sum"))
        metrics |= {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def part_sums(outputs: Any, labels: Tensor) -> Tensor:
    """(3,) float64: CE, KL and scored tokens, summed over a batch; zeros where SFT-Plus is off."""
    if outputs.ce is None:
        return torch.zeros(3, dtype=torch.float64, device=labels.device)
    return torch.stack([outputs.ce.double(), outputs.kl.double(), (labels != IGNORE).sum().double()])


def means(parts: Tensor) -> dict[str, float]:
    """{"ce", "kl"}: means a scored token; empty where nothing was summed."""
    cross, divergence, count = parts.tolist()
    return {"ce": cross / count, "kl": divergence / count} if count else {}


class ProgressCallback(TrainerCallback):
    """Reports progress, marks finished checkpoints, keeps the sampler's epoch, and stops a run that learns
    nothing."""

    def __init__(self, stage: str, on_progress: OnProgress | None, clock: Callable[[], float]) -> None:
        self.stage, self.on_progress, self.clock = stage, on_progress, clock
        self.start = clock()
        self.loss: float | None = None
        self.trainer: AnswerTrainer | None = None

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The order of this epoch, also when it is resumed in the middle."""
        if self.trainer is not None and self.trainer.train_sampler is not None:
            self.trainer.train_sampler.set_epoch(math.floor((state.epoch or 0.0) + 1e-9))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The first step must move something. DeepSpeed has stepped by now and keeps only the norm."""
        if state.global_step == 0:
            engine = getattr(self.trainer, "deepspeed", None)
            check_norm(float(engine.get_global_grad_norm()) if engine else gradient_norm(kwargs["model"]))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell of the steps that have no log line."""
        if state.global_step % args.logging_steps:
            self._tell(state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: Any,
    ) -> None:
        """Keep the loss; stop when it is no number."""
        if "loss" in logs:
            self.loss = logs["loss"]
            if not math.isfinite(self.loss):
                raise BackendError(
                    f"stage {self.stage}: the loss is {self.loss} at step {state.global_step}; "
                    f"lower learning_rate"
                )
            self._tell(state)

    def _tell(self, state: TrainerState) -> None:
        if self.on_progress is not None:
            seconds = self.clock() - self.start
            self.on_progress(
                TrainingProgress(self.stage, state.global_step, state.max_steps, self.loss, seconds)
            )

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Mark the checkpoint as whole: a killed run resumes from marked ones only."""
        if state.is_world_process_zero:
            counts = (
                {"tokens": int(self.trainer.tokens), "scored": int(self.trainer.scored)}
                if self.trainer
                else {}
            )
            mark = Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE
            mark.write_text(json.dumps(counts), encoding="utf-8")


def gradient_norm(model: nn.Module) -> float:
    """The norm of the trained weights' gradient, 0 where there is none."""
    squares = [
        p.grad.float().pow(2).sum() for p in model.parameters() if p.requires_grad and p.grad is not None
    ]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def check_norm(norm: float) -> None:
    """Raise `BackendError` unless the gradient's norm is finite and not zero."""
    if not math.isfinite(norm) or norm == 0.0:
        raise BackendError(
            f"the gradient of the first step has norm {norm}: nothing would be trained; "
            f"check target_modules, the attention and GDN kernels, and the precision"
        )


def counted(checkpoint: Path) -> tuple[int, int]:
    """(tokens, scored tokens) trained on up to a whole checkpoint."""
    counts = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
    return counts["tokens"], counts["scored"]


def last_complete(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` that was written to the end."""
    whole = [mark.parent for mark in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
