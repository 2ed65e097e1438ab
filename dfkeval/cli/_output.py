"""What several commands print, and the conditions on which they exit with 1."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkdata.common.errors import ConfigError

if TYPE_CHECKING:
    from dfkeval.analysis.gates import Gate
    from dfkeval.runs.run import Run

RunDir = Annotated[Path, typer.Argument(help="A folder that `dfkeval run` wrote.", metavar="RUN_DIR")]
FailIf = Annotated[
    list[str] | None,
    typer.Option("--fail-if", help="Exit 1 when this holds: 'labels.macro_f1.low < 0.8'. May be repeated."),
]


def write(text: str) -> None:
    """Print a result."""
    sys.stdout.write(text)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table. Raises `ConfigError` if the file cannot be written."""
    try:
        with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
            csv.writer(file).writerows([header, *rows])
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error


def write_notices(run: Run) -> None:
    """Write on stderr what limits the numbers of a run."""
    from dfkeval import reports

    for notice in reports.notices(run.summary):
        sys.stderr.write(f"dfkeval: {run.name}: {notice}\n")


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
        sys.stderr.write(f"dfkeval: {gate.metric}.{gate.part} is {value}, {gate.sign} {gate.bound}\n")
    if failed:
        raise typer.Exit(1)
