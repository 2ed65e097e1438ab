"""`dfkeval run | score | compare | report | parse`: convert arguments, call one library function, print its
result.

Results go to stdout, progress to stderr. Exit 0 done, 1 done with more failed requests than allowed, 2
wrong usage."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkdata.common.errors import ConfigError, DfkError
from dfkdata.common.progress import Progress
from dfkeval.cli import init, label, serve
from dfkeval.cli.predict import EXAMPLES, predict_command
from dfkeval.cli.runs import (
    POOL_EXAMPLES,
    SAMPLES_EXAMPLES,
    TRACK_EXAMPLES,
    pool_command,
    samples_command,
    track_command,
)
from dfkeval.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from dfkeval.analysis.comparison import Comparison
    from dfkeval.analysis.gates import Gate
    from dfkeval.runs.run import Run

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Ask a model, read its answers, and score them."
)

RunDir = Annotated[Path, typer.Argument(help="A folder that `dfkeval run` wrote.", metavar="RUN_DIR")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Replace one key: sampling.max_new_tokens=64. May be repeated."),
]
FailIf = Annotated[
    list[str] | None,
    typer.Option("--fail-if", help="Exit 1 when this holds: 'labels.macro_f1.low < 0.8'. May be repeated."),
]
Metrics = Annotated[
    list[str] | None, typer.Option("--metric", help="Another metric than the run's. May be repeated.")
]


def _examples(*lines: str) -> str:
    return "Examples:\n\n" + "\n\n".join(f"  {line}" for line in lines)


@app.command(
    epilog=_examples(
        "dfkeval run eval.yaml --out runs/base",
        "dfkeval run eval.yaml --out runs/tuned --set backend.adapter=train/adapter",
    )
)
def run(
    config: Annotated[
        Path, typer.Argument(help="The evaluation configuration, a YAML file.", metavar="CONFIG")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run; an interrupted run goes on there.")],
    overwrite: Annotated[bool, typer.Option(help="Throw away another run's answers in that folder.")] = False,
    set_: Overrides = None,
    fail_if: FailIf = None,
    shard: Annotated[str | None, typer.Option(help="Only this part of the rows: 3/16.")] = None,
    scaffold: Annotated[
        Path | None,
        typer.Option(help="A task_1 file whose system text and tools replace the rows' own."),
    ] = None,
) -> None:
    """Ask every row, score the answers, and write the run directory with its report."""
    from dfkeval import reports
    from dfkeval.analysis import gates
    from dfkeval.evaluation import modes

    quiet_libraries()
    conditions = [gates.gate(text) for text in fail_if or ()]
    changes = [*(set_ or ()), *([f"shard={shard}"] if shard else [])]
    changes += [f"scaffold={scaffold.resolve()}"] if scaffold else []
    runs = modes.evaluate_modes(
        config, out, overwrite=overwrite, overrides=changes, progress=lambda mode: Progress(f"{mode} answers")
    )
    if len(runs) == 1:
        _write("\n".join(reports.metric_rows(runs[0])) + "\n\n")
    else:
        _write((out / modes.COMPARISON_MD).read_text(encoding="utf-8") + "\n")
        _write(f"comparison: {out / modes.COMPARISON_HTML}\n")
    _write("".join(f"report: {done.folder / 'report.html'}\n" for done in runs))
    _refuse_failures(runs)
    for done in runs:
        _judge(conditions, done)


def _refuse_failures(runs: Sequence[Run]) -> None:
    """Exit 1 when more requests of a run failed than it allows."""
    over = [done for done in runs if done.failed_share > done.config.max_failures]
    for done in over:
        sys.stderr.write(
            f"dfkeval: {done.name}: {done.failed_share:.1%} of the requests failed "
            f"(allowed: {done.config.max_failures:.1%}); run the same command again to ask only these\n"
        )
    if over:
        raise typer.Exit(1)


@app.command(
    epilog=_examples("dfkeval score runs/tuned", "dfkeval score runs/tuned --metric validity --metric labels")
)
def score(folder: RunDir, metric: Metrics = None, fail_if: FailIf = None) -> None:
    """Score a run again from its stored answers; no model is needed."""
    from dfkeval import reports
    from dfkeval.analysis import gates
    from dfkeval.evaluation import evaluate

    quiet_libraries()
    conditions = [gates.gate(text) for text in fail_if or ()]
    done = evaluate.score(folder, metrics=metric)
    _write("\n".join(reports.metric_rows(done)) + "\n")
    _judge(conditions, done)


@app.command(
    epilog=_examples(
        "dfkeval compare runs/base runs/tuned", "dfkeval compare runs/a runs/b runs/c --table differences.csv"
    )
)
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more runs, or folders of repeats; each is compared with the first.",
            metavar="RUN_A RUN_B...",
        ),
    ],
    csv_: Annotated[
        Path | None, typer.Option("--csv", help="Write the samples whose answers differ.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", help="Write every difference with its interval and p, as CSV.")
    ] = None,
) -> None:
    """Paired differences on the rows that the runs have in common.

    A folder of runs stands for repeats of one model (other seeds): their means are compared."""
    from dfkeval import reports
    from dfkeval.analysis import comparison

    if len(runs) < 2:
        raise typer.BadParameter("name two runs or more", param_hint="RUN_A RUN_B...")
    quiet_libraries()
    found = comparison.compare_all(runs[0], runs[1:])
    for each in found:
        _write(f"{each.a} -> {each.b}, {each.n} common rows\n\n{reports.comparison_table(each)}\n\n")
    if csv_ is not None:
        _write_changed(csv_, found)
    if table is not None:
        _write_csv(table, *comparison.table(found))


@app.command(
    "report", epilog=_examples("dfkeval report runs/tuned", "dfkeval report runs/tuned --against runs/base")
)
def report_(
    folder: RunDir,
    against: Annotated[
        Path | None, typer.Option(help="Another run; the page then opens with the comparison.")
    ] = None,
) -> None:
    """Write report.md and report.html of a scored run again."""
    from dfkeval.evaluation import evaluate
    from dfkeval.runs.directory import RunDirectory
    from dfkeval.runs.run import load_run

    quiet_libraries()
    done = load_run(folder)
    others = [] if against is None else [load_run(against)]
    with RunDirectory(folder).alone(else_=""):
        evaluate.write_reports(done, others)
    _write(f"report: {folder / 'report.html'}\n")


app.command("init", epilog=init.EXAMPLES)(init.init_command)
app.command("label", epilog=label.EXAMPLES)(label.label_command)
app.command("serve", epilog=serve.EXAMPLES)(serve.serve_command)
app.command("predict", epilog=EXAMPLES)(predict_command)
app.command("pool", epilog=POOL_EXAMPLES)(pool_command)
app.command("samples", epilog=SAMPLES_EXAMPLES)(samples_command)
app.command("track", epilog=TRACK_EXAMPLES)(track_command)
if importlib.util.find_spec("dfkeval.cli.parse") is not None:
    app.command("parse")(importlib.import_module("dfkeval.cli.parse").parse_command)


@app.command(
    "merge-runs",
    epilog=_examples(
        "dfkeval merge-runs runs/part1 runs/part2 --out runs/whole",
        "dfkeval merge-runs runs/shard-* --out runs/whole --overwrite",
    ),
)
def merge_runs(
    runs: Annotated[list[Path], typer.Argument(help="All the shards of one run.", metavar="RUN_DIR...")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the whole run.")],
    overwrite: Annotated[bool, typer.Option(help="Throw away another run in that folder.")] = False,
) -> None:
    """Put the shards of one run together and score them as a whole."""
    from dfkeval import reports
    from dfkeval.evaluation import shards

    quiet_libraries()
    done = shards.merge(runs, out, overwrite=overwrite)
    _write("\n".join(reports.metric_rows(done)) + f"\n\nreport: {out / 'report.html'}\n")


@app.command(epilog=_examples("dfkeval history runs", "dfkeval history runs --metric labels.f1.fitnah"))
def history(
    folder: Annotated[Path, typer.Argument(help="A folder of runs.", metavar="DIR")],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Values to show. May be repeated.")
    ] = None,
) -> None:
    """The trend of a folder of runs, oldest first."""
    from dfkeval import reports
    from dfkeval.analysis import history as trends

    header, rows = trends.history(folder, metric or ())
    _write("\n".join(reports.table(header, rows)) + "\n")


@app.command(
    epilog=_examples(
        "dfkeval suspects runs/a runs/b", "dfkeval suspects runs/tuned --least 0.9 --csv check.csv"
    )
)
def suspects(
    runs: Annotated[list[Path], typer.Argument(help="Runs on the same rows.", metavar="RUN_A [RUN_B...]")],
    csv_: Annotated[Path | None, typer.Option("--csv", help="Write the list to this file.")] = None,
    least: Annotated[
        float, typer.Option("--least", help="Only rows that the runs are at least so sure of, from 0 to 1.")
    ] = 0.0,
) -> None:
    """Rows whose gold label all runs contradict alike: likely label errors, for checking again."""
    from dfkeval import reports
    from dfkeval.analysis import label_errors
    from dfkeval.runs.run import load_run

    found = label_errors.suspects([load_run(path) for path in runs], least)
    header = ("id", "gold", "answered", "runs", "confidence", "text")
    rows = [
        (each.id, each.gold, each.said, str(each.runs), reports.number(each.confidence), each.source_text)
        for each in found
    ]
    if csv_ is not None:
        _write_csv(csv_, header, rows)
    _write("\n".join(reports.table(header[:5], [row[:5] for row in rows])) + f"\n\n{len(rows)} rows\n")


def _judge(conditions: Sequence[Gate], done: Run) -> None:
    """Exit 1 with the conditions that hold."""
    failed = [each for each in conditions if each.fails(done.summary)]
    for each in failed:
        value = done.summary["metrics"][each.metric][each.part]
        sys.stderr.write(f"dfkeval: {each.metric}.{each.part} is {value}, {each.sign} {each.bound}\n")
    if failed:
        raise typer.Exit(1)


def _write_changed(path: Path, found: Sequence[Comparison]) -> None:
    header = ("run", "against", "id", "outcome_before", "outcome_after", "text_before", "text_after")
    rows = [
        (each.b, each.a, change.id, change.before.outcome, change.after.outcome, change.before.text,
         change.after.text)
        for each in found
        for change in each.changed
    ]  # fmt: skip
    _write_csv(path, header, rows)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Raises `ConfigError` where the file cannot be written."""
    try:
        with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
            csv.writer(file).writerows([header, *rows])
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error


def _write(text: str) -> None:
    sys.stdout.write(text)


def main() -> None:
    """The console command: a `DfkError` becomes one message on stderr and exit 2."""
    try:
        app()
    except DfkError as error:
        sys.stderr.write(f"dfkeval: {error}\n")
        raise SystemExit(2) from error
