"""`dfkeval report`: write the reports of a scored run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfkdata.common.console import examples, write
from dfkdata.common.faults import leaves
from dfkdata.pages.words import Language
from dfkeval.cli._output import RunDir
from dfkeval.models.quiet import quiet_libraries

EXAMPLES = examples("dfkeval report runs/tuned", "dfkeval report runs/tuned --against runs/base")


@leaves("{folder} keeps its answers and numbers; the same command writes the pages again")
def report_command(
    folder: RunDir,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Another run; the page then opens with the comparison. May be repeated."),
    ] = None,
    lang: Annotated[
        Language | None, typer.Option(help="Language of the words on the page; default: the run's.")
    ] = None,
    redact: Annotated[
        bool | None,
        typer.Option(
            "--redact/--no-redact",
            help="Mask handles, links, phone numbers and e-mail, and blur pictures; default: the run's.",
        ),
    ] = None,
) -> None:
    """Write report.md and report.html of a scored run again."""
    from dfkeval.evaluation import evaluate
    from dfkeval.runs.directory import RunDirectory
    from dfkeval.runs.run import load_run

    quiet_libraries()
    run = load_run(folder)
    others = [load_run(other) for other in against or ()]
    with RunDirectory(folder).alone(else_=""):
        evaluate.write_reports(run, others, lang, redact=redact)
    write(f"report: {folder / 'report.html'}\n")
