"""Train the built-in model from random weights: `python -m tools.tiny_model.train` in a checkout.

A run takes about nine minutes on one H200. The weights that ship took four runs, each from the weights of the
one before; the model card and docs/LOG.md list them.

How it works: rows of `tasks` are generated in worker processes and never repeat. Each step is one batch of
long rows (tools in the prompt) and one of short rows; only answers carry loss; AdamW with a cosine to zero.
Weights are saved in bf16, and the printed exact-match rates are those of the saved weights on rows of another
seed."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from tools.tiny_model import build, shape, tasks

#: Rows of each task in one step: (long batch, short batch).
LONG = {"fill_form": 44, "take_apart_among_tools": 36}
SHORT = {"take_apart": 96, "look": 72, "judge": 56}
WARMUP_STEPS = 60
IGNORED = -100

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Tools:
    """Turn rows into tensors; cheap to send to worker processes."""

    tokenizer: Any
    images: Any

    def encode(self, row: tasks.Row) -> tuple[list[int], list[int]]:
        """Return (token ids, number of prompt tokens) of a row as the chat template writes it."""
        write = self.tokenizer.apply_chat_template
        pads = [self.pads(image) for image in row["images"]]
        prompt = write(
            row["messages"][:-1], tools=row["tools"] or None, tokenize=False, add_generation_prompt=True
        )
        whole = write(row["messages"], tools=row["tools"] or None, tokenize=False)
        assert whole.startswith(prompt)
        for count in pads:
            prompt, whole = (
                text.replace("<|image_pad|>", "<|image_pad|>" * count, 1) for text in (prompt, whole)
            )
        ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answer = self.tokenizer(whole[len(prompt) :].rstrip("\n"), add_special_tokens=False)["input_ids"]
        return ids + answer, len(ids)

    def pads(self, image: Any) -> int:
        """Return the number of tokens of a picture."""
        side = shape.PATCH * shape.MERGE
        assert image.width % side == image.height % side == 0
        return (image.width // side) * (image.height // side)


def batch(rows: list[tasks.Row], tools: Tools, multiple: int = 64) -> Batch:
    """Return input_ids, labels, attention_mask, mm_token_type_ids (B, T), right-padded, and the pictures."""
    encoded = [tools.encode(row) for row in rows]
    width = math.ceil(max(len(ids) for ids, _ in encoded) / multiple) * multiple
    made = {key: torch.zeros(len(rows), width, dtype=torch.long) for key in ("attention_mask", "input_ids")}
    made["labels"] = torch.full((len(rows), width), IGNORED)
    for at, (ids, prompt) in enumerate(encoded):
        made["input_ids"][at, : len(ids)] = torch.tensor(ids)
        made["attention_mask"][at, : len(ids)] = 1
        made["labels"][at, prompt : len(ids)] = torch.tensor(ids[prompt:])
    pad = tools.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    made["mm_token_type_ids"] = (made["input_ids"] == pad).long()
    pictures = [image for row in rows for image in row["images"]]
    return made | (dict(tools.images(pictures, return_tensors="pt")) if pictures else {})


class Steps(IterableDataset[tuple[Batch, Batch]]):
    """Yield (long batch, short batch) for each step; worker w of n makes the steps w, w + n, ..."""

    def __init__(self, tools: Tools, seed: int, shrink: int = 1) -> None:
        self.tools, self.seed, self.shrink = tools, seed, shrink

    def __iter__(self) -> Iterator[tuple[Batch, Batch]]:
        torch.set_num_threads(1)
        worker = torch.utils.data.get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in itertools.count(first, stride):
            rng = random.Random(f"{self.seed}/{step}")
            yield self._batch(LONG, rng), self._batch(SHORT, rng)

    def _batch(self, mixture: dict[str, int], rng: random.Random) -> Batch:
        rows = [
            tasks.TASKS[task](rng)
            for task, count in mixture.items()
            for _ in range(max(1, count // self.shrink))
        ]
        return batch(rows, self.tools)


def loss_sum(model: torch.nn.Module, rows: Batch) -> tuple[torch.Tensor, int]:
    """Return (sum of the cross-entropy over answer tokens, their number); the head sees only their positions."""
    labels = rows.pop("labels")
    hidden = model.model(**rows, use_cache=False).last_hidden_state[:, :-1]
    scored = labels[:, 1:] != IGNORED
    logits = model.lm_head(hidden[scored])
    return torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][scored], reduction="sum"), int(
        scored.sum()
    )


def learning_rate(step: int, steps: int, peak: float, *, hold: bool) -> float:
    """Return the learning rate of a step: linear warm-up, then the peak (`hold`) or a cosine to zero."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    fall = 1.0 if hold else 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    return peak * warm * fall


def train(model: torch.nn.Module, tools: Tools, options: argparse.Namespace) -> list[tuple[int, float]]:
    """Train a model in place and return (step, loss per answer token) of every tenth step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.peak, betas=(0.9, 0.98), weight_decay=0.05)
    data = DataLoader(
        Steps(tools, options.seed, options.shrink),
        batch_size=None,
        num_workers=options.workers,
        prefetch_factor=2 if options.workers else None,
    )
    steps, began, history = options.steps, time.monotonic(), []
    warm = began
    for step, pair in enumerate(data):
        if step >= steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, options.peak, hold=options.hold)
        loss = _step(model, pair, optimizer)
        if step == _MEASURED[0]:
            warm = time.monotonic()
        if step == _MEASURED[1]:
            step_seconds = (time.monotonic() - warm) / (_MEASURED[1] - _MEASURED[0])
            steps = _fitting(steps, step_seconds, time.monotonic() - began, step, options.seconds)
        if step % 10 == 0 or step == steps - 1:
            history.append((step, loss))
            _say(f"step {step}/{steps} loss {loss:.4f} seconds {time.monotonic() - began:.0f}")
    return history


#: Steps between which the speed is measured, after kernels and workers have started.
_MEASURED = (10, 40)


def _step(model: torch.nn.Module, pair: tuple[Batch, Batch], optimizer: torch.optim.Optimizer) -> float:
    """Take one optimiser step on both batches and return the mean loss over their answer tokens."""
    device = next(model.parameters()).device
    tokens = sum(int((rows["labels"][:, 1:] != IGNORED).sum()) for rows in pair)
    total = torch.zeros((), device=device)
    for rows in pair:
        part, _ = loss_sum(model, {key: value.to(device) for key, value in rows.items()})
        (part / tokens).backward()
        total += part.detach() / tokens
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(total)


def _fitting(steps: int, seconds: float, spent: float, step: int, limit: float | None) -> int:
    """Return how many steps of `seconds` seconds fit into `limit` seconds, of which `spent` are gone after `step`."""
    fitting = steps if limit is None else min(steps, step + int((limit - spent) / max(seconds, 1e-3)))
    _say(f"{seconds:.3f} s a step: {fitting} steps")
    return fitting


@torch.no_grad()
def exact_match(model: torch.nn.Module, tools: Tools, seed: int, rows: int) -> dict[str, float]:
    """Return the share of unseen rows of each task that greedy decoding answers exactly."""
    rates = {}
    for task, make in tasks.TASKS.items():
        rng = random.Random(f"check/{seed}/{task}")
        rates[task] = sum(_answers(model, tools, [make(rng) for _ in range(rows)])) / rows
    return rates


def _answers(model: torch.nn.Module, tools: Tools, rows: list[tasks.Row]) -> list[bool]:
    """Return whether each row is answered exactly; prompts are left-padded."""
    encoded = [tools.encode(row) for row in rows]
    prompts = [ids[:length] for ids, length in encoded]
    width, device = max(map(len, prompts)), next(model.parameters()).device
    pad = tools.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor(
        [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device
    )
    images = [image for row in rows for image in row["images"]]
    pixels = (
        {key: value.to(device) for key, value in tools.images(images, return_tensors="pt").items()}
        if images
        else {}
    )
    kinds = (ids == tools.tokenizer.convert_tokens_to_ids("<|image_pad|>")).long()
    longest = max(len(ids) - length for ids, length in encoded)
    made = model.generate(
        input_ids=ids,
        attention_mask=mask,
        mm_token_type_ids=kinds,
        max_new_tokens=longest,
        do_sample=False,
        **pixels,
    )
    want = [ids[length:] for ids, length in encoded]
    return [
        got[width : width + len(answer)].tolist() == answer for got, answer in zip(made, want, strict=True)
    ]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--out", type=Path, default=build.weights(), help="folder of the model")
    parser.add_argument(
        "--seconds", type=float, help="limit; after 40 steps the number of steps is cut to fit"
    )
    parser.add_argument("--start", type=Path, help="folder with weights to start from")
    parser.add_argument("--peak", type=float, default=1.5e-3, help="learning rate")
    parser.add_argument(
        "--hold", action="store_true", help="no cosine, because another run continues from here"
    )
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--trial", action="store_true", help="a few small steps on a CPU, as a test")
    options = parser.parse_args(arguments)
    options.shrink = 40 if options.trial else 1
    if options.trial:
        options.steps, options.workers = 2, 0
    return options


def main(arguments: list[str] | None = None) -> None:
    """Train, save and check a model; the last printed line is a JSON object with the exact-match rates."""
    from transformers import AutoTokenizer, Qwen2VLImageProcessorPil, Qwen3_5ForConditionalGeneration

    options = _options(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    start = options.start
    tokenizer = AutoTokenizer.from_pretrained(start) if start else build.tokenizer()
    model = (
        Qwen3_5ForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
        if start
        else build.model(tokenizer, options.seed)
    )
    tasks.use_pieces(tokenizer.get_vocab())
    tools = Tools(tokenizer, Qwen2VLImageProcessorPil(**shape.image_processor_config()))
    history = train(model.to(device).train(), tools, options)
    build.save(tokenizer, model.cpu(), options.out)
    saved = model.to(device).float().eval()
    rates = exact_match(saved, tools, options.seed, 1 if options.trial else 128)
    _say(
        json.dumps(
            {"exact_match": rates, "steps": history[-1][0] + 1, "loss": history[-1][1], "seed": options.seed}
        )
    )


if __name__ == "__main__":
    main()
