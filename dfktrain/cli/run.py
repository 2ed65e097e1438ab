"""`dfktrain run`: train an adapter, then compare base and tuned model if the configuration says so."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkdata.common.console import examples, say, write
from dfkdata.common.errors import ConfigError, DfkError
from dfkdata.common.faults import leaves
from dfkdata.common.progress import Progress
from dfktrain.cli._common import (
    Changes,
    ConfigPath,
    OverrideFiles,
    load_config,
    progress_bar,
    quiet,
    require_packages,
    writing_weights,
)
from dfktrain.config.launch import is_main_process

if TYPE_CHECKING:
    from dfktrain.config.run import TrainConfig
    from dfktrain.training.state import TrainingProgress, TrainResult

EXAMPLES = examples(
    "dfktrain run train.yaml --out runs/first",
    "dfktrain run train.yaml --out runs/second --set stages.0.learning_rate=1e-4 --set seed=7",
)


@leaves("{out} keeps every whole checkpoint; the same command goes on there")
def run_command(
    config: ConfigPath,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder of the run; an interrupted run continues there. Default: output: of the file.",
        ),
    ] = None,
    set_: Changes = None,
    override: OverrideFiles = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            help="Continue from hf://ORG/NAME@REV, where dfktrain push --checkpoint sent a stopped run. "
            "A folder that is already as far continues from its own state.",
        ),
    ] = None,
) -> None:
    """Train an adapter: DIR/adapter, DIR/stages/NAME/adapter, DIR/run.json; with an evaluate: section, then
    ask base and tuned model and compare."""
    quiet()
    settings = load_config(config, set_, override)
    folder = _folder(settings, out, config)
    require_packages()
    from dfktrain.training import evaluation_plan
    from dfktrain.training.run import train

    evaluation_plan.check(settings)
    _print_precision(settings)
    _print_slow_kernels(settings)
    if resume is not None:
        from dfktrain.training.hub_resume import restore

        say(f"resume: {folder} continues after {restore(resume, folder)}")
    steps: list[int] = []
    bar = progress_bar()

    def progress(at: TrainingProgress) -> None:
        steps.append(at.step)
        if bar is not None:
            bar(at)

    with writing_weights(folder):
        result = train(settings, folder, progress=progress)
    if not is_main_process():
        return
    if steps:
        _print_stages(result, folder)
    else:
        stages = ", ".join(f"{stage.name} {stage.steps} steps" for stage in result.stages)
        write(f"{folder} holds this run, finished ({stages}); nothing to train\n")
    if settings.evaluate is not None:
        _evaluate(settings, folder, result.adapter)


def _folder(settings: TrainConfig, out: Path | None, config: Path) -> Path:
    if out is None and settings.output is None:
        raise ConfigError(
            f"{config}: names no folder for the run. Give --out DIR, or write output: DIR in {config}"
        )
    return out if out is not None else Path(str(settings.output))


def _print_precision(settings: TrainConfig) -> None:
    """Print the chosen precision and why: nobody should find out later that a run was in fp32."""
    from dfktrain.engines import select_precision

    precision, why = select_precision(settings.precision)
    if is_main_process():
        say(f"precision {precision}: {why}")


def _print_slow_kernels(settings: TrainConfig) -> None:
    """Print which kernels of the network are slow ones on this GPU, and what that costs."""
    import torch

    from dfkeval.models.source import model_source
    from dfktrain.engines import kernels, model_config, select_engine

    # Unsloth has kernels of its own, and must be imported before what reads a model's configuration
    if (
        not torch.cuda.is_available()
        or not is_main_process()
        or select_engine(settings.engine)[0] != "transformers"
    ):
        return
    kind = model_config(model_source(settings.model.name)).model_type
    for kernel in kernels(kind, settings.model.attention, fused=settings.fused_layers is not False):
        if kernel.cost:
            say(f"slow kernel, {kernel.part}: {kernel.choice}: {kernel.why}. Cost: {kernel.cost}")


def _print_stages(result: TrainResult, folder: Path) -> None:
    from dfktrain.reports.curves import PAGE, from_stage

    for stage in result.stages:
        losses = [line["loss"] for line in stage.history if "loss" in line]
        write(
            f"{stage.name}: {stage.steps} steps, {stage.tokens:,} tokens ({stage.scored_tokens:,} scored), "
            f"loss {losses[0]:.4f} -> {losses[-1]:.4f}, {stage.seconds:.0f} s\n"
        )
        write(f"  {from_stage(asdict(stage)).diagnosis.text}\n")
        for part, reason in stage.fused.items():
            if reason != "on":
                write(f"  not fused: {part}: {reason}\n")
    write(f"curves: {folder / PAGE}\nadapter: {result.adapter}\n")


def _evaluate(settings: TrainConfig, out: Path, trained: Path) -> None:
    """Print the table of base against tuned model."""
    from dfktrain.experiments import evaluate
    from dfktrain.reports import model_card

    bar = Progress("answers")
    try:
        scores = evaluate.score(settings, out, trained, lambda who, done, total: bar(done, total, who))
    except DfkError as error:
        error.add_note(
            f"the weights are saved in {trained}; the same command scores them without training again, also "
            "with changes such as --set 'evaluate.set=[\"metrics=[validity]\"]'"
        )
        raise
    model_card.write(out)  # a second time, now with the table
    write("\n")
    scores.write()
    write(f"report: {scores.report}\n")
    for notice in scores.notices():
        say(f"dfktrain: {notice}")
    if scores.is_unscored:
        raise typer.Exit(1)
