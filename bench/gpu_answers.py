"""One GPU: a stage with SFT-Plus, constrained answers, label probabilities, rows with video, and how fast the
`transformers` backend writes.

    python bench/gpu_answers.py --work runs/answers          everything; start it again to go on
    python bench/gpu_answers.py --work runs/try --cpu        the script alone, small and without a GPU

Every piece is a process of its own and writes one JSON file into --work; a piece whose file is there is not
run again. Built-in model: the demo's posts train a stage with SFT-Plus (bf16); the tuned model answers the
test rows under a grammar and says how sure it is, on the GPU in bf16 and on the CPU in fp32. `keep` takes the
same fp32 steps on GPU and CPU (PyTorch's kernels, TF32 off). `video` compares loss and gradient of rows with
decoded frames. `speed` is alone on the card: random weights of the real 0.8B shape (bench/base_model.py),
answers of 128 tokens, the prompt's part included."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

from base_model import make_base

SEED = 2026
NEW_TOKENS = 128
BATCHES = (1, 8, 32)
PARALLEL = ("tune", "keep-gpu", "keep-cpu", "video", "base")
ANSWERS = ("answers-gpu", "answers-cpu", "calls-gpu")
TIMED = ("speed-torch", "speed-fla")


def data(asked: argparse.Namespace) -> None:
    """The demo's rows of both tasks."""
    from dfkdata.conversion.convert import convert
    from dfktrain.demo.run import TASKS

    for task in TASKS:
        made = task.write(asked.work / "raw" / task.name)
        convert(made, asked.work / "data" / task.name, format=task.format, schema=task.schema,
                max_rejects="5%", validation=0.05, test=0.2, seed=SEED)  # fmt: skip


def trained(asked: argparse.Namespace, name: str, precision: str, **stage: Any) -> dict[str, Any]:
    """A run on the demo's posts with SFT-Plus; the contents of run.json."""
    from dfkdata.common.config import load_config
    from dfktrain import TrainConfig, train

    made = {
        "model": {"name": "tiny"}, "engine": "transformers", "precision": precision, "seed": SEED,
        "adapter": {"rank": 16, "alpha": 32},
        "stages": [{"name": "s", "data": [str(asked.work / "data/dfk/train.jsonl")], "batch_size": 4,
                    "sft_plus": {"lambda": 0.05}} | stage],
    }  # fmt: skip
    path = asked.work / f"{name}.yaml"
    path.write_text(json.dumps(made))
    train(load_config(path, TrainConfig), asked.work / name)
    found: dict[str, Any] = json.loads((asked.work / name / "run.json").read_text())
    return found


def tune(asked: argparse.Namespace) -> dict[str, Any]:
    """The stage that the answers come from."""
    steps, precision = (20, "fp32") if asked.cpu else (400, "bf16")
    found = trained(asked, "tuned", precision, steps=steps, learning_rate=3e-3, warmup_ratio=0.05, beta2=0.99)
    lines = [line for line in found["stages"][0]["history"] if "loss" in line]
    return {"first": lines[0], "last": lines[-1], "usage": found["stages"][0]["usage"]}


def keep(asked: argparse.Namespace) -> dict[str, Any]:
    """A few fp32 steps, on the card or without it."""
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # before CUDA starts
    found = trained(asked, asked.piece, "fp32", steps=5, learning_rate=1e-2, optimizer="sgd", clip=0)
    return {"history": found["stages"][0]["history"], "device": found["stages"][0]["usage"]["device"]}


def answered(asked: argparse.Namespace, name: str, task: str, **more: Any) -> dict[str, Any]:
    """An evaluation under a grammar: scores, texts and label probabilities by row."""
    from dfkeval import evaluate

    model: dict[str, Any] = {"kind": "transformers", "model": "tiny"} | more.pop("backend", {})
    made = {"data": str(asked.work / f"data/{task}/test.jsonl"), "modes": ["constrained"], "backend": model,
            "sampling": {"max_new_tokens": 256}} | more  # fmt: skip
    path = asked.work / f"{name}.yaml"
    path.write_text(json.dumps(made))
    evaluate(path, asked.work / f"run-{name}")
    summary = json.loads((asked.work / f"run-{name}/summary.json").read_text())
    files = (asked.work / f"run-{name}").rglob("completions*.jsonl")
    lines = [json.loads(line) for line in chain.from_iterable(path.open() for path in files)]
    return {
        "scores": summary["metrics"], "n": len(lines), "text": {line["id"]: line["text"] for line in lines},
        "probs": {line["id"]: line["label_probs"] for line in lines if line.get("label_probs")},
    }  # fmt: skip


def answers(asked: argparse.Namespace) -> dict[str, Any]:
    """The tuned model's labels and how sure it is of them."""
    cpu = asked.piece.endswith("cpu")
    backend = {"adapter": str(asked.work / "tuned/adapter"), "device": "cpu" if cpu else "auto"}
    more: dict[str, Any] = {"limit": 8} if asked.cpu else {}
    return answered(asked, asked.piece, "dfk", backend=backend, confidences=True,
                    metrics=["validity", "labels"], **more)  # fmt: skip


def calls(asked: argparse.Namespace) -> dict[str, Any]:
    """The untouched model's tool calls under the structural tag."""
    more: dict[str, Any] = {"limit": 8} if asked.cpu else {}
    return answered(asked, asked.piece, "caption", metrics=["validity"], **more)


def video(asked: argparse.Namespace) -> dict[str, Any]:
    """Loss and adapter gradient of two rows with decoded frames, in fp32, on the card and on the CPU."""
    import numpy as np
    import torch

    from dfktrain import TrainConfig, engines
    from dfktrain.data.collator import Collator
    from dfktrain.engines import transformers as engine
    from dfktrain.losses.attach import score_answers

    try:
        from transformers import Qwen3VLVideoProcessor

        reader = Qwen3VLVideoProcessor(size={"shortest_edge": 32 * 32 * 4, "longest_edge": 64 * 64 * 8})
    except ImportError as error:
        return {"left out": str(error)}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    config = TrainConfig.model_validate({"model": {"name": "tiny"}, "adapter": {"rank": 4}, "stages": [
        {"name": "s", "data": ["x.jsonl"]}]})  # fmt: skip
    base = engine.load(config, "fp32")
    base.processor.video_processor = reader
    model, _ = engines.adapt(base, config.adapter)
    score_answers(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in sorted(engines.trainable(model), key=lambda pair: pair[0]):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    frames = [np.random.default_rng(seed).integers(0, 255, (16 + 8 * seed, 64, 64, 3), dtype=np.uint8)
              for seed in (0, 1)]  # fmt: skip
    rows = [{"id": str(at), "images": [], "videos": [film], "messages": [
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "apa ini"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "sebuah berita"}]},
    ]} for at, film in enumerate(frames)]  # fmt: skip
    batch = Collator(base.processor)(rows)
    found = []
    for device in ("cpu",) if asked.cpu else ("cpu", "cuda"):
        model.to(device).zero_grad()
        loss = model(**{key: value.to(device) for key, value in batch.items()}).loss
        loss.backward()
        flat = [(name, p.grad.flatten().double().cpu()) for name, p in engines.trainable(model)]
        tower = torch.cat([grad for name, grad in flat if ".visual." in name])
        found.append((loss.item(), torch.cat([grad for _, grad in flat]), float(tower.norm())))
    left, right = found[0], found[-1]
    return {
        "loss": [left[0], right[0]], "tower": right[2],
        "tokens": int((batch["mm_token_type_ids"] == 2).sum()),
        "apart": float((left[1] - right[1]).norm() / left[1].norm()),
    }  # fmt: skip


def base(asked: argparse.Namespace) -> dict[str, Any]:
    """Random weights of the real shape."""
    if not asked.cpu:
        make_base(asked.work / "base")
    return {}


def speed(asked: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of the backend, free and under the caption's grammar, at several batch sizes."""
    import torch

    from dfkdata import load_rows, schemas
    from dfkeval.backends.transformers import Transformers
    from dfkeval.evaluation import constraints
    from dfkeval.models import loader
    from dfkeval.types import Request, Sampling

    model, new = ("tiny", 16) if asked.cpu else (str(asked.work / "base"), NEW_TOKENS)
    loaded = loader.load(model)
    rows = list(load_rows(asked.work / "data/caption/test.jsonl"))
    grammar = constraints.constraint(schemas.load(rows[0]["meta"]["schema"]), "constrained")
    cuda = torch.cuda.is_available()
    engines: dict[int, Transformers] = {}  # kept, so that a grammar is compiled before it is timed
    found: dict[str, Any] = {"kernels": loaded.info["kernels"], "lines": []}

    def ask(batch: int, count: int, tokens: int, bound: bool) -> dict[str, Any]:
        engine = engines.setdefault(batch, Transformers(loaded, batch_size=batch, batch_tokens=10**7))
        asks = [
            Request(id=str(at), messages=row["messages"][:-1], tools=row.get("tools"),
                    images=tuple(row["images"]), constraint=grammar if bound else None)
            for at, row in enumerate(rows[:count])
        ]  # fmt: skip
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        made = list(engine.generate(asks, Sampling(max_new_tokens=tokens)))
        seconds = time.perf_counter() - start
        wrong = [each.error for each in made if each.error]
        if wrong:
            raise SystemExit(wrong[0])
        tokens = sum(each.n_output_tokens or 0 for each in made)
        peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
        first = [each.first_token_seconds for each in made if each.first_token_seconds is not None]
        return {
            "batch": batch, "bound": bound, "tokens": tokens, "seconds": seconds, "rate": tokens / seconds,
            "first_s": max(first), "gib": peak, "rows": len(made),
            "prompt": sum(each.n_prompt_tokens or 0 for each in made),
        }  # fmt: skip

    for batch in BATCHES[:2] if asked.cpu else BATCHES:
        start = time.perf_counter()
        ask(batch, max(4, batch), new, False)  # kernels are tuned, also those of late tokens
        warm = time.perf_counter() - start
        found["lines"].append(ask(batch, max(4, batch), new, False) | {"warm_s": warm})
        (asked.work / f"{asked.piece}.part").write_text(json.dumps(found))
    for batch in (8,):
        ask(batch, batch, new, True)
        found["lines"].append(ask(batch, batch, new, True))
    return found


PIECES = {"tune": tune, "keep": keep, "answers": answers, "calls": calls, "video": video, "base": base,
          "speed": speed}  # fmt: skip


def process(asked: argparse.Namespace, piece: str) -> None:
    """One piece in its own process, unless its file is there."""
    if (asked.work / f"{piece}.json").is_file():
        return
    env = os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if piece.endswith("-cpu") or asked.cpu else {})
    words = [sys.executable, __file__, "--work", str(asked.work), "--piece", piece]
    words += ["--cpu"] if asked.cpu else []
    start = time.perf_counter()
    with (asked.work / f"{piece}.log").open("w") as log:
        try:
            done = subprocess.run(words, stdout=log, stderr=log, env=env, timeout=asked.limit)
            code = done.returncode
        except subprocess.TimeoutExpired:
            code = -1
    took = time.perf_counter() - start
    print(f"{piece}: {'done' if code == 0 else f'FAILED ({code})'} in {took:.0f} s", flush=True)
    if code != 0:
        said = (asked.work / f"{piece}.log").read_text().strip().splitlines()
        print("   " + " | ".join(said[-4:])[-900:], flush=True)


def table(asked: argparse.Namespace) -> None:
    """Print what was found."""
    found = {
        piece: json.loads((asked.work / f"{piece}.json").read_text())
        for piece in (*PARALLEL, *ANSWERS, *TIMED)
        if (asked.work / f"{piece}.json").is_file()
    }
    if "tune" in found:
        one = found["tune"]
        print(f"\nSFT-Plus, bf16: {show(one['first'])} -> {show(one['last'])}, {one['usage']}")
    if {"keep-gpu", "keep-cpu"} <= found.keys():
        print("SFT-Plus, fp32, GPU against CPU: " + steps_apart(found["keep-gpu"], found["keep-cpu"]))
    for name in ANSWERS:
        if name in found:
            one = found[name]
            wanted = ("schema_valid.value", "non_empty.value", "complete.value", "accuracy.value")
            scores = {key: value for key, value in flat(one["scores"]) if key.endswith(wanted)}
            print(f"{name}: {one['n']} rows, {len(one['probs'])} with probabilities, {scores}")
    if {"answers-gpu", "answers-cpu"} <= found.keys():
        print(
            "bf16 on the GPU against fp32 on the CPU: "
            + told_apart(found["answers-gpu"], found["answers-cpu"])
        )
    print("video:", found.get("video"))
    for name in TIMED:
        for line in found.get(name, {}).get("lines", []):
            bound = " under a grammar" if line["bound"] else ""
            print(
                f"{name}, batch {line['batch']}{bound}: {line['rate']:.0f} tokens/s, first token "
                f"{line['first_s']:.2f} s, {line['gib']:.1f} GiB, {line['prompt'] / line['rows']:.0f} prompt "
                f"tokens a row, warm-up {line.get('warm_s', 0):.0f} s"
            )


def steps_apart(left: dict[str, Any], right: dict[str, Any]) -> str:
    """The largest relative difference of each figure that the steps log."""
    told = []
    for key in ("loss", "ce", "kl", "grad_norm"):
        pairs = [(a[key], b[key]) for a, b in zip(left["history"], right["history"], strict=True) if key in a]
        worst = max((abs(a - b) / abs(b) for a, b in pairs if b), default=float("nan"))
        told.append(f"{key} {worst:.1e} at most over {len(pairs)} steps")
    return ", ".join(told)


def told_apart(left: dict[str, Any], right: dict[str, Any]) -> str:
    """How far the label probabilities of two runs are apart, and how many texts are equal."""
    both = [key for key in left["probs"] if key in right["probs"]]
    worst = [max(abs(left["probs"][key][label] - right["probs"][key][label]) for label in left["probs"][key])
             for key in both]  # fmt: skip
    equal = sum(left["text"][key] == right["text"][key] for key in both)
    mean = sum(worst) / max(1, len(worst))
    found = f"probabilities {max(worst, default=0):.3f} at most, {mean:.4f} mean"
    return f"{found}; {equal} of {len(both)} texts equal"


def show(line: dict[str, float]) -> str:
    """A log line's losses."""
    return " ".join(f"{key} {line[key]:.4f}" for key in ("loss", "ce", "kl") if key in line)


def flat(scores: Any, before: str = "") -> list[tuple[str, Any]]:
    """Nested scores as (path, number)."""
    if isinstance(scores, dict):
        return [
            pair
            for key, value in scores.items()
            for pair in flat(value, f"{before}.{key}" if before else key)
        ]
    return [(before, scores)] if isinstance(scores, int | float) else []


def main() -> None:
    """Do what is missing and print the table; with --piece, be one worker."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", help="only these pieces")
    parser.add_argument("--limit", type=int, default=300, help="seconds a piece may take")
    parser.add_argument("--jobs", type=int, default=5, help="untimed pieces at a time")
    parser.add_argument("--cpu", action="store_true", help="try the script without a GPU")
    parser.add_argument("--piece", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.work = asked.work.resolve()
    if asked.piece is not None:
        if asked.piece.endswith(("torch", "cpu")) or asked.piece in ("keep-gpu", "video"):
            sys.modules["fla"] = None  # type: ignore[assignment]  # as if it were not installed
        result = PIECES[asked.piece.partition("-")[0]](asked)
        (asked.work / f"{asked.piece}.json").write_text(json.dumps(result, indent=1))
        return
    asked.work.mkdir(parents=True, exist_ok=True)
    if not (asked.work / "data/caption/test.jsonl").is_file():
        data(asked)
    for pieces, jobs in ((PARALLEL, asked.jobs), (ANSWERS, asked.jobs), (TIMED, 1)):
        wanted = [piece for piece in pieces if asked.only is None or piece in asked.only]
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda piece: process(asked, piece), wanted))
    table(asked)


if __name__ == "__main__":
    main()
