"""What several commands print, and the conditions on which they exit with 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkdata.common.console import say

if TYPE_CHECKING:
    from dfkeval.analysis.gates import Gate
    from dfkeval.runs.run import Run

RunDir = Annotated[Path, typer.Argument(help="A folder that `dfkeval run` wrote.", metavar="RUN_DIR")]
FailIf = Annotated[
    list[str] | None,
    typer.Option("--fail-if", help="Exit 1 when this holds: 'labels.macro_f1.low < 0.8'. May be repeated."),
]

All = Annotated[bool, typer.Option("--all", help="Print all values, not only the headline ones.")]


def write_notices(run: Run) -> None:
    """Write on stderr what limits the numbers of a run."""
    from dfkeval import reports

    for notice in reports.notices(run.summary):
        say(f"dfkeval: {run.name}: {notice}")


def exit_if_unscored(runs: Sequence[Run]) -> None:
    """Exit with 1 if a metric of a whole run scored none of its answers; `write_notices` names it."""
    whole = [run for run in runs if run.config.shard is None]
    if any(run.summary["unscored"] and any(sample.answered for sample in run.samples) for run in whole):
        raise typer.Exit(1)


def exit_if_gates_fail(gates: Sequence[Gate], run: Run) -> None:
    """Name the conditions of `--fail-if` that hold for a run, and exit with 1 if any does."""
    failed = [gate for gate in gates if gate.fails(run.summary)]
    for gate in failed:
        value = run.summary["metrics"][gate.metric][gate.part]
        say(f"dfkeval: {gate.metric}.{gate.part} is {value}, {gate.sign} {gate.bound}")
    if failed:
        raise typer.Exit(1)
