"""Both engines on the real 0.8B shape (random weights): same mask, same losses, faithful gradients, save and
reload.

    python bench/gpu_engines.py --work runs/gpu                everything; start it again to go on
    python bench/gpu_engines.py --work runs/try --shape tiny    the built-in tiny model, also on a CPU

Every piece is a process of its own and writes one JSON file into --work; a piece whose file is there is not
run again. The table compares: the mask (hash of ids and labels), 1 - cosine of the first step's adapter
gradient to an fp32 reference beside that of plain bf16 autocast with the library's loss, the losses of the
steps, tokens a second, memory, and what the saved adapter generates after a reload by the evaluation's
loader. The reference computes in fp32 without TF32 and with PyTorch's own kernels, whatever is installed;
`plain` uses the installed kernels as the engines do, `plain_torch` PyTorch's own.

Pieces that measure no time run two at a time (--jobs)."""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import importlib.util
import json
import random
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

from base_model import make_base

ENGINES = ("transformers", "unsloth")
PLAIN = ("plain", "plain_torch")
TORCH_KERNELS = ("reference", "plain_torch")
GRADIENTS = ("reference", *PLAIN, *ENGINES)
MAX_PIXELS = 512 * 512
QLORA_STEPS = 8
COLOURS = ["red", "green", "blue", "grey", "white", "black", "brown", "pink"]


def make_rows(folder: Path, count: int, side: int) -> Path:
    """`count` seeded rows, each one drawn picture and a text; sizes and lengths vary."""
    from PIL import Image, ImageDraw

    folder.mkdir(parents=True, exist_ok=True)
    chooser = random.Random(0)
    lines = []
    for index in range(count):
        width, height = (chooser.randrange(side // 2, side) for _ in range(2))
        colour = chooser.choice(COLOURS)
        image = Image.new("RGB", (width, height), "white")
        ImageDraw.Draw(image).ellipse((4, 4, width - 5, height - 5), fill=colour)
        image.save(folder / f"{index}.png")
        asked = "What is drawn? " + " ".join(chooser.choices(COLOURS, k=chooser.randrange(5, 120)))
        answer = f"A {colour} shape. " + " ".join(chooser.choices(COLOURS, k=chooser.randrange(5, 60)))
        turns = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": asked}]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ]
        lines.append(json.dumps({"id": str(index), "messages": turns, "images": [f"{index}.png"]}))
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def configured(asked: argparse.Namespace, engine: str, precision: str, kind: str = "lora") -> Any:
    """The one configuration, for an engine; kind qlora takes few steps, with the 8-bit optimiser."""
    from dfktrain.config.run import TrainConfig

    small = kind == "qlora"

    stage = {
        "name": "s", "data": [str(asked.work / "data/rows.jsonl")],
        "steps": min(asked.steps, QLORA_STEPS) if small else asked.steps,
        "batch_size": asked.batch, "optimizer": "adamw_8bit" if small else "adamw_torch",
        "learning_rate": 1e-4, "scheduler": "constant", "max_pixels": MAX_PIXELS, "save_steps": 10_000,
    }  # fmt: skip
    made = {"model": {"name": base_name(asked)}, "engine": engine, "precision": precision, "stages": [stage]}
    return TrainConfig.model_validate(
        made | {"adapter": {"kind": kind, "rank": 16, "alpha": 32, "target_modules": "all-linear"}}
    )


def base_name(asked: argparse.Namespace) -> str:
    return "tiny" if asked.shape == "tiny" else str(asked.work / "base")


def gradient(asked: argparse.Namespace, name: str) -> dict[str, Any]:
    """The mask's hash and the first step's adapter gradient of one contender, saved beside the JSON."""
    engine = name if name in ENGINES else "transformers"
    if name in TORCH_KERNELS:
        sys.modules["fla"] = None  # type: ignore[assignment]  # as if it were not installed
    from dfktrain import engines

    _, module = engines.select_engine(engine)
    config = configured(asked, engine, "fp32" if name == "reference" or asked.cpu else "bf16")
    base = module.load(config, config.precision)
    import torch

    from dfkdata import load_rows
    from dfktrain.data.collator import Collator
    from dfktrain.losses.attach import score_answers

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model, modules = engines.adapt(base, config.adapter, engine)
    moved = seed_adapter(model)
    rows = list(load_rows(asked.work / "data/rows.jsonl"))
    collator = Collator(base.processor, max_pixels=MAX_PIXELS)
    samples = [collator.encode(row) for row in rows]
    mask = hashlib.sha256(json.dumps([(s.input_ids, s.labels) for s in samples]).encode()).hexdigest()
    device = next(model.parameters()).device
    batch = {key: value.to(device) for key, value in collator(samples[: asked.batch]).items()}
    scored = int((batch["labels"][:, 1:] != -100).sum())
    if name not in PLAIN:
        score_answers(model)
    model.train()
    autocast = torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=not asked.cpu and name != "reference"
    )
    with autocast:
        loss = model(**batch).loss if name in PLAIN else model(**batch).loss / scored
    loss.backward()
    flat = torch.cat([p.grad.float().flatten().cpu() for _, p in moved])
    torch.save(flat, asked.work / f"gradient-{name}.pt")
    return {
        "mask": mask[:12], "loss": loss.item(), "norm": float(flat.norm()), "modules": len(modules),
        "delta_rule": delta_rule(asked, name),
    }  # fmt: skip


def delta_rule(asked: argparse.Namespace, name: str) -> dict[str, float] | None:
    """How far the gated delta rule that this process computes with is from the plain recurrence."""
    from dfktrain.engines import gdn_difference

    heads, head = (4, 32) if asked.shape == "tiny" else (16, 128)
    fast = not asked.cpu and name not in TORCH_KERNELS
    return gdn_difference("cuda", heads=heads, head=head, dtype="bfloat16") if fast else None


def seed_adapter(model: Any) -> list[tuple[str, Any]]:
    """Give every adapter weight the same seeded value in every engine; B away from zero, so that A has a
    gradient."""
    import torch

    from dfktrain.engines import trainable

    moved = sorted(trainable(model), key=lambda pair: pair[0])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in moved:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return moved


def train(asked: argparse.Namespace, name: str) -> dict[str, Any]:
    """Losses, speed and memory of the trainer's own run with one engine."""
    from dfktrain.training.run import train as run

    stamps: list[tuple[int, float]] = []
    config = configured(asked, name, "fp32" if asked.cpu else "bf16")
    result = run(config, asked.work / f"run-{name}", progress=lambda at: stamps.append((at.step, at.seconds)))
    import torch

    stage = result.stages[0]
    paces = [b - a for (_, a), (_, b) in pairwise(stamps[4:])]
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    return {
        "losses": [line["loss"] for line in stage.history],
        "tokens_per_s": stage.tokens / stage.steps / statistics.median(paces),
        "first_step_s": stamps[0][1],
        "peak_gib": peak,
        "versions": result.run["versions"],
    }


def reload(asked: argparse.Namespace, name: str) -> dict[str, Any]:
    """What the saved adapter generates when the evaluation's loader puts it on the original base."""
    return generated(asked, asked.work / f"run-{name}/adapter")


def generated(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """16 greedy tokens of the 16-bit base with the adapter in `folder`, for the first row."""
    import torch

    from dfkdata import load_rows
    from dfkeval.models import loader
    from dfktrain.data.collator import Collator

    loaded = loader.load(base_name(asked), adapter=folder, max_pixels=MAX_PIXELS)
    row = next(iter(load_rows(asked.work / "data/rows.jsonl")))
    batch = Collator(loaded.processor)([row])
    start = int((batch.pop("labels")[0] != -100).nonzero()[0])
    inputs = {k: v[:, :start] if v.shape[0] == 1 and k != "image_grid_thw" else v for k, v in batch.items()}
    inputs = {key: value.to(loaded.model.device) for key, value in inputs.items()}
    with torch.no_grad():
        made = loaded.model.generate(**inputs, max_new_tokens=16, do_sample=False)
    return {"text": loaded.processor.tokenizer.decode(made[0, start:])}


def qlora(asked: argparse.Namespace, name: str) -> dict[str, Any]:
    """Losses of a few steps on the base in 4 bit with the 8-bit optimiser, and what the adapter then does on
    the 16-bit base."""
    from dfktrain.training.run import train as run

    result = run(configured(asked, name, "bf16", "qlora"), asked.work / f"qlora-{name}")
    import torch

    losses = [line["loss"] for line in result.stages[0].history]
    peak = torch.cuda.max_memory_allocated() / 2**30
    return {"losses": losses, "peak_gib": peak, **generated(asked, result.adapter)}


PIECES = {"gradient": gradient, "train": train, "reload": reload, "qlora": qlora}


def work(asked: argparse.Namespace) -> None:
    """Every missing piece, each in its own process."""
    asked.work.mkdir(parents=True, exist_ok=True)
    if not (asked.work / "data/rows.jsonl").is_file():
        make_rows(asked.work / "data", asked.rows, 96 if asked.shape == "tiny" else 640)
    if asked.shape == "real" and not (asked.work / "base/made.json").is_file():
        make_base(asked.work / "base")
    engines = [engine for engine in ENGINES if engine in asked.engines]
    _pieces(asked, "train", engines, jobs=1)  # timed, so each has the machine to itself
    _pieces(asked, "gradient", [n for n in GRADIENTS if n in engines or n not in ENGINES], asked.jobs)
    _pieces(asked, "reload", engines, asked.jobs)
    if asked.shape == "real" and importlib.util.find_spec("bitsandbytes"):
        _pieces(asked, "qlora", engines, asked.jobs)


def _pieces(asked: argparse.Namespace, piece: str, names: list[str], jobs: int) -> None:
    missing = [name for name in names if not (asked.work / f"{piece}-{name}.json").is_file()]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda name: _process(asked, piece, name), missing))


def _process(asked: argparse.Namespace, piece: str, name: str) -> None:
    start = time.perf_counter()
    words = [
        sys.executable,
        __file__,
        "--work",
        str(asked.work),
        "--shape",
        asked.shape,
        "--steps",
        str(asked.steps),
    ]
    words += ["--batch", str(asked.batch), "--limit", str(asked.limit), "--piece", piece, "--name", name] + (
        ["--cpu"] if asked.cpu else []
    )
    log = asked.work / f"{piece}-{name}.log"
    with log.open("w", encoding="utf-8") as out:
        try:
            code = subprocess.run(words, stdout=out, stderr=out, timeout=asked.limit).returncode
        except subprocess.TimeoutExpired:
            code = -1
            out.write(f"over {asked.limit} s")
    said = log.read_text(encoding="utf-8")
    print(
        f"{piece} {name}: {'done' if code == 0 else 'FAILED'} in {time.perf_counter() - start:.0f} s",
        flush=True,
    )
    if code != 0:
        print("   " + " | ".join(said.strip().splitlines()[-3:])[-600:], flush=True)


def table(asked: argparse.Namespace) -> dict[str, Any]:
    """All results in one dict; prints the table."""
    import torch

    found = {path.stem: json.loads(path.read_text()) for path in sorted(asked.work.glob("*-*.json"))}
    grads = {n: torch.load(asked.work / f"gradient-{n}.pt") for n in GRADIENTS if f"gradient-{n}" in found}
    off = {}
    if "reference" in grads:
        truth = grads["reference"].double()
        for name, flat in grads.items():
            cosine = torch.dot(flat.double(), truth) / (flat.double().norm() * truth.norm())
            off[name] = float(1 - cosine)
    plain = min((off[name] for name in PLAIN if name in off), default=0.0)
    print(f"\n{'':14}{'mask':>14}{'loss':>9}{'1-cos':>11}{'x plain':>9}", end="")
    print(f"{'last loss':>11}{'tok/s':>9}{'GiB':>7}{'first s':>9}")
    for name in GRADIENTS:
        if f"gradient-{name}" not in found:
            continue
        one, run = found[f"gradient-{name}"], found.get(f"train-{name}", {})
        ratio = off[name] / plain if plain else float("nan")
        tail = ""
        if run:
            tail = f"{run['losses'][-1]:>11.4f}{run['tokens_per_s']:>9.0f}"
            tail += f"{run['peak_gib'] or 0:>7.1f}{run['first_step_s']:>9.1f}"
        print(f"{name:14}{one['mask']:>14}{one['loss']:>9.4f}{off.get(name, 0):>11.2e}{ratio:>9.2f}{tail}")
    runs = [found[f"train-{name}"]["losses"] for name in ENGINES if f"train-{name}" in found]
    summary: dict[str, Any] = {"one_minus_cosine": off, "pieces": found}
    if len(runs) == 2:
        summary["largest_loss_difference"] = max(abs(a - b) for a, b in zip(*runs, strict=True))
        print(f"largest difference of a step's loss: {summary['largest_loss_difference']:.4f}")
    for name in ENGINES:
        if f"reload-{name}" in found:
            print(f"reloaded {name}: {found[f'reload-{name}']['text']!r}")
        if f"qlora-{name}" in found:
            one = found[f"qlora-{name}"]
            print(
                f"4 bit, 8-bit optimiser, {name}: loss {one['losses'][0]:.4f} -> {one['losses'][-1]:.4f},",
                end="",
            )
            print(f" {one['peak_gib']:.1f} GiB, then on 16 bit {one['text']!r}")
    (asked.work / "table.json").write_text(json.dumps(summary, indent=2))
    return summary


def main() -> None:
    """Do what is missing and print the table; with --piece, be one worker."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shape", choices=("real", "tiny"), default="real")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES))
    parser.add_argument("--limit", type=int, default=420, help="seconds a piece may take")
    parser.add_argument("--jobs", type=int, default=2, help="untimed pieces at a time")
    parser.add_argument("--cpu", action="store_true", help="fp32 everywhere, to try the script without a GPU")
    parser.add_argument("--piece", choices=sorted(PIECES), help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.piece is None:
        work(asked)
        table(asked)
        return
    faulthandler.dump_traceback_later(max(30, asked.limit - 15))  # a piece that hangs says where in its log
    result = PIECES[asked.piece](asked, asked.name)
    (asked.work / f"{asked.piece}-{asked.name}.json").write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
