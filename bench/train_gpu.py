"""One table of how fast a vision-language model is tuned on one card, by this package and by others.

    python bench/train_gpu.py --work runs/speed                      everything; start it again to go on
    python bench/train_gpu.py --work runs/speed --only F-text-cold   these pieces alone
    python bench/train_gpu.py --work runs/try --tiny                 the script alone, small, also on a CPU

Every contender runs in a process of its own, on the same rows, modules, rank, precision, optimiser and rows a
step (see bench/train_contenders.py and bench/gpu_workload.py). Pieces are called CONTENDER-DATA-CACHE: the
cache of Triton, fla and torch is emptied before a "cold" piece and is what was left before a "warm" one. The
same-work gate compares the gradient of a fixed batch with fixed adapter weights, computed through the
contender's own step, with fp32; plain bf16 autocast is the yardstick."""

from __future__ import annotations

import argparse
import faulthandler
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any

import gpu_workload
import pieces
from pieces import Piece
from train_contenders import CONTENDERS, Task, adapted, hide_fla

LIMIT = 1.5
"""A contender whose 1 - cosine is above so many times that of plain bf16 autocast does different work."""

ORDER = (
    "F-text-cold", "G-text-cold", "F-text-warm", "G-text-warm", "G-pictures-warm", "F-pictures-warm",
    "H-text-warm", "H-pictures-warm", "A-text-warm", "B-text-warm", "A-pictures-warm", "B-pictures-warm",
    "D-text-warm", "D-pictures-warm", "E-text-warm", "E-pictures-warm", "C-text-warm", "C-pictures-warm",
    "L-text-cold", "L-text-warm", "L-pictures-warm", "M-text-warm",
    "I-text-cold", "I-text-warm", "I-pictures-warm", "J-text-warm", "J-pictures-warm", "K-text-warm",
    "L-pictures-cold",
    "M-pictures-warm", "G-pictures-cold", "F-pictures-cold", "H-text-cold",
    "B-text-cold", "D-text-cold", "D-pictures-cold",
)  # fmt: skip
SECONDS = {
    "A": 80,
    "B": 85,
    "C": 240,
    "D": 170,
    "E": 100,
    "F": 95,
    "G": 85,
    "H": 95,
    "I": 85,
    "J": 95,
    "K": 90,
    "L": 110,
    "M": 100,
}
FLOOR = 1e-9
"""Less than this is the rounding of fp32: no yardstick."""

COLD_SECONDS = 50
"""A cold piece may take so much longer."""


def plan(tiny: bool) -> list[Piece]:
    """Return all pieces, the most important first."""
    shape = ("--tiny",) if tiny else ()
    made = [Piece("card", shape, 60), Piece("prepare", shape, 150), Piece("gate", shape, 120)]
    for name in ORDER:
        who, data, state = name.split("-")
        seconds = SECONDS[who] + (COLD_SECONDS if state == "cold" else 0) + (10 if data == "pictures" else 0)
        cache = f"{who}-cold" if state == "cold" else _cache(who)
        words = (*shape, "--contender", who, "--data", data)
        missing = CONTENDERS[who].missing()
        made.append(Piece(name, words, seconds, cache, state == "cold", missing, peer=who in "CDE"))
    return made


def _cache(who: str) -> str:
    """Contenders with the same kernels share one folder; ours go on with what their cold run left."""
    return {
        "C": "unsloth",
        "D": "unsloth",
        "F": "F-cold",
        "G": "G-cold",
        "H": "G-cold",
        "I": "I-cold",
        "J": "I-cold",
        "K": "I-cold",
        "L": "L-cold",
        "M": "L-cold",
    }.get(who, "F-cold")


def card(options: argparse.Namespace) -> None:
    """Measure the ceilings."""
    names = (
        "torch",
        "triton",
        "transformers",
        "peft",
        "accelerate",
        "fla-core",
        "unsloth",
        "trl",
        "liger-kernel",
    )
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "-"
    pieces.write_result(options.work, "card", {**gpu_workload.measure_card(), "versions": versions})


def prepare(options: argparse.Namespace) -> None:
    """Build what everybody works on, and count the work."""
    from transformers import AutoConfig

    from dfkeval.models.source import model_source

    found = gpu_workload.prepare(options.work, options.tiny)
    source = model_source(gpu_workload.base_name(options.work, options.tiny))
    config = AutoConfig.from_pretrained(source)
    for name in gpu_workload.DATA_SETS:
        means = found[name]["means"]
        found[name]["flops_per_token"] = gpu_workload.training_flops(config, means) / means["tokens"]
    pieces.write_result(options.work, "prepare", found)


def gate(options: argparse.Namespace) -> None:
    """Save the gradient of the fixed batches in fp32, and by plain bf16 autocast with the library's loss."""
    hide_fla()
    import torch
    from step_recorder import compare, save_gradient, seed_adapter

    from dfkdata import load_rows
    from dfkeval.models.processor import load_processor
    from dfktrain import Collator

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    found: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        for data in gpu_workload.DATA_SETS:
            task = _task(options, data)
            collator = Collator(load_processor(task.base))
            rows = [row for row in load_rows(task.rows) if row["id"] in task.facts["gate"]]
            model = adapted(task, dtype)
            model.train()
            moved = seed_adapter(model)
            scored, total = 0, 0.0
            for some in [[row] for row in rows] if dtype == "float32" else [rows]:
                batch = {key: value.to(model.device) for key, value in collator(some).items()}
                tokens = int((batch["labels"][:, 1:] != -100).sum())
                mixed = dtype == "bfloat16" and task.cuda
                with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=mixed):
                    loss = model(**batch, use_cache=False).loss * tokens
                loss.backward()
                scored, total = scored + tokens, total + loss.item()
            name = f"{'reference' if dtype == 'float32' else 'plain'}-{data}"
            found[name] = {
                "scored": scored,
                "loss": total / scored,
                **save_gradient(options.work, name, moved),
            }
            del model, moved
    for data in gpu_workload.DATA_SETS:
        found[f"plain-{data}"]["off"] = compare(options.work, f"plain-{data}", f"reference-{data}")
    pieces.write_result(options.work, "gate", found)


def _task(options: argparse.Namespace, data: str) -> Task:
    import torch

    micro = dict(gpu_workload.scale(options.tiny).micro)[data]
    if options.contender == "A":
        micro = max(1, micro // 4)  # what PyTorch's kernels and logits everywhere leave memory for
    return Task(options.work, data, options.tiny, torch.cuda.is_available() and not options.tiny, micro)


def contend(options: argparse.Namespace) -> None:
    """Let one contender train, and record it."""
    who = CONTENDERS[options.contender]
    if not who.fla:
        hide_fla()
    os.environ.update(who.environment)
    cache = Path(os.environ.get("TRITON_CACHE_DIR", options.work / "none"))
    before = pieces.files_below(cache)
    if who.run.__name__.startswith("unsloth"):
        import unsloth  # noqa: F401  before transformers, which it patches
    from step_recorder import StepRecorder, compare

    task = _task(options, options.data)
    steps, window = (6, 1) if options.tiny else (options.steps, 5)

    def batch(trainer: Any) -> dict[str, Any]:
        return gate_batch(task, trainer)

    recorder = StepRecorder(options.work, options.piece, steps, options.seconds - 22, batch, window)
    recorder.facts |= {"cache_files_before": before, "micro": task.micro}
    who.run(task, recorder)
    found = recorder.found() | {"cache_files_after": pieces.files_below(cache)}
    found["off"] = compare(options.work, options.piece, f"reference-{options.data}")
    pieces.write_result(options.work, options.piece, found)


def gate_batch(task: Task, trainer: Any) -> dict[str, Any]:
    """Return the fixed batch as the trainer's own collator makes it."""
    from dfkdata import load_rows

    rows = list(load_rows(task.rows))
    places = [at for at, row in enumerate(rows) if row["id"] in task.facts["gate"]]
    known = trainer.train_dataset
    made = [known[at] for at in places] if hasattr(known, "column_names") else [rows[at] for at in places]
    return dict(trainer.data_collator(made))


def table(work: Path) -> str:
    """Return the table of all results in Markdown."""
    found = pieces.read_results(work)
    measured, prepared, gates = (found.get(name, {}) for name in ("card", "prepare", "gate"))
    lines = [f"{measured.get('name', '?')}: {measured.get('flops', 0) / 1e12:.0f} TFLOP/s in bf16, "
             f"{measured.get('bandwidth', 0) / 1e12:.2f} TB/s; {measured.get('versions')}", ""]  # fmt: skip
    for name, rate in measured.get("shapes", {}).items():
        lines.append(f"matrix product {name}: {rate / 1e12:.0f} TFLOP/s")
    for data in gpu_workload.DATA_SETS:
        facts = prepared.get(data, {})
        plain = gates.get(f"plain-{data}", {})
        ceiling = measured.get("flops", 0) / facts["flops_per_token"] if "flops_per_token" in facts else 0
        lines += ["", f"{data}: {facts.get('means')}; roofline {ceiling:.0f} tokens/s"]
        lines += [f"plain bf16 autocast: 1 - cosine {plain.get('off')}, {plain.get('scored')} scored tokens"]
        lines += ["", HEADER, RULE]
        for name in ORDER:
            if name in found and name.split("-")[1] == data:
                lines.append(_line(work, name, found[name], ceiling, plain))
    for name in ORDER:
        if "profile" in found.get(name, {}):
            lines += ["", f"start of {name}: imported {number(found[name].get('imported_s'), 1)} s, loaded "
                      f"{number(found[name].get('loaded_s'), 1)} s; the host waits for the card, a step, at: "
                      f"{found[name].get('host_waits')}; kernels tuned here: "
                      f"{found[name].get('tuned_here')}"]  # fmt: skip
            lines += ["", f"kernels of {name}, ms a step (launches):", *_kernels(found[name]["profile"])]
    return "\n".join(lines)


def _kernels(profile: dict[str, Any], shown: int = 12) -> list[str]:
    top = profile["kernels"][:shown]
    return [f"{each['ms']:8.2f} ({each['launches']:.0f}) {each['kernel'][:90]}" for each in top]


HEADER = (
    "| | cache | ready s | step 1 | 10 | 100 | tokens/s (range) | scored/s | samples/s | card waits "
    "| launches/step | GiB | of roofline | 1-cos x plain | note |"
)
RULE = "|---" * 15 + "|"


def _line(work: Path, name: str, one: dict[str, Any], ceiling: float, plain: dict[str, Any]) -> str:
    who, data, state = name.split("-")
    off = one.get("off")
    if off is None and (work / f"gradients/{name}.pt").is_file():
        from step_recorder import compare

        off = compare(work, name, f"reference-{data}")
    note = [one["failed"]] if "failed" in one else []
    gradient = one.get("gradient", {})
    if off is not None and off > LIMIT * max(FLOOR, plain.get("off") or 0):
        note.append("different work")
    if gradient and plain and gradient["scored"] != plain["scored"]:
        note.append(f"{gradient['scored']} scored tokens in the gate's batch")
    kept = {part: why for part, why in one.get("fused", {}).items() if why != "on"}
    note += [f"not fused: {kept}"] if kept else []
    note += [f"micro-batch {one['micro']}"] if who in "ABCDE" and "micro" in one else []
    note += [f"loader {100 * one['fetch_share']:.0f} %"] if "fetch_share" in one else []
    note += [f"{one['rows_per_step']:.1f} rows a step"] if who in "GHIJKLM" and "rows_per_step" in one else []
    rate, low = one.get("tokens_per_s", 0), one.get("tokens_per_s_range", [0, 0])
    cells = [
        f"{who} {CONTENDERS[who].what}", f"{state} ({one.get('cache_files_before', '?')} files)",
        *(number(one.get(key), 1) for key in ("ready_s", "step_1_s", "step_10_s")), _hundredth(one),
        f"{rate:.0f} ({low[0]:.0f}-{low[1]:.0f})", number(one.get("scored_per_s"), 0),
        number(one.get("samples_per_s"), 1), _share(one.get("waits")),
        number(one.get("profile", {}).get("launches"), 0), number(one.get("peak_gib"), 1),
        _share(rate / ceiling if ceiling else None),
        _ratio(off, plain.get("off")), "; ".join(note),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def number(value: float | None, digits: int) -> str:
    """Return the number for a cell of the table."""
    return "-" if value is None else f"{value:.{digits}f}"


def _hundredth(one: dict[str, Any]) -> str:
    """The time to step 100; with a ~ if it is reckoned from the tenth and the steady steps."""
    if "step_100_s" in one or not one.get("step_s") or not one.get("step_10_s"):
        return number(one.get("step_100_s"), 1)
    return f"~{one['step_10_s'] + 90 * one['step_s']:.0f}"


def _ratio(off: float | None, plain: float | None) -> str:
    if off is None:
        return "-"
    return f"{off / plain:.2f}" if plain and plain > FLOOR else f"({off:.0e})"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def main() -> None:
    """Do what is missing and print the table; with --piece, be one worker."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="the built-in model, in fp32, on the CPU")
    parser.add_argument("--only", nargs="*", help="pieces to run, in this order; none: only print the table")
    parser.add_argument("--minutes", type=float, default=60, help="start nothing that would end later")
    parser.add_argument("--steps", type=int, default=105, help="timed steps of a contender")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to unpack for the pieces")
    parser.add_argument("--retry", action="store_true", help="run failed pieces again")
    parser.add_argument("--piece", help=argparse.SUPPRESS)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.work = options.work.resolve()
    if options.piece:
        faulthandler.dump_traceback_later(max(10, options.seconds - 8))  # a piece that hangs says where
        {"card": card, "prepare": prepare, "gate": gate}.get(options.piece, contend)(options)
        return
    if options.wheels:
        pieces.unpack_wheels(options.wheels, options.work / "site")
        pieces.unpack_wheels(options.wheels / "peers", options.work / "site-peers")
    sys.path[:0] = [str(options.work / name) for name in ("site", "site-peers")]
    everything = {piece.name: piece for piece in plan(options.tiny)}
    names = list(everything) if options.only is None else options.only
    chosen = [everything[name] for name in names]
    pieces.run_all(Path(__file__).resolve(), options.work, chosen, options.minutes, options.retry)
    text = table(options.work)
    (options.work / "train.md").write_text(text + "\n", encoding="utf-8")
    (options.work / "train.json").write_text(json.dumps(pieces.read_results(options.work)), encoding="utf-8")
    print("\n" + text)


if __name__ == "__main__":
    main()
