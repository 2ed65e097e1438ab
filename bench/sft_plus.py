"""Does SFT-Plus keep more of what the base could do, at equal new skill? Measured on the built-in tiny model.

    python bench/sft_plus.py --out runs/sft-plus [--seeds 1 2 3] [--steps 600] [--lambdas 0.1 0.2]
    python bench/sft_plus.py --out runs/sft-plus --speed

Old skills: unseen rows of four of the tasks that the base was trained on (`tools/tiny_model/tasks.py`; `judge`
is left out, the base only guesses there), greedy, exact match. New skill: the demo's labelled posts, which the
base never saw. Plain SFT and every lambda train one adapter a seed on the posts; then both sets are asked again.
Differences are paired over rows, a side is the runs of all seeds (`dfkeval.compare`). Each setting is
compared with SFT after the same steps, and with the SFT runs (--short: fewer steps) whose new skill is
closest: a run that has learnt less has also forgotten less, and that alone would be no merit. Finished runs
are not done again. --speed: seconds a step beside plain SFT's, in turn on the same batches. Prints tables;
nothing is asserted."""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkdata.conversion.convert import convert
from dfkeval import EvalConfig, Run, compare, evaluate, write_tool_call
from dfkeval.analysis.pooling import pool
from dfktrain import TrainConfig, train
from dfktrain.demo import posts
from tools.tiny_model import tasks

OLD = ("fill_form", "take_apart", "take_apart_among_tools", "look")
HEADLINE = {"new": "labels.accuracy", "old": "answers.exact"}


@dataclass(frozen=True)
class Setting:
    """One way to train. share: lambda."""

    share: float
    temperature: float
    steps: int

    @property
    def name(self) -> str:
        """Of its folder, and in the tables."""
        if not self.share:
            return f"sft-{self.steps}"
        return f"plus-{self.share:g}-T{self.temperature:g}-{self.steps}"


def old_rows(folder: Path, count: int, seed: int = 77_001) -> Path:
    """`count` unseen rows of each task, as rows that the schema `answer` can score."""
    path = folder / "old.jsonl"
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    lines = []
    for task in OLD:
        rng = random.Random(f"{seed}/{task}")
        for index in range(count):
            lines.append(json.dumps(_old_row(folder, task, index, tasks.TASKS[task](rng))))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _old_row(folder: Path, task: str, index: int, made: dict[str, Any]) -> dict[str, Any]:
    images = []
    for image in made["images"]:
        images.append(str(folder / "pictures" / f"{task}-{index}.png"))
        image.save(images[-1])
    turn = made["messages"][-1]
    if calls := turn.get("tool_calls"):
        called = calls[0]["function"]
        answer = write_tool_call(called["name"], called["arguments"])
    else:
        answer = turn["content"][0]["text"]
    name = f"{task}-{index}"
    meta = {"schema": "answer", "group": name, "gold": {"answer": answer}}
    row = {"id": name, "messages": made["messages"], "images": images, "meta": meta}
    return row | {"tools": made["tools"] or None}


def new_rows(folder: Path) -> Path:
    """The demo's posts, converted; returns the folder with train.jsonl and test.jsonl."""
    out = folder / "new"
    if not (out / "manifest.json").exists():
        raw = posts.write_posts(folder / "raw", count=380, seed=2026)
        convert(
            raw, out, format="dfk_csv", schema="dfk_label", max_rejects="5%",
            validation=0.05, test=0.2, seed=2026,
        )  # fmt: skip
    return out


def trained(setting: Setting, seed: int, data: Path, out: Path) -> Path:
    """The adapter of one setting and seed."""
    stage: dict[str, Any] = {
        "name": "sft", "data": [str(data / "train.jsonl")], "steps": setting.steps, "batch_size": 4,
        "learning_rate": 3e-3, "warmup_ratio": 0.05, "beta2": 0.99, "max_length": 512, "log_steps": 20,
    }  # fmt: skip
    if setting.share:
        stage["sft_plus"] = {"lambda": setting.share, "temperature": setting.temperature}
    config = TrainConfig.model_validate(
        {
            "model": {"name": "tiny"}, "adapter": {"rank": 16, "alpha": 32}, "stages": [stage],
            "seed": seed, "engine": "transformers",
        }
    )  # fmt: skip
    return train(config, out).adapter


def asked(kind: str, data: Path, adapter: Path | None, out: Path) -> Run:
    """One evaluation run; a finished one is read."""
    backend: dict[str, Any] = {"kind": "transformers", "model": "tiny"}
    if adapter is not None:
        backend["adapter"] = str(adapter)
    new = kind == "new"
    config = {
        "data": str(data), "schema": "dfk_label" if new else "answer", "backend": backend,
        "metrics": ["validity", "labels", "rouge"] if new else ["answers"],
        "sampling": {"max_new_tokens": 96 if new else 256}, "seed": 2026,
    }  # fmt: skip
    _unbind(adapter)
    return evaluate(EvalConfig.model_validate(config), out)


def _unbind(adapter: Path | None) -> None:
    """Drop dfk.json, which rightly refuses to ask an adapter of posts for anything else."""
    if adapter is not None:
        (adapter / "dfk.json").unlink(missing_ok=True)


def one(setting: Setting | None, seed: int, asked_for: argparse.Namespace) -> dict[str, Run]:
    """Train (not for the base, None) and ask both sets."""
    out = asked_for.out / ("base" if setting is None else f"{setting.name}/{seed}")
    data, old = new_rows(asked_for.out), asked_for.out / "old.jsonl"
    adapter = None
    if setting is not None:
        adapter = out / "train/adapter"
        if not (adapter / "adapter_model.safetensors").exists():
            adapter = trained(setting, seed, data, out / "train")
    return {
        "new": asked("new", data / "test.jsonl", adapter, out / "new"),
        "old": asked("old", old, adapter, out / "old"),
    }


def interval(a: list[Run], b: list[Run], metric: str) -> str:
    """b minus a with its interval, as text."""
    found = compare(a, b).differences[metric]
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def only(run: Run, task: str) -> Run:
    """The rows of one task."""
    kept = [sample for sample in run.samples if sample.group.rpartition("-")[0] == task]
    return Run(
        folder=run.folder, config=run.config, schema=run.schema, samples=kept, summary={},
        environment=run.environment,
    )  # fmt: skip


def score(runs: list[Run], metric: str) -> float:
    """The mean over runs."""
    return float(pool(runs).values[metric].value or 0.0)


def speed(options: argparse.Namespace, rounds: int = 12) -> None:
    """Forward and backward of plain SFT and of SFT-Plus, in turn on the same batches of the posts."""
    from dfkdata.rows.messages import load_rows
    from dfkeval.models import loader
    from dfktrain.config.model import AdapterConfig
    from dfktrain.data.collator import Collator
    from dfktrain.engines import LoadedBase, adapt, bare
    from dfktrain.losses.attach import score_answers
    from dfktrain.losses.kl_to_base import AdapterDisabledTeacher, KLToBase, kl_to_base

    loaded = loader.load("tiny", device="cpu")
    model, _ = adapt(LoadedBase(loaded.model, loaded.processor, "tiny"), AdapterConfig())
    net = bare(model.train())
    keep = KLToBase(AdapterDisabledTeacher(model, net), 0.1, 1.0)
    score_answers(model)
    rows = list(load_rows(new_rows(options.out) / "train.jsonl"))
    collator = Collator(loaded.processor)
    spent: dict[str, list[float]] = {"sft": [], "plus": []}
    for at in range(rounds + 1):
        batch = collator(rows[4 * at : 4 * at + 4])
        for name, wanted in (("sft", None), ("plus", keep)):
            began = time.perf_counter()
            with kl_to_base(net, wanted):
                model(**batch).loss.backward()
            model.zero_grad()
            spent[name].append(time.perf_counter() - began)
    plain, plus = (sorted(times[1:])[rounds // 2] for times in spent.values())  # the first round warms up
    print(f"median step of 4 posts: SFT {plain:.3f} s, SFT-Plus {plus:.3f} s, ratio {plus / plain:.2f}")


def main() -> None:
    """Train, ask, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--short", type=int, nargs="*", default=[], help="SFT with fewer steps, as well")
    parser.add_argument("--lambdas", type=float, nargs="+", default=[0.1, 0.2])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0])
    parser.add_argument("--rows", type=int, default=60, help="rows of each task")
    parser.add_argument("--speed", action="store_true", help="measure seconds a step and stop")
    options = parser.parse_args()
    options.out = options.out.resolve()
    if options.speed:
        speed(options)
        return
    old_rows(options.out, options.rows)
    settings = [Setting(0.0, 1.0, steps) for steps in [*options.short, options.steps]]
    settings += [
        Setting(share, temperature, options.steps)
        for share in options.lambdas
        if share
        for temperature in options.temperatures
    ]
    base = one(None, 0, options)
    found: dict[str, dict[str, list[Run]]] = {}
    for seed in options.seeds:
        for setting in settings:
            runs = one(setting, seed, options)
            slot = found.setdefault(setting.name, {"new": [], "old": []})
            for kind, run in runs.items():
                slot[kind].append(run)
            print(f"{setting.name} seed {seed}: " + ", ".join(
                f"{kind} {run.summary['metrics'][HEADLINE[kind]]['value']:.3f}" for kind, run in runs.items()
            ), flush=True)  # fmt: skip
    show(base, found, settings[len(options.short)].name, options)


def show(base: dict[str, Run], found: dict[str, dict[str, list[Run]]], sft: str, options: Any) -> None:
    """The tables."""
    rows = {kind: len(run.samples) for kind, run in base.items()}
    print(f"\n{len(options.seeds)} seeds, {rows['old']} old rows, {rows['new']} new rows\n")
    print("| run | new: label accuracy | old: exact | " + " | ".join(OLD) + " |")
    print("|---|" + "---|" * (2 + len(OLD)))
    for name, kinds in [("base", {kind: [run] for kind, run in base.items()}), *found.items()]:
        cells = [score(kinds[kind], HEADLINE[kind]) for kind in ("new", "old")]
        tasks_of = ([only(run, task) for run in kinds["old"]] for task in OLD)
        cells += [score(runs, HEADLINE["old"]) for runs in tasks_of]
        print(f"| {name} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    print("\n| against | run | new skill: difference | old skills: difference |\n|---|---|---|---|")
    skills = {name: score(kinds["new"], HEADLINE["new"]) for name, kinds in found.items()}
    plain = [name for name in found if name.startswith("sft-")]
    for name in [name for name in found if name not in plain]:
        nearest = min(plain, key=lambda other: abs(skills[other] - skills[name]))
        for other in dict.fromkeys([sft, nearest]):
            pairs = ((found[other][kind], found[name][kind], HEADLINE[kind]) for kind in ("new", "old"))
            print(f"| {other} | {name} | " + " | ".join(interval(*pair) for pair in pairs) + " |")


if __name__ == "__main__":
    main()
