"""`dfkeval merge-runs`: put the shards of one run together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfkdata.common.console import examples, write
from dfkdata.common.faults import leaves
from dfkeval.cli._output import All, exit_if_unscored, write_notices
from dfkeval.models.quiet import quiet_libraries

EXAMPLES = examples(
    "dfkeval merge-runs runs/part1 runs/part2 --out runs/whole",
    "dfkeval merge-runs runs/shard-* --out runs/whole --overwrite",
)


@leaves("the shards are as they were; the same command with --overwrite puts them together again")
def merge_runs_command(
    runs: Annotated[list[Path], typer.Argument(help="All the shards of one run.", metavar="RUN_DIR...")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the whole run.")],
    overwrite: Annotated[bool, typer.Option(help="Throw away another run in that folder.")] = False,
    all_: All = False,
) -> None:
    """Put the shards of one run together and score them as a whole."""
    from dfkeval import reports
    from dfkeval.evaluation import shards

    quiet_libraries()
    run = shards.merge(runs, out, overwrite=overwrite)
    reports.write_metrics(run, every=all_)
    write(f"\nreport: {out / 'report.html'}\n")
    write_notices(run)
    exit_if_unscored([run])
