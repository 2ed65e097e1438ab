"""`dfkeval score`: score a run again from its stored answers."""

from __future__ import annotations

from typing import Annotated

import typer

from dfkdata.common.console import examples
from dfkdata.common.faults import leaves
from dfkeval.cli._output import (
    All,
    FailIf,
    RunDir,
    exit_if_gates_fail,
    exit_if_unscored,
    write_notices,
)
from dfkeval.models.quiet import quiet_libraries

EXAMPLES = examples("dfkeval score runs/tuned", "dfkeval score runs/tuned --metric validity --metric labels")


@leaves("{folder} keeps its answers; the same command scores them again")
def score_command(
    folder: RunDir,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Another metric than the run's. May be repeated.")
    ] = None,
    fail_if: FailIf = None,
    all_: All = False,
) -> None:
    """Score a run again from its stored answers; no model is needed."""
    from dfkeval import reports
    from dfkeval.analysis import gates
    from dfkeval.evaluation import evaluate

    quiet_libraries()
    conditions = [gates.gate(text) for text in fail_if or ()]
    run = evaluate.score(folder, metrics=metric)
    reports.write_metrics(run, every=all_)
    write_notices(run)
    exit_if_gates_fail(conditions, run)
    exit_if_unscored([run])
