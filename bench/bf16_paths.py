"""Why do two processes with sharded weights end farther from one process in bf16 than a split batch does?

    python bench/bf16_paths.py --work runs/bf16 [--steps 4] [--device cuda]

How it works: one process trains the built-in model on the rows of `bench/gpu_ranks.py`, as it does there, and
takes over one after the other what FSDP2 and ZeRO-2 do otherwise: gradients of the two halves are added in bf16,
weights that are kept in fp32 are rounded to bf16, adapters are rounded without autocast. What brings the final
weights as far from plain bf16 as the sharded runs were is the cause. The distance to fp32 says whether it is
worse. Prints a table; nothing is asserted."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_ranks import make_rows
from torch import Tensor

from dfkdata import load_rows
from dfkeval.models import loader
from dfktrain import Collator
from dfktrain.config.model import AdapterConfig
from dfktrain.engines import LoadedBase, adapt, trainable
from dfktrain.losses.attach import score_answers
from dfktrain.training.contexts import adapters_in_bf16

ROWS, RATE = 4, 1e-3


@dataclass(frozen=True)
class ComputePath:
    """One way to compute a step.

    base: dtype of the frozen weights. autocast: whether the forward call runs under it. parts: micro-batches
    of a step. small: whether weights kept in fp32 are rounded to bf16. adapters: whether adapters are bf16
    copies of fp32 masters, without autocast. added: dtype in which the gradients of the parts are added."""

    base: torch.dtype = torch.bfloat16
    autocast: bool = True
    parts: int = 1
    small: bool = False
    adapters: bool = False
    added: torch.dtype = torch.float32


PATHS = {
    "fp32": ComputePath(torch.float32, autocast=False),
    "one process": ComputePath(),
    "split batch": ComputePath(parts=2),
    "split, gradients added in bf16": ComputePath(parts=2, added=torch.bfloat16),
    "small weights in bf16": ComputePath(parts=2, small=True),
    "adapters in bf16, no autocast": ComputePath(parts=2, autocast=False, adapters=True),
    "both, as sharding does": ComputePath(
        parts=2, small=True, autocast=False, adapters=True, added=torch.bfloat16
    ),
}


def trained(way: ComputePath, rows: list[Any], steps: int, device: str) -> tuple[Tensor, float]:
    """Return the final B matrices, flat, and the first loss."""
    torch.manual_seed(0)
    loaded = loader.load("tiny", device=device, dtype=str(way.base).removeprefix("torch."))
    model, _ = adapt(LoadedBase(loaded.model, loaded.processor, "tiny"), AdapterConfig(rank=8, alpha=16))
    score_answers(model)
    model.train()
    moved = [parameter for _, parameter in trainable(model)]
    for parameter in model.parameters():
        if way.small and not parameter.requires_grad and parameter.dtype == torch.float32:
            parameter.data = parameter.data.bfloat16()
    optimizer = torch.optim.AdamW(moved, lr=RATE, weight_decay=0.0)
    collator, first = Collator(loaded.processor), 0.0
    for at in range(steps):
        some = [rows[(ROWS * at + each) % len(rows)] for each in range(ROWS)]
        size = ROWS // way.parts
        batches = [collator(some[start : start + size]) for start in range(0, ROWS, size)]
        scored = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
        sums: list[Tensor] = []
        for batch in batches:
            given = {name: value.to(device) for name, value in batch.items()}
            loss, gradients = part(model, moved, given, scored, way)
            first += loss if at == 0 else 0.0
            rounded = [gradient.to(way.added) for gradient in gradients]
            sums = rounded if not sums else [a + b for a, b in zip(sums, rounded, strict=True)]
        for parameter, gradient in zip(moved, sums, strict=True):
            parameter.grad = gradient.float()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    ends = [each.detach().float().flatten().cpu() for name, each in trainable(model) if "lora_B" in name]
    return torch.cat(ends), first


def part(
    model: Any, moved: list[Any], batch: dict[str, Tensor], scored: int, way: ComputePath
) -> tuple[float, list[Tensor]]:
    """Return loss and gradients of one micro-batch."""
    masters = [parameter.data for parameter in moved]
    if way.adapters:
        for parameter in moved:
            parameter.data = parameter.data.bfloat16()
    with (
        adapters_in_bf16(model, way.base == torch.bfloat16),
        torch.autocast(batch["labels"].device.type, torch.bfloat16, enabled=way.autocast),
    ):
        loss = model(**batch).loss / scored
    gradients = torch.autograd.grad(loss, moved, allow_unused=True)
    for parameter, master in zip(moved, masters, strict=True):
        parameter.data = master
    return float(loss.detach()), [
        torch.zeros_like(parameter) if gradient is None else gradient.float()
        for parameter, gradient in zip(moved, gradients, strict=True)
    ]


def main() -> None:
    """Train every way and print the distances."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    folder = asked.work.resolve() / "data"
    if not (folder / "rows.jsonl").is_file():
        make_rows(folder)
    rows = list(load_rows(folder / "rows.jsonl"))
    ends, found = {name: trained(way, rows, asked.steps, asked.device) for name, way in PATHS.items()}, {}
    print(f"\n{'way':36}{'first loss':>12}{'to one process':>16}{'to fp32':>10}")
    apart: Callable[[Tensor, Tensor], float] = lambda a, b: float((a - b).norm() / a.norm())  # noqa: E731
    for name, (end, first) in ends.items():
        near, exact = apart(ends["one process"][0], end), apart(ends["fp32"][0], end)
        found[name] = {"first_loss": first, "to_one": near, "to_fp32": exact}
        print(f"{name:36}{first:12.6f}{near:16.1e}{exact:10.1e}")
    (asked.work / "bf16_paths.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
