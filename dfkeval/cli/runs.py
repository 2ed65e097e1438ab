"""Commands over finished runs: `dfkeval pool | samples | track | history | suspects`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfkdata.common.console import examples, write
from dfkdata.common.csv_files import write_csv
from dfkdata.common.tables import TextTable, write_table
from dfkeval.cli._output import All

POOL_EXAMPLES = examples(
    "dfkeval pool runs/tuned-seed1 runs/tuned-seed2 runs/tuned-seed3",
    "dfkeval pool runs/tuned --metric labels.macro_f1",
)
SAMPLES_EXAMPLES = examples(
    "dfkeval samples runs/tuned --out samples.parquet",
    "dfkeval samples runs/tuned --out wrong.csv --outcome schema_invalid",
)
TRACK_EXAMPLES = examples(
    "dfkeval track runs/step100 runs/step200 --to tensorboard --folder logs",
    "WANDB_MODE=offline dfkeval track runs/tuned --to wandb",
)
HISTORY_EXAMPLES = examples("dfkeval history runs", "dfkeval history runs --metric labels.f1.fitnah")
SUSPECTS_EXAMPLES = examples(
    "dfkeval suspects runs/a runs/b", "dfkeval suspects runs/tuned --least 0.9 --csv check.csv"
)


def pool_command(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Runs of one model on the same rows, or a folder of them.", metavar="RUN_DIR..."),
    ],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Values to show. May be repeated.")
    ] = None,
    all_: All = False,
) -> None:
    """Pool several runs of one model (other seeds): print the mean, its interval, and the runs' spread."""
    from dfkeval.analysis.history import check_names
    from dfkeval.analysis.pooling import pool
    from dfkeval.reports import formatting

    pooled = pool(list(runs))
    first, rest = formatting.split(pooled.values)
    check_names(metric or (), pooled.values)
    rows = []
    for name in metric or (first + rest if all_ else formatting.leading(pooled.values)):
        value = pooled.values[name]
        by_run = " ".join(formatting.number(number) for number in value.by_run)
        interval = formatting.interval(value.low, value.high)
        rows.append((name, formatting.number(value.value), interval, formatting.number(value.spread), by_run))
    header = ("metric", "mean", "interval", "spread", "by run")
    left_out = "".join(f"; {count} left out: {reason}" for reason, count in pooled.left_out.items())
    write(f"{', '.join(pooled.runs)}: {pooled.n} common rows{left_out}\n\n")
    write_table(TextTable(header, rows))
    write("".join(f"{note}\n" for note in pooled.notes))
    if not metric and (more := len(pooled.values) - len(rows)):
        write(f"{more} more values with --all\n")


def samples_command(
    folder: Annotated[Path, typer.Argument(help="A scored run.", metavar="RUN_DIR")],
    out: Annotated[Path, typer.Option("--out", help="File to write: .parquet, .csv or .jsonl.")],
    outcome: Annotated[
        list[str] | None, typer.Option("--outcome", help="Only samples with this outcome. May be repeated.")
    ] = None,
) -> None:
    """Write the graded samples as a table for other tools, one row a sample."""
    from dfkdata.common.errors import ConfigError
    from dfkeval.analysis.export import write_samples
    from dfkeval.runs.directory import RunDirectory
    from dfkeval.types import OUTCOMES

    unknown = [name for name in outcome or () if name not in OUTCOMES]
    if unknown:
        raise ConfigError(f"--outcome {unknown[0]}: not one of {', '.join(OUTCOMES)}")
    samples = [
        sample for sample in RunDirectory(folder).samples() if not outcome or sample.outcome in outcome
    ]
    write(f"{len(samples)} samples: {write_samples(samples, out)}\n")


def track_command(
    runs: Annotated[
        list[Path], typer.Argument(help="Scored runs; the first is step 0.", metavar="RUN_DIR...")
    ],
    to: Annotated[list[str], typer.Option("--to", help="tensorboard or wandb. May be repeated.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Folder of the files; default: each run's own folder.")
    ] = None,
) -> None:
    """Put the numbers of scored runs into a tracker; nothing else of them leaves the machine."""
    from dfkeval.reports import trackers
    from dfkeval.runs.run import load_run

    trackers.check(to)
    for step, path in enumerate(runs):
        for place in trackers.send(load_run(path), to, step=step, folder=folder):
            write(f"{path}: {place}\n")


def history_command(
    folder: Annotated[Path, typer.Argument(help="A folder of runs.", metavar="DIR")],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Values to show. May be repeated.")
    ] = None,
) -> None:
    """Print the trend of a folder of runs, oldest first."""
    from dfkeval.analysis import history

    header, rows, broken = history.history(folder, metric or ())
    write_table(TextTable(header, rows, spare=header[:2:-1]))
    write("".join(f"{error}\n" for error in broken))


def suspects_command(
    runs: Annotated[list[Path], typer.Argument(help="Runs on the same rows.", metavar="RUN_A [RUN_B...]")],
    csv_: Annotated[Path | None, typer.Option("--csv", help="Write the list to this file.")] = None,
    least: Annotated[
        float,
        typer.Option("--least", help="Only rows of which the runs are at least this sure, from 0 to 1."),
    ] = 0.0,
) -> None:
    """List rows whose gold label all runs contradict alike: likely label errors, to be checked again."""
    from dfkeval import reports
    from dfkeval.analysis import label_errors
    from dfkeval.analysis.comparison import runs_of

    suspects = label_errors.suspects(runs_of(runs), least)
    header = ("id", "gold", "answered", "runs", "confidence", "text")
    rows = [
        (row.id, row.gold, row.answered, str(row.runs), reports.number(row.confidence), row.source_text)
        for row in suspects
    ]
    if csv_ is not None:
        write_csv(csv_, header, rows)
    write_table(TextTable(header[:5], [row[:5] for row in rows]))
    write(f"\n{len(rows)} rows\n")
