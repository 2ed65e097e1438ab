"""`dfktrain curves`: draw the page and the pictures of a finished run again from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfkdata.common.console import examples, write
from dfkdata.common.json_files import read_json
from dfkdata.pages.words import Language

EXAMPLES = examples("dfktrain curves runs/first", "dfktrain curves runs/first --out paper --lang id")


def curves_command(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", metavar="RUN")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to draw. Default: into the run's folder.")
    ] = None,
    lang: Annotated[
        Language | None, typer.Option(help="Language of the words on the page; default: the run's.")
    ] = None,
) -> None:
    """Draw a run's loss curves again and say what they mean: training.html, and a PNG and an SVG for each stage."""
    from dfktrain.reports import curves
    from dfktrain.reports.curves import plot

    stages = curves.stage_curves(run)
    words = lang or read_json(run / "run.json")["config"].get("lang", "en")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    page = curves.write((out or run) / curves.PAGE, run.resolve().name, stages, finished=True, lang=words)
    for stage in stages:
        home = run / "stages" / stage.name / "curves" if out is None else out / stage.name
        for suffix in plot.FORMATS:
            plot.draw(stage, home.with_name(home.name + suffix))
        write(f"{stage.name}: {stage.diagnosis.text}\n")
    write(f"page: {page}\n")
