"""`dfkeval compare`: paired differences between runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkdata.common.console import examples, write
from dfkdata.common.csv_files import write_csv
from dfkdata.pages.words import Language
from dfkeval.cli._output import All
from dfkeval.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from dfkeval.analysis.comparison import Comparison

EXAMPLES = examples(
    "dfkeval compare runs/base runs/tuned", "dfkeval compare runs/a runs/b runs/c --table differences.csv"
)


def compare_command(
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
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the comparison as a page with every sample.")
    ] = None,
    lang: Annotated[
        Language | None, typer.Option(help="Language of the words on the page; default: the last run's.")
    ] = None,
    redact: Annotated[
        bool,
        typer.Option(
            "--redact", help="Mask handles, links, phone numbers and e-mail on the page, and blur pictures."
        ),
    ] = False,
    table: Annotated[
        Path | None, typer.Option("--table", help="Write every difference with its interval and p, as CSV.")
    ] = None,
    all_: All = False,
) -> None:
    """Print paired differences on the rows that the runs have in common.

    A folder of runs stands for repeats of one model (other seeds): their means are compared."""
    from dfkeval import reports
    from dfkeval.analysis import comparison

    if len(runs) < 2:
        raise typer.BadParameter("name two runs or more", param_hint="RUN_A RUN_B...")
    quiet_libraries()
    comparisons = comparison.compare_all(runs[0], runs[1:])
    for pair in comparisons:
        reports.write_comparison(pair, every=all_)
    if html is not None:
        _write_page(html, runs, comparisons, lang, redact)
    if csv_ is not None:
        _write_changed(csv_, comparisons)
    if table is not None:
        write_csv(table, *comparison.table(comparisons))


def _write_page(
    path: Path, groups: Sequence[Path], comparisons: Sequence[Comparison], lang: Language | None, redact: bool
) -> None:
    from dfkdata.common import json_files
    from dfkeval import reports
    from dfkeval.analysis.comparison import runs_of

    runs = [run for group in groups for run in runs_of(group)]
    title = " · ".join(dict.fromkeys([comparisons[0].a, *(pair.b for pair in comparisons)]))
    parts = reports.page_parts(title, runs, comparisons, lang=lang, redact=redact or None)
    json_files.write_parts(path, parts)
    write(f"page: {path}\n")


def _write_changed(path: Path, comparisons: Sequence[Comparison]) -> None:
    header = ("run", "against", "id", "outcome_before", "outcome_after", "text_before", "text_after")
    rows = (
        (pair.b, pair.a, change.id, change.before.outcome, change.after.outcome, change.before.text,
         change.after.text)
        for pair in comparisons
        for change in pair.changed
    )  # fmt: skip
    write_csv(path, header, rows)
