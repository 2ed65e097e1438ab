"""Two processes against one on the built-in model, started as users start them: data parallel, FSDP2 and
DeepSpeed ZeRO-2.

    python bench/gpu_ranks.py --work runs/ranks                    everything; start it again to go on
    python bench/gpu_ranks.py --work runs/ranks --only ddp fsdp    without DeepSpeed
    python bench/gpu_ranks.py --work runs/try --cpu                over gloo; FSDP then falls back to data
                                                                   parallel, so only the script is tried

Every run is `dfktrain run` in processes of its own. One process takes the batch of both ranks, so losses and
weights must agree: in fp32 (TF32 off) to rounding, in bf16 within what another split of the same batch does
to one process. Rows are ordered so that a rank with text only stands beside one with pictures. `cut` runs are
killed once their first checkpoint is whole and started again; they are compared with an undisturbed run,
beside what two undisturbed runs differ by. Runs go side by side on the same two cards (--jobs), so no time
is measured."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEED = 42
ROWS, HELD = 64, 7
LONG, SAVE = 60, 20
ACCELERATE = {
    "fsdp": {
        "distributed_type": "FSDP", "fsdp_config": {
            "fsdp_version": 2, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_state_dict_type": "FULL_STATE_DICT", "fsdp_reshard_after_forward": True,
            "fsdp_cpu_ram_efficient_loading": False, "fsdp_offload_params": False,
        },
    },
    "zero2": {
        "distributed_type": "DEEPSPEED", "deepspeed_config": {
            "zero_stage": 2, "gradient_accumulation_steps": "auto", "gradient_clipping": "auto",
            "zero3_init_flag": False,
        },
    },
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """kind: one, ddp, fsdp or zero2. against: the run of one process that it must equal; noise: a pair of
    runs that says how far equal runs are apart. stage: keys of the stage. cut: killed and started again."""

    kind: str
    precision: str
    stage: dict[str, Any]
    against: str | None = None
    noise: tuple[str, str] | None = None
    cut: bool = False
    more: dict[str, Any] = field(default_factory=dict)


GRADIENT = {"steps": 1, "optimizer": "sgd", "learning_rate": 1.0}  # the step is then the gradient
SHORT = {"steps": 4, "optimizer": "sgd", "learning_rate": 1e-2, "validation": ["held.jsonl"], "eval_steps": 2}
ADAM = SHORT | {"optimizer": "adamw_torch", "learning_rate": 1e-3}
RESUMED = {"steps": LONG, "optimizer": "adamw_torch", "learning_rate": 1e-3, "save_steps": SAVE}
ONE, HALF = {"batch_size": 4}, {"batch_size": 2}
SPLIT = {"batch_size": 2, "accumulation": 2}
BF16 = ("one-bf16", "one-bf16-split")


def runs() -> dict[str, Run]:
    """Every run by its name."""
    found = {
        "one-gradient": Run("one", "fp32", GRADIENT | {"batch_size": 8}),
        "ddp-gradient": Run("ddp", "fp32", GRADIENT | SPLIT, "one-gradient"),
        "fsdp-gradient": Run("fsdp", "fp32", GRADIENT | SPLIT, "one-gradient"),
        "one-fp32": Run("one", "fp32", SHORT | ONE),
        "ddp-fp32": Run("ddp", "fp32", SHORT | HALF, "one-fp32"),
        "fsdp-fp32": Run("fsdp", "fp32", SHORT | HALF, "one-fp32"),
        "one-adam": Run("one", "fp32", ADAM | ONE),
        "zero2-adam": Run("zero2", "fp32", ADAM | HALF, "one-adam"),
        "one-bf16": Run("one", "bf16", ADAM | ONE),
        "one-bf16-split": Run("one", "bf16", ADAM | SPLIT, "one-bf16"),
    }
    for kind in ("ddp", "fsdp", "zero2"):
        found[f"{kind}-bf16"] = Run(kind, "bf16", ADAM | HALF, "one-bf16", BF16)
        pair = (f"{kind}-whole", f"{kind}-again")
        found[pair[0]] = Run(kind, "fp32", RESUMED | HALF)
        found[pair[1]] = Run(kind, "fp32", RESUMED | HALF, pair[0])
        found[f"{kind}-cut"] = Run(kind, "fp32", RESUMED | HALF, pair[0], pair, cut=True)
    return found


def make_rows(folder: Path) -> None:
    """Seeded rows, half of them text only, so that after the stage's shuffling two rows of text and two with
    a picture take turns; and a held-out set that does not divide by the ranks."""
    import torch
    from PIL import Image, ImageDraw

    folder.mkdir(parents=True, exist_ok=True)
    chooser, words = random.Random(0), "red green blue grey white black brown pink".split()

    def row(name: str, seen: bool) -> dict[str, Any]:
        colour = chooser.choice(words)
        if seen:
            image = Image.new("RGB", (chooser.randrange(48, 96), chooser.randrange(48, 96)), "white")
            ImageDraw.Draw(image).ellipse((4, 4, 40, 40), fill=colour)
            image.save(folder / f"{name}.png")
        asked = "What is it? " + " ".join(chooser.choices(words, k=chooser.randrange(3, 30)))
        answer = f"A {colour} shape. " + " ".join(chooser.choices(words, k=chooser.randrange(3, 20)))
        content = [*([{"type": "image"}] if seen else []), {"type": "text", "text": asked}]
        turns = [{"role": "user", "content": content},
                 {"role": "assistant", "content": [{"type": "text", "text": answer}]}]  # fmt: skip
        return {"id": name, "messages": turns, "images": [f"{name}.png"] if seen else []}

    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(SEED * 1_000_003)).tolist()
    rows: list[dict[str, Any]] = [{}] * ROWS
    for place, index in enumerate(order):
        rows[index] = row(f"r{place}", place // 2 % 2 == 1)
    held = [row(f"v{index}", index % 3 == 0) for index in range(HELD)]
    for name, lines in (("rows", rows), ("held", held)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_config(asked: argparse.Namespace, name: str, run: Run) -> Path:
    """The run's training configuration."""
    stage = {"name": "s", "data": ["rows.jsonl"], "group_by_length": False, "scheduler": "constant",
             "clip": 0} | run.stage  # fmt: skip
    for key in ("data", "validation"):
        stage |= {key: [str(asked.work / "data" / each) for each in stage[key]]} if key in stage else {}
    made = {
        "model": {"name": "tiny"}, "engine": "transformers", "precision": run.precision, "seed": SEED,
        "adapter": {"rank": 8, "alpha": 16}, "stages": [stage],
    }  # fmt: skip
    path = asked.work / f"{name}.json"
    path.write_text(json.dumps(made, indent=1))
    return path


def command(asked: argparse.Namespace, name: str, run: Run) -> list[str]:
    """What a user would type."""
    words = ["dfktrain", "run", str(asked.work / f"{name}.json"), "--out", str(asked.work / name)]
    if run.kind == "one":
        return [sys.executable, "-m", *words]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    if run.kind == "ddp":
        start = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
        return [sys.executable, "-m", *start, "-m", *words]
    made = ACCELERATE[run.kind] | {"num_processes": 2, "num_machines": 1, "machine_rank": 0}
    made |= {"mixed_precision": "bf16" if run.precision == "bf16" else "no", "use_cpu": asked.cpu}
    path = asked.work / f"{name}.accelerate.yaml"
    path.write_text(json.dumps(made, indent=1))
    start = ["accelerate.commands.launch", "--config_file", str(path), "--main_process_port", port]
    return [sys.executable, "-m", *start, "-m", *words]


def start(asked: argparse.Namespace, name: str, run: Run) -> int:
    """Do one run; its exit code."""
    env = os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    env |= {"NVIDIA_TF32_OVERRIDE": "0"} if run.precision == "fp32" else {}
    env |= {"ACCELERATE_USE_CPU": "true"} if asked.cpu else {}
    first = asked.work / name / f"stages/s/checkpoints/checkpoint-{SAVE}/complete"
    cut = run.cut and not first.is_file()
    with (asked.work / f"{name}.log").open("a") as log:
        words = command(asked, name, run)
        worker = subprocess.Popen(words, env=env, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + asked.limit
        try:
            while worker.poll() is None and time.monotonic() < until and not (cut and first.is_file()):
                time.sleep(0.02)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
    code = worker.wait()
    if cut and first.is_file() and not (asked.work / name / "run.json").is_file():
        (asked.work / f"{name}.cut").write_text("killed after its first checkpoint\n")
        return start(asked, name, run)
    return code


def one(asked: argparse.Namespace, name: str, run: Run) -> None:
    """Do one run unless it is done, and say how it went."""
    if (asked.work / name / "run.json").is_file():
        return
    write_config(asked, name, run)
    began = time.perf_counter()
    code = start(asked, name, run)
    said = (asked.work / f"{name}.log").read_text().strip().splitlines()
    print(f"{name}: {'done' if code == 0 else f'FAILED ({code})'} in {time.perf_counter() - began:.0f} s",
          flush=True)  # fmt: skip
    if code != 0:
        print("   " + " | ".join(line for line in said if "rror" in line)[-900:], flush=True)


def reload(asked: argparse.Namespace) -> None:
    """Put every saved adapter on the base with the evaluation's loader, which proves it, and let each answer
    one row."""
    import torch

    from dfkeval.models import loader

    made: dict[str, Any] = {}
    for name in runs():
        folder = asked.work / name / "adapter"
        if not (asked.work / name / "run.json").is_file():
            continue
        loaded = loader.load("tiny", adapter=folder, dtype="float32", device="cpu" if asked.cpu else "auto")
        ask = [{"role": "user", "content": [{"type": "text", "text": "What is it? red blue"}]}]
        text = loaded.processor.apply_chat_template(ask, tokenize=False, add_generation_prompt=True)
        inputs = loaded.processor.tokenizer(text, return_tensors="pt").to(loaded.model.device)
        with torch.no_grad():
            ids = loaded.model.generate(**inputs, max_new_tokens=16, do_sample=False)
        made[name] = loaded.processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :])
    (asked.work / "reload.json").write_text(json.dumps(made, indent=1))


def apart(asked: argparse.Namespace, left: str, right: str) -> dict[str, float] | None:
    """How far two runs are apart, |a - b| / |a|: the trained B matrices (they start at zero), and the worst
    training and validation loss. None if one of them is missing."""
    import torch
    from safetensors.torch import load_file

    if not all((asked.work / name / "run.json").is_file() for name in (left, right)):
        return None
    sides = [load_file(asked.work / name / "adapter/adapter_model.safetensors") for name in (left, right)]
    keys = [key for key in sides[0] if "lora_B" in key]
    if sides[0].keys() != sides[1].keys() or not any(".visual." in key for key in keys):
        raise SystemExit(f"{left} and {right} hold other tensors")
    flat = [torch.cat([side[key].flatten().double() for key in keys]) for side in sides]
    found = {"weights": float((flat[0] - flat[1]).norm() / flat[0].norm())}
    told = [json.loads((asked.work / name / "run.json").read_text()) for name in (left, right)]
    for key in ("loss", "eval_loss"):
        lines = [[line[key] for line in each["stages"][0]["history"] if key in line] for each in told]
        if len(lines[0]) != len(lines[1]):
            raise SystemExit(f"{left} and {right} logged {key} unequally often")
        found[key] = max((abs(a - b) / abs(a) for a, b in zip(*lines, strict=True)), default=0.0)
    return found


def table(asked: argparse.Namespace) -> None:
    """Print what was found, and write it to table.json."""
    texts = json.loads((asked.work / "reload.json").read_text())
    found: dict[str, Any] = {}
    print(
        f"\n{'run':16}{'against':16}{'weights':>10}{'loss':>10}{'eval loss':>10}{'noise':>10}"
        f"{'to fp32':>10}  reloaded"
    )
    for name, run in runs().items():
        if not (asked.work / name / "run.json").is_file():
            print(f"{name:16}{'not done'}")
            continue
        far = apart(asked, run.against, name) if run.against else None
        noise = apart(asked, *run.noise) if run.noise else None
        same = "" if run.against not in texts else f", as {run.against}: {texts[name] == texts[run.against]}"
        parts = "".join(f"{far[key]:10.1e}" if far else " " * 10 for key in ("weights", "loss", "eval_loss"))
        parts += f"{noise['weights']:10.1e}" if noise else " " * 10
        exact = apart(asked, "one-adam", name) if run.precision == "bf16" else None
        parts += f"{exact['weights']:10.1e}" if exact else " " * 10
        cut = ", was killed" if (asked.work / f"{name}.cut").is_file() else ""
        print(f"{name:16}{run.against or '':16}{parts}  {'yes' if name in texts else 'NO'}{same}{cut}")
        found[name] = {
            "against": run.against,
            "apart": far,
            "noise": noise,
            "to_fp32": exact,
            "text": texts.get(name),
        }
        found[name]["killed"] = bool(cut)
    (asked.work / "table.json").write_text(json.dumps(found, indent=1))


def main() -> None:
    """Do what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=["ddp", "fsdp", "zero2"])
    parser.add_argument("--names", nargs="+", help="only these runs")
    parser.add_argument("--limit", type=int, default=200, help="seconds a run may take")
    parser.add_argument("--jobs", type=int, default=4, help="runs at a time")
    parser.add_argument("--cpu", action="store_true", help="try the script without a GPU")
    asked = parser.parse_args()
    asked.work = asked.work.resolve()
    if not (asked.work / "data/rows.jsonl").is_file():
        make_rows(asked.work / "data")
    wanted = [
        (name, run)
        for name, run in runs().items()
        if run.kind in ("one", *asked.only) and (asked.names is None or name in asked.names)
    ]
    with ThreadPoolExecutor(asked.jobs) as pool:
        list(pool.map(lambda each: one(asked, *each), wanted))
    reload(asked)
    table(asked)


if __name__ == "__main__":
    main()
