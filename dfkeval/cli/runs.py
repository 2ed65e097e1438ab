"""Commands over finished runs that are not part of asking and scoring: `dfkeval pool | samples | track`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

POOL_EXAMPLES = (
    "Examples:\n\n  dfkeval pool runs/tuned-seed1 runs/tuned-seed2 runs/tuned-seed3\n\n"
    "  dfkeval pool runs/tuned --metric labels.macro_f1"
)

SAMPLES_EXAMPLES = (
    "Examples:\n\n  dfkeval samples runs/tuned --out samples.parquet\n\n"
    "  dfkeval samples runs/tuned --out wrong.csv --outcome schema_invalid"
)
TRACK_EXAMPLES = (
    "Examples:\n\n  dfkeval track runs/step100 runs/step200 --to tensorboard --folder logs\n\n"
    "  WANDB_MODE=offline dfkeval track runs/tuned --to wandb"
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
    from dfkeval import reports
    from dfkeval.analysis.history import refuse_unknown
    from dfkeval.analysis.pooling import pool
    from dfkeval.reports import formatting

    found = pool(list(runs))
    first, rest = formatting.split(found.values)
    refuse_unknown(metric or (), found.values)
    rows = []
    for name in metric or [*first, *rest]:
        each = found.values[name]
        shown = " ".join(formatting.number(value) for value in each.by_run)
        interval = formatting.interval(each.low, each.high)
        rows.append((name, formatting.number(each.value), interval, formatting.number(each.spread), shown))
    header = ("metric", "mean", "interval", "spread", "by run")
    lost = "".join(f"; {count} left out: {reason}" for reason, count in found.left_out.items())
    notes = "".join(f"- {note}\n" for note in found.notes)
    sys.stdout.write(
        f"{', '.join(found.runs)}: {found.n} common rows{lost}\n\n"
        + "\n".join(reports.table(header, rows))
        + f"\n{notes}"
    )


def samples_command(
    folder: Annotated[Path, typer.Argument(help="A scored run.", metavar="RUN_DIR")],
    out: Annotated[Path, typer.Option("--out", help="File to write: .parquet, .csv or .jsonl.")],
    outcome: Annotated[
        list[str] | None, typer.Option("--outcome", help="Only samples with this outcome. May be repeated.")
    ] = None,
) -> None:
    """The judged samples as a table for other tools, one row a sample."""
    from dfkdata.common.errors import ConfigError
    from dfkeval.analysis.export import write_samples
    from dfkeval.runs.directory import RunDirectory
    from dfkeval.types import OUTCOMES

    unknown = [name for name in outcome or () if name not in OUTCOMES]
    if unknown:
        raise ConfigError(f"--outcome {unknown[0]}: not one of {', '.join(OUTCOMES)}")
    kept = [each for each in RunDirectory(folder).samples() if not outcome or each.outcome in outcome]
    sys.stdout.write(f"{len(kept)} samples: {write_samples(kept, out)}\n")


def track_command(
    runs: Annotated[
        list[Path], typer.Argument(help="Scored runs; the first is step 0.", metavar="RUN_DIR...")
    ],
    to: Annotated[list[str], typer.Option("--to", help="tensorboard or wandb. May be repeated.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where files go; each run's own folder without it.")
    ] = None,
) -> None:
    """Put the numbers of scored runs into a tracker; nothing else of them leaves the machine."""
    from dfkeval.reports import trackers
    from dfkeval.runs.run import load_run

    trackers.check(to)
    for step, path in enumerate(runs):
        for place in trackers.send(load_run(path), to, step=step, folder=folder):
            sys.stdout.write(f"{path}: {place}\n")
