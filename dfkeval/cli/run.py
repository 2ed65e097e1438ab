"""`dfkeval run`: ask every row, score the answers, and write the run directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkdata.common.console import examples, say, write
from dfkdata.common.faults import leaves
from dfkdata.common.progress import Progress
from dfkeval.cli._output import (
    All,
    FailIf,
    exit_if_gates_fail,
    exit_if_unscored,
    write_notices,
)
from dfkeval.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from dfkeval.runs.run import Run

EXAMPLES = examples(
    "dfkeval run eval.yaml --out runs/base",
    "dfkeval run eval.yaml --out runs/tuned --set backend.adapter=train/adapter",
)


@leaves("{out} keeps every answer that came; the same command goes on there")
def run_command(
    config: Annotated[
        Path, typer.Argument(help="The evaluation configuration, a YAML file.", metavar="CONFIG")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run; an interrupted run goes on there.")],
    overwrite: Annotated[bool, typer.Option(help="Throw away another run's answers in that folder.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace one key: sampling.max_new_tokens=64. May be repeated."),
    ] = None,
    fail_if: FailIf = None,
    shard: Annotated[str | None, typer.Option(help="Only this part of the rows: 3/16.")] = None,
    scaffold: Annotated[
        Path | None,
        typer.Option(help="A task_1 file whose system text and tools replace the rows' own."),
    ] = None,
    all_: All = False,
) -> None:
    """Ask every row, score the answers, and write the run directory with its report."""
    from dfkeval import reports
    from dfkeval.analysis import comparison, gates
    from dfkeval.evaluation import modes

    quiet_libraries()
    conditions = [gates.gate(text) for text in fail_if or ()]
    changes = [*(set_ or ()), *([f"shard={shard}"] if shard else [])]
    changes += [f"scaffold={scaffold.resolve()}"] if scaffold else []
    bars: list[Progress] = []

    def bar(mode: str) -> Progress:
        bars.append(Progress("answers" if mode == "free" else f"{mode} answers"))
        return bars[-1]

    runs = modes.evaluate_modes(config, out, overwrite=overwrite, overrides=changes, progress=bar)
    if not any(bar.first for bar in bars):
        say(f"dfkeval: {out} holds every answer of this run; nothing to ask")
    if len(runs) == 1:
        reports.write_metrics(runs[0], every=all_)
        write("\n")
    else:
        for other in runs[1:]:
            reports.write_comparison(comparison.compare(runs[0], other), every=all_)
        write(f"comparison: {out / modes.COMPARISON_HTML}\n")
    write("".join(f"report: {run.folder / 'report.html'}\n" for run in runs))
    for run in runs:
        write_notices(run)
    _exit_if_requests_failed(runs)
    for run in runs:
        exit_if_gates_fail(conditions, run)
    exit_if_unscored(runs)


def _exit_if_requests_failed(runs: Sequence[Run]) -> None:
    """Exit with 1 if more requests of a run failed than it allows."""
    over = [run for run in runs if run.failed_share > run.config.max_failures]
    for run in over:
        say(
            f"dfkeval: {run.name}: {run.failed_share:.1%} of the requests failed "
            f"(allowed: {run.config.max_failures:.1%}); run the same command again to ask only these"
        )
    if over:
        raise typer.Exit(1)
