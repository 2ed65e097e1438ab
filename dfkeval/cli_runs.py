"""Commands over finished runs that are not part of asking and scoring: `dfkeval pool`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

POOL_EXAMPLES = (
    "Examples:\n\n  dfkeval pool runs/tuned-seed1 runs/tuned-seed2 runs/tuned-seed3\n\n"
    "  dfkeval pool runs/tuned --metric labels.macro_f1"
)


def pool_command(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Runs of one model on the same rows, or a folder of them.", metavar="RUN_DIR..."),
    ],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Values to show. May be repeated.")
    ] = None,
) -> None:
    """Several runs of one model (other seeds) as one result: the mean, its interval, and the runs' spread."""
    from dfkeval import report
    from dfkeval.pooling import pool
    from dfkeval.report import _format

    found = pool(list(runs))
    first, rest = _format.split(found.values)
    names = [name for name in metric or [*first, *rest] if name in found.values]
    rows = []
    for name in names:
        each = found.values[name]
        shown = " ".join(_format.number(value) for value in each.by_run)
        interval = _format.interval(each.low, each.high)
        rows.append((name, _format.number(each.value), interval, _format.number(each.spread), shown))
    header = ("metric", "mean", "interval", "spread", "by run")
    lost = "".join(f"; {count} left out: {reason}" for reason, count in found.left_out.items())
    notes = "".join(f"- {note}\n" for note in found.notes)
    sys.stdout.write(
        f"{', '.join(found.runs)}: {found.n} common rows{lost}\n\n"
        + "\n".join(report.table(header, rows))
        + f"\n{notes}"
    )
