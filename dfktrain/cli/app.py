"""`dfktrain run | check | init | sweep | merge | rft | push | curves | demo`: arguments in, one library call
each.

Results go to stdout, progress to stderr. Exit 0 done, 2 wrong usage or configuration."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkdata.common.errors import ConfigError, DataError, DfkError, missing_package
from dfktrain.cli import curves, merge, push, rft
from dfktrain.cli.init import init_command, sweep_command
from dfktrain.config import overrides
from dfktrain.config.run import TrainConfig

if TYPE_CHECKING:
    from dfktrain.training import trainer
    from dfktrain.training.trainer import OnProgress

ConfigPath = Annotated[
    Path, typer.Argument(help="The training configuration, a YAML file.", metavar="CONFIG")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Replace one key: stages.0.learning_rate=1e-4. May be repeated."),
]

OverrideFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--override", help="File of changes, or the name of one that ships (tiny); what changes is printed."
    ),
]

_NEEDED = ("torch", "transformers", "peft", "accelerate", "safetensors", "jinja2")


def _examples(*lines: str) -> str:
    return "Examples:\n\n" + "\n\n".join(f"  {line}" for line in lines)


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Fine-tune a small vision-language model.",
    epilog=_examples("dfktrain init", "dfktrain run train.yaml --out runs/first"),
)


@app.command(
    epilog=_examples(
        "dfktrain run train.yaml --out runs/first",
        "dfktrain run train.yaml --out runs/second --set stages.0.learning_rate=1e-4 --set seed=7",
    )
)
def run(
    config: ConfigPath,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder of the run; an interrupted run goes on there. Default: the configuration's output.",
        ),
    ] = None,
    set_: Overrides = None,
    override: OverrideFiles = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            help="Go on from hf://ORG/NAME@REV, where dfktrain push --checkpoint sent a stopped run. "
            "A folder that is already as far goes on from itself.",
        ),
    ] = None,
) -> None:
    """Train an adapter: DIR/adapter, DIR/stages/NAME/adapter, DIR/run.json; with an evaluate: section, then
    ask base and tuned model and compare."""
    _quiet()
    settings = _load(config, set_, override)
    folder = _folder(settings, out, config)
    _require()
    from dataclasses import asdict

    from dfktrain.experiments import evaluate
    from dfktrain.reports.curves import PAGE, from_stage
    from dfktrain.training.run import train

    evaluate.check(settings)
    _say_precision(settings)
    if resume is not None:
        from dfktrain.training.hub_resume import restore

        sys.stderr.write(f"resume: {folder} goes on after {restore(resume, folder)}\n")
    result = train(settings, folder, progress=_bar())
    if os.environ.get("RANK", "0") != "0":
        return
    for stage in result.stages:
        losses = [line["loss"] for line in stage.history if "loss" in line]
        sys.stdout.write(
            f"{stage.name}: {stage.steps} steps, {stage.tokens:,} tokens ({stage.scored_tokens:,} scored), "
            f"loss {losses[0]:.4f} -> {losses[-1]:.4f}, {stage.seconds:.0f} s\n"
        )
        sys.stdout.write(f"  {from_stage(asdict(stage)).verdict.text}\n")
    sys.stdout.write(f"curves: {folder / PAGE}\nadapter: {result.adapter}\n")
    if settings.evaluate is not None:
        _evaluate(settings, folder, result.adapter)


def _evaluate(settings: TrainConfig, out: Path, trained: Path) -> None:
    """The table of base against tuned; the weights are safe by now."""
    from dfkdata.common.progress import Progress
    from dfktrain.experiments import evaluate
    from dfktrain.reports import model_card

    bar = Progress("answers")
    try:
        found = evaluate.score(settings, out, trained, lambda who, done, total: bar(done, total, who))
    except DfkError as error:
        raise type(error)(
            f"{error}\nthe weights are saved in {trained}; the same command scores them without training "
            f"again, also with changes such as --set 'evaluate.set=[\"metrics=[validity]\"]'"
        ) from error
    model_card.write(out)  # again, now with the table
    sys.stdout.write(f"\n{found.table()}\n\nreport: {found.report}\n")


@app.command(
    epilog=_examples(
        "dfktrain check train.yaml", "dfktrain check train.yaml --config-only --set stages.0.batch_size=4"
    )
)
def check(
    config: ConfigPath,
    config_only: Annotated[
        bool, typer.Option(help="Stop after the configuration is read; open no data.")
    ] = False,
    set_: Overrides = None,
    override: OverrideFiles = None,
) -> None:
    """Say what a run would do, without training: rows, tokens, mask, steps, memory, kernels, versions."""
    _quiet()
    settings = _load(config, set_, override)
    if config_only:
        sys.stdout.write(f"{config}: a valid configuration of {len(settings.stages)} stages\n")
        return
    _require()
    from dfktrain.cli.preflight_view import write
    from dfktrain.experiments import evaluate
    from dfktrain.training import monitor_plan
    from dfktrain.training.preflight import plan

    report = plan(settings)
    for name, looked in (("evaluate", evaluate.check), ("watch", monitor_plan.check)):
        try:
            looked(settings)
        except (ConfigError, DataError) as error:
            report.faults.append(f"{name}: {error}")
    write(report)
    if report.faults:
        raise typer.Exit(2)


def _load(config: Path, changes: list[str] | None, files: list[str] | None = None) -> TrainConfig:
    """The configuration; what override files change is said on stderr."""
    settings, deviations = overrides.load(config, files or (), changes or ())
    for line in deviations:
        sys.stderr.write(f"override: {line}\n")
    return settings.resolved(config.parent.resolve())


def _folder(settings: TrainConfig, out: Path | None, config: Path) -> Path:
    if out is None and settings.output is None:
        raise ConfigError(f"where to? Give --out DIR, or write output: DIR in {config}")
    return out if out is not None else Path(str(settings.output))


def _say_precision(settings: TrainConfig) -> None:
    """What "auto" came to, and why: a run in fp32 on a GPU without bf16 should not be found out later."""
    from dfktrain.engines._base import pick_precision

    precision, why = pick_precision(settings.precision)
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"precision {precision}: {why}\n")


def _require() -> None:
    """Name the first missing package, with the extra that brings it."""
    for package in _NEEDED:
        if importlib.util.find_spec(package) is None:
            raise missing_package("dfktrain", package, "train")


def _quiet() -> None:
    """No telemetry, no library bars and notices among ours; only rank 0 of a distributed run speaks."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("accelerate").setLevel(logging.ERROR)


def _bar() -> OnProgress | None:
    """A line on stderr for each stage, with rate, time left and loss; None on other ranks than 0."""
    if os.environ.get("RANK", "0") != "0":
        return None
    from dfkdata.common.progress import Progress

    bars: dict[str, Progress] = {}

    def show(at: trainer.Progress) -> None:
        bar = bars.setdefault(at.stage, Progress("steps", before=at.step))
        loss = "" if at.loss is None else f"  loss {at.loss:.4f}"
        bar(at.step, at.steps, f"{at.stage}{loss}")

    return show


@app.command(epilog=_examples("dfktrain demo --out demo", "dfktrain demo --out demo --minutes 1"))
def demo(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for data, adapters, runs and report.html.")
    ] = Path("dfk-demo"),
    minutes: Annotated[int, typer.Option(help="Picks a fixed number of steps, so that runs repeat.")] = 3,
) -> None:
    """Raw data -> rows -> adapter -> answers -> scores and a report, with the built-in tiny model on this
    CPU."""
    _quiet()
    _require()
    from dfktrain.demo import demo as go

    go(out, minutes)


app.command(
    "init", epilog=_examples("dfktrain init sita_qwen35", "dfktrain init json_captioner_v2 --out train.yaml")
)(init_command)
app.command(
    "sweep",
    epilog=_examples(
        "dfktrain sweep train.yaml --out sweeps/rate --vary stages.0.learning_rate=1e-4,2e-4 --seeds 1,2",
        "dfktrain sweep train.yaml --out sweeps/plus --vary stages.0.sft_plus.lambda=0,0.1,0.2",
    ),
)(sweep_command)
app.command("merge", epilog=merge.EXAMPLES)(merge.merge_command)
app.command("rft", epilog=rft.EXAMPLES)(rft.rft_command)
app.command("push", epilog=push.EXAMPLES)(push.push_command)
app.command("curves", epilog=curves.EXAMPLES)(curves.curves_command)


def main() -> None:
    """The console command: a `DfkError` becomes one message on stderr and exit 2."""
    try:
        app()
    except DfkError as error:
        sys.stderr.write(f"dfktrain: {error}\n")
        raise SystemExit(2) from error


if __name__ == "__main__":  # torchrun and accelerate launch start modules: -m dfktrain.cli.app
    main()
