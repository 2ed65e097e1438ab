"""transformers' Trainer with the answer loss, batches of similar length, and a validation loss over tokens.

Guarantees:
    - The loss of a step is the sum over its scored tokens divided by their number, over all processes, so a
      step depends on its samples only. Vision-language classes declare that they accept no loss arguments;
      the library's Trainer would then average over micro-batches.
    - The order of batches depends on seed and epoch only.
    - The validation loss is a mean over scored tokens, not a mean of batch means."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerControl

from dfkeval.models.loading import foreign_files
from dfktrain.data.masking import IGNORE
from dfktrain.data.pixels import BYTES, BytePixels
from dfktrain.data.samplers import LengthGroupedSampler, TokenBudgetSampler


class AnswerTrainer(Trainer):
    """Train a model whose forward call returns the summed answer loss (see `dfktrain.losses.attach`).

    Args:
        group_by_length: Whether samples of similar length share a batch.
        batch_tokens: Tokens of a batch, padding included; None counts samples instead.
        packed: Whether the collator packs samples into one row.
        multiple: Widths of padded batches are multiples of it.
        pixels: Makes the numbers of pictures that batches hold as bytes.
        arguments: Of transformers' `Trainer`.
    """

    control: TrainerControl

    def __init__(
        self,
        *,
        group_by_length: bool,
        batch_tokens: int | None = None,
        packed: bool = False,
        multiple: int = 1,
        pixels: BytePixels | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.model_accepts_loss_kwargs = True
        self.group_by_length, self.batch_tokens, self.packed = group_by_length, batch_tokens, packed
        self.pixels, self.multiple = pixels, multiple
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

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with foreign_files(f"checkpoint {resume_from_checkpoint} cannot be gone on from"):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with foreign_files(f"checkpoint {checkpoint} cannot be gone on from"):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with foreign_files(f"checkpoint {checkpoint} cannot be gone on from"):
            super()._load_rng_state(checkpoint)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the library's loader, or one over this process's batches of a token budget."""
        if self.batch_tokens is None:
            return super().get_train_dataloader()
        self.train_sampler = TokenBudgetSampler(
            [-(-len(sample) // self.multiple) * self.multiple for sample in self.train_dataset],
            self.batch_tokens,
            self.args.seed,
            packed=self.packed,
            rank=self.args.process_index,
            ranks=max(1, self.args.world_size),
        )
        return DataLoader(
            self.train_dataset,
            batch_sampler=self.train_sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor]:
        """Return the micro-batches of a step, and the number of scored tokens on all processes."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        if not batches or batches[0]["labels"].device.type == "cuda":
            counts = [(batch["labels"][:, 1:] != IGNORE).sum() for batch in batches]
            count = torch.stack(counts).sum() if counts else torch.zeros((), dtype=torch.long, device=device)
        else:  # counted before the copy, so that the copy need not be waited for
            count = torch.tensor(sum(int((batch["labels"][:, 1:] != IGNORE).sum()) for batch in batches))
        if self.accelerator.num_processes == 1:
            return batches, count
        return batches, self.accelerator.gather(count.to(device).unsqueeze(0)).sum()

    def _prepare_input(self, data: Any) -> Any:
        """Copy a tensor to the device; from pinned memory without a wait."""
        if isinstance(data, Tensor) and not self.is_deepspeed_enabled and data.is_pinned():
            return data.to(self.args.device, non_blocking=True)
        return super()._prepare_input(data)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Copy a batch to the device and make the numbers of its pictures there."""
        made: dict[str, Any] = super()._prepare_inputs(inputs)
        if self.pixels is not None and BYTES in made:
            made = dict(made)
            made["pixel_values"] = self.pixels.values(made.pop(BYTES))
        return made

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the summed loss divided by the step's scored tokens on all processes."""
        self._count(inputs)
        outputs = model(**inputs)
        if outputs.ce is not None:
            sums = part_sums(outputs, inputs["labels"])
            self.parts = sums if self.parts is None else self.parts + sums
        # times the number of processes, because DDP averages their gradients
        loss = outputs.loss / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _count(self, inputs: dict[str, Tensor]) -> None:
        device = inputs["labels"].device  # the counters stay there: no wait for the device in a step
        mask = inputs.get("attention_mask")
        self.tokens = self.tokens.to(device) + (inputs["input_ids"].numel() if mask is None else mask.sum())
        self.scored = self.scored.to(device) + (inputs["labels"] != IGNORE).sum()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write a log line; with SFT-Plus it also gets the mean "ce" and "kl" since the last one."""
        if "loss" in logs and self.parts is not None:
            logs |= means(self.accelerator.reduce(self.parts, "sum"))
            self.parts = None
        super().log(logs, start_time)

    def _validation_batches(self, samples: list[Any]) -> Iterator[dict[str, Tensor]]:
        """Yield this process's batches; all processes get the same number of them."""
        ranks, size = max(1, self.args.world_size), self.args.per_device_eval_batch_size
        share = samples[self.args.process_index :: ranks]
        yield from DataLoader(share, size, collate_fn=self.data_collator)
        # a sharded model runs on all processes or on none; batches that only fill up score nothing
        for _ in range(math.ceil(math.ceil(len(samples) / ranks) / size) - math.ceil(len(share) / size)):
            batch = self.data_collator(samples[:1])
            yield batch | {"labels": torch.full_like(batch["labels"], IGNORE)}

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return "eval_loss", the mean over scored tokens, and with SFT-Plus "eval_ce" and "eval_kl".

        Each process takes its share, and no sample is counted twice."""
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
        ce_and_kl = means(self.accelerator.reduce(parts, "sum"))
        metrics |= {f"{metric_key_prefix}_{name}": value for name, value in ce_and_kl.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def part_sums(outputs: Any, labels: Tensor) -> Tensor:
    """Return CE, KL and scored tokens (3,) of a batch as sums in float64; zeros if SFT-Plus is off."""
    if outputs.ce is None:
        return torch.zeros(3, dtype=torch.float64, device=labels.device)
    return torch.stack([outputs.ce.double(), outputs.kl.double(), (labels != IGNORE).sum().double()])


def means(parts: Tensor) -> dict[str, float]:
    """Return the means "ce" and "kl" over scored tokens; empty if nothing was summed."""
    cross, divergence, count = parts.tolist()
    return {"ce": cross / count, "kl": divergence / count} if count else {}
