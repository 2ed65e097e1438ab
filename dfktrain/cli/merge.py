"""`dfktrain merge`: an adapter into its base, with the proof; or several adapters into one, blended on the
sphere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkdata.common.console import examples
from dfkdata.common.errors import ConfigError
from dfktrain.cli._common import quiet, require_packages, say

if TYPE_CHECKING:
    from dfktrain.merging.merge import MergeReport
    from dfktrain.merging.slerp import Blend

_SHOWN = 4
"""Metrics of a blend on the command line."""

EXAMPLES = examples(
    "dfktrain merge --base Qwen/Qwen3.5-0.8B --adapter runs/first/adapter --out models/first",
    "dfktrain merge --slerp runs/a/adapter --slerp runs/b/adapter --grid 5 --eval eval.yaml "
    "--out runs/blends",
)


def merge_command(
    out: Annotated[
        Path, typer.Option("--out", help="New folder: the model, or the blended adapter or adapters.")
    ],
    adapter: Annotated[Path | None, typer.Option(help="Folder of the LoRA adapter to merge.")] = None,
    base: Annotated[
        str | None, typer.Option(help='Its base: a folder, a hub name or "tiny"; default: the one it names.')
    ] = None,
    probes: Annotated[
        Path | None, typer.Option(help="Rows of the messages layout; the proof asks the first eight of them.")
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option(help="The template of the training, where it was not the base's.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where the proof runs: auto, cpu, cuda.")] = "auto",
    slerp: Annotated[list[Path] | None, typer.Option(help="An adapter to blend. Give two or more.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Of the blended adapters: 0.3,0.7. Default: equal.")
    ] = None,
    grid: Annotated[int | None, typer.Option(help="Blend at so many evenly spaced weights an edge.")] = None,
    rank: Annotated[
        int | None, typer.Option(help="Rank of the blend; default: the smallest without loss.")
    ] = None,
    eval_: Annotated[Path | None, typer.Option("--eval", help="Evaluation that scores every blend.")] = None,
) -> None:
    """Merge an adapter into its base and prove it (logits, KL and greedy tokens within the bf16 noise floor),
    or blend adapters on their weight change (--slerp)."""
    quiet()
    require_packages()
    blend = (weights, grid, rank, eval_)
    if slerp:
        if adapter is not None or base is not None:
            raise ConfigError(
                "--slerp writes an adapter; merge that one with --base and --adapter in a second step"
            )
        _blend(slerp, out, *blend)
        return
    if adapter is None:
        raise ConfigError("give --adapter FOLDER to merge, or --slerp FOLDER twice or more to blend")
    if any(each is not None for each in blend):
        raise ConfigError("--weights, --grid, --rank and --eval belong to --slerp")
    from dfktrain.merging.merge import merge_adapter

    report = merge_adapter(
        base, adapter, out, probes=probes, chat_template=chat_template, device=device, say=say
    )
    sys.stdout.write(_merged(report))


def _merged(report: MergeReport) -> str:
    """The proof as a table, and where the model is."""
    proof = report.verification
    rows = {
        "noise floor (bf16, unmerged)": "floor",
        "merged in memory": "in_memory",
        "merged, reloaded": "reloaded",
        "merged, served in bf16": "served",
        "effect of the adapter": "effect",
    }
    lines = [f"{len(report.changed)} tensors changed, {report.kept} kept byte for byte"]
    lines.append(f"{'against base + adapter, fp32':<30} {'max |logit|':>11} {'mean KL':>10} {'greedy':>7}")
    for title, key in rows.items():
        found = proof[key]
        lines.append(
            f"{title:<30} {found['max_logit']:>11.3g} {found['mean_kl']:>10.2e} {found['greedy']:>7.1%}"
        )
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join(
        [
            *lines,
            f"proved on {proof['probes']} prompts, {proof['positions']} positions",
            f"model: {report.out}",
            "",
        ]
    )


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
    points = slerp.slerp_adapters(adapters, out, chosen, rank=rank, score=score, say=say)
    sys.stdout.write("\n".join([*map(_line, points), f"report: {out / slerp.REPORT}", ""]))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(each) for each in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--weights {text!r}: write numbers with commas between them, such as 0.3,0.7"
        ) from error


def _line(point: Blend) -> str:
    from dfktrain.merging.slerp import name

    shown = list((point.metrics or {}).items())[:_SHOWN]  # the report has them all
    scores = "".join(f"  {key} {found['value']:.3f}" for key, found in shown)
    error = f"error {point.error:.1e} (worst layer {point.worst_error:.1e})"
    cut = f"rank {point.rank} of {point.exact_rank}, {error}"
    return f"{name(point.weights)}: {cut}{scores}  {point.adapter}"
