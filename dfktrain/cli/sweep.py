"""`dfktrain sweep`: train every combination of values with every seed, and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfkdata.common.console import examples, say, write
from dfkdata.common.errors import ConfigError
from dfkdata.common.faults import leaves
from dfkdata.common.tables import write_table
from dfktrain.cli._common import ConfigPath

EXAMPLES = examples(
    "dfktrain sweep train.yaml --out sweeps/rate --vary stages.0.learning_rate=1e-4,2e-4 --seeds 1,2",
    "dfktrain sweep train.yaml --out sweeps/plus --vary stages.0.sft_plus.lambda=0,0.1,0.2",
)


@leaves("{out} keeps every finished run and every whole checkpoint; the same command goes on there")
def sweep_command(
    config: ConfigPath,
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the sweep; an interrupted sweep continues there.")
    ],
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", help="place=value,value; several are combined. May be repeated."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of every point, separated by commas.")] = "42",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Replace one key in every point.")] = None,
    override: Annotated[
        list[str] | None, typer.Option("--override", help="File of changes of every point.")
    ] = None,
) -> None:
    """Train every combination with every seed, one process each, and end with one comparison."""
    from dfktrain.experiments import sweep

    plan = sweep.Sweep(
        config, sweep.points(vary or ()), _seeds(seeds), tuple(override or ()), tuple(set_ or ())
    )
    result = sweep.run(plan, out, say)
    write_table(sweep.table(result))
    write(f"\nreport: {out / 'report.html'}\n")
    if result.failed:
        names = "\n  ".join(f"{name}: {reason}" for name, reason in result.failed.items())
        say(f"dfktrain: {len(result.failed)} runs failed; the same command tries them again\n  {names}")
        raise typer.Exit(1)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--seeds {text!r}: write whole numbers with commas between: 1,2,3") from None
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {text!r}: a seed is written twice")
    return seeds
