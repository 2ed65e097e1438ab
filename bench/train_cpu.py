"""Tokens a second of one LoRA training step of the built-in tiny model on this CPU, and where they go.

    python bench/train_cpu.py [--steps 6] [--batch 8] [--json out.json]

Three ways over the same seeded rows: the trainer's own loop; the same with random batches instead of batches
of similar length; the model's own loss with logits at every position. Prints a table; nothing is asserted."""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from dfkeval.models import loader
from dfkeval.models.processor import load_processor
from dfktrain.config.model import AdapterConfig
from dfktrain.config.run import TrainConfig
from dfktrain.data.collator import Collator
from dfktrain.data.samplers import LengthGroupedSampler
from dfktrain.engines import LoadedBase, adapt
from dfktrain.training.run import train_on

WORDS = [
    "red",
    "green",
    "blue",
    "round",
    "square",
    "claim",
    "post",
    "reader",
    "person",
    "group",
    "says",
    "shows",
]


def rows(count: int, folder: Path, seed: int = 0) -> list[dict[str, Any]]:
    """Half text, half one drawn picture; prompts of very different lengths, short answers."""
    from PIL import Image

    chooser = random.Random(seed)
    made = []
    for index in range(count):
        images = []
        if index % 2:
            path = folder / f"{index}.png"
            Image.new("RGB", (64, 64), tuple(chooser.randrange(256) for _ in range(3))).save(path)
            images = [str(path)]
        asked = " ".join(chooser.choices(WORDS, k=chooser.randint(40, 220)))
        answer = " ".join(chooser.choices(WORDS, k=chooser.randint(8, 30)))
        content = [*({"type": "image"} for _ in images), {"type": "text", "text": asked}]
        turns = [
            {"role": "user", "content": content},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ]
        made.append({"id": str(index), "messages": turns, "images": images})
    return made


def fresh() -> LoadedBase:
    """The tiny model, loaded anew."""
    loaded = loader.load("tiny", device="cpu")
    return LoadedBase(loaded.model, loaded.processor, "tiny", loaded.info["shapes_sha256"])


def whole_loop(data: Path, steps: int, batch: int, group: bool, out: Path) -> tuple[float, float]:
    """(tokens a second, seconds) of `train_on`, loading apart."""
    stage = {"name": "s", "data": [str(data)], "steps": steps, "batch_size": batch, "learning_rate": 1e-3}
    config = TrainConfig.model_validate(
        {"model": {"name": "tiny"}, "stages": [stage | {"group_by_length": group}]}
    )
    stamps: list[tuple[int, float]] = []
    result = train_on(fresh(), config, out, progress=lambda at: stamps.append((at.step, at.seconds)))
    lasted = stamps[-1][1] - stamps[0][1]  # the first step warms up
    done = result.stages[0].tokens * (steps - 1) / steps
    return done / lasted, lasted


def plain_loss(samples: list[Any], steps: int, batch: int, collator: Collator) -> tuple[float, float]:
    """(tokens a second, seconds) with the library's loss: logits at every position."""
    model, _ = adapt(fresh(), AdapterConfig())
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    order = list(LengthGroupedSampler([len(sample) for sample in samples], batch, 42))
    tokens, start = 0, 0.0
    for step in range(steps):
        if step == 1:
            tokens, start = 0, time.perf_counter()
        inputs = collator([samples[index] for index in order[step * batch : (step + 1) * batch]])
        tokens += int(inputs["attention_mask"].sum())
        model(**inputs, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    lasted = time.perf_counter() - start
    return tokens / lasted, lasted


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = root / "train.jsonl"
        made = rows(asked.steps * asked.batch, root)
        data.write_text("".join(json.dumps(row) + "\n" for row in made))
        collator = Collator(load_processor("tiny"))
        samples = [collator.encode(row) for row in made]
        results = {
            "trainer": whole_loop(data, asked.steps, asked.batch, True, root / "a"),
            "trainer, random batches": whole_loop(data, asked.steps, asked.batch, False, root / "b"),
            "logits everywhere": plain_loss(samples, asked.steps, asked.batch, collator),
        }
    lengths = sorted(len(sample) for sample in samples)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"rows of {lengths[0]} to {lengths[-1]} tokens")
    for name, (rate, lasted) in results.items():
        print(f"{name:28} {rate:8.0f} tokens/s   {lasted:6.2f} s")
    if asked.json:
        asked.json.write_text(
            json.dumps({name: {"tokens_per_s": rate} for name, (rate, _) in results.items()}, indent=2)
        )


if __name__ == "__main__":
    main()
