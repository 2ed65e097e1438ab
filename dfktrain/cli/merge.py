"""`dfktrain merge`: merge an adapter into its base and verify it, or blend several adapters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkdata.common.console import examples, write
from dfkdata.common.errors import ConfigError
from dfkdata.common.faults import leaves
from dfkdata.common.tables import TextTable, write_table
from dfktrain.cli._common import quiet, require_packages, say_indented, writing_weights

if TYPE_CHECKING:
    from dfktrain.merging.merge import MergeReport
    from dfktrain.merging.slerp import Blend

_SHOWN = 4
"""Number of metrics that are printed of a blend; the report has them all."""

EXAMPLES = examples(
    "dfktrain merge --base Qwen/Qwen3.5-0.8B --adapter runs/first/adapter --out models/first",
    "dfktrain merge --slerp runs/a/adapter --slerp runs/b/adapter --grid 5 --eval eval.yaml "
    "--out runs/blends",
)


@leaves("the adapters are as they were; the same command starts again")
def merge_command(
    out: Annotated[
        Path, typer.Option("--out", help="New folder: the model, or the blended adapter or adapters.")
    ],
    adapter: Annotated[Path | None, typer.Option(help="Folder of the LoRA adapter to merge.")] = None,
    base: Annotated[
        str | None, typer.Option(help='Its base: a folder, a hub name or "tiny"; default: the one it names.')
    ] = None,
    probes: Annotated[
        Path | None, typer.Option(help="Rows of the messages layout; the first eight are the probes.")
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option(help="Template of the training, if it is not the base's.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where the verification runs: auto, cpu, cuda.")] = "auto",
    slerp: Annotated[list[Path] | None, typer.Option(help="An adapter to blend. Give two or more.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weights of the adapters: 0.3,0.7. Default: equal.")
    ] = None,
    grid: Annotated[
        int | None, typer.Option(help="Number of evenly spaced weights between two adapters.")
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="Rank of the blend; default: the smallest without loss.")
    ] = None,
    eval_: Annotated[Path | None, typer.Option("--eval", help="Evaluation that scores every blend.")] = None,
) -> None:
    """Merge an adapter into its base and verify it (logits, KL and greedy tokens within the bf16 noise floor),
    or blend adapters by their weight change (--slerp)."""
    quiet()
    require_packages()
    blend_options = (weights, grid, rank, eval_)
    if slerp:
        if adapter is not None or base is not None:
            raise ConfigError(
                "--slerp writes an adapter; merge that one with --base and --adapter in a second step"
            )
        _blend(slerp, out, *blend_options)
        return
    if adapter is None:
        raise ConfigError("give --adapter FOLDER to merge, or --slerp FOLDER twice or more to blend")
    if any(option is not None for option in blend_options):
        raise ConfigError("--weights, --grid, --rank and --eval belong to --slerp")
    from dfktrain.merging.merge import merge_adapter

    with writing_weights(out):
        report = merge_adapter(
            base, adapter, out, probes=probes, chat_template=chat_template, device=device, say=say_indented
        )
    _write_merged(report)


def _write_merged(report: MergeReport) -> None:
    """Write the verification as a table, and where the model is."""
    figures = report.verification
    rows = {
        "noise floor (bf16, unmerged)": "floor",
        "merged in memory": "in_memory",
        "merged, reloaded": "reloaded",
        "merged, served in bf16": "served",
        "effect of the adapter": "effect",
    }
    write(f"{len(report.changed)} tensors changed, {report.kept} kept byte for byte\n\n")
    cells = [
        (title, f"{figures[key]['max_logit']:.3g}", f"{figures[key]['mean_kl']:.2e}", f"{figures[key]['greedy']:.1%}")
        for title, key in rows.items()
    ]  # fmt: skip
    write_table(TextTable(("against base + adapter, fp32", "max |logit|", "mean KL", "greedy"), cells))
    write("".join(f"\nnote: {note}" for note in report.notes) + "\n")
    write(f"verified on {figures['probes']} prompts, {figures['positions']} positions\nmodel: {report.out}\n")


def _blend(
    adapters: list[Path],
    out: Path,
    weights: str | None,
    grid: int | None,
    rank: int | None,
    evaluation: Path | None,
) -> None:
    from dfktrain.merging import slerp

    if weights is not None and grid is not None:
        raise ConfigError("--weights and --grid are both set; write one of them")
    if grid is not None:
        chosen = slerp.grid(len(adapters), grid)
    else:
        chosen = [_numbers(weights) if weights is not None else (1.0,) * len(adapters)]
    score = slerp.scorer(evaluation) if evaluation is not None else None
    with writing_weights(out):
        points = slerp.slerp_adapters(adapters, out, chosen, rank=rank, score=score, say=say_indented)
    write("\n".join([*map(_line, points), f"report: {out / slerp.REPORT}", ""]))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--weights {text!r}: write numbers with commas between them, such as 0.3,0.7"
        ) from error


def _line(point: Blend) -> str:
    from dfktrain.merging.slerp import name

    metrics = list((point.metrics or {}).items())[:_SHOWN]
    scores = "".join(f"  {key} {estimate['value']:.3f}" for key, estimate in metrics)
    error = f"error {point.error:.1e} (worst layer {point.worst_error:.1e})"
    cut = f"rank {point.rank} of {point.exact_rank}, {error}"
    return f"{name(point.weights)}: {cut}{scores}  {point.adapter}"
