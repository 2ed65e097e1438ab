"""`dfkeval view`: a local page over many runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfkdata.common.console import examples, say
from dfkdata.common.errors import missing_package
from dfkdata.common.status_line import now
from dfkdata.pages.words import Language
from dfkeval.models.quiet import quiet_libraries

EXAMPLES = examples("dfkeval view runs", "dfkeval view runs/base runs/tuned sweeps/rate --port 8081 --redact")
HOST = "127.0.0.1"


def view_command(
    folders: Annotated[
        list[Path], typer.Argument(help="Runs, or folders that hold some at any depth.", metavar="DIR...")
    ],
    port: Annotated[int, typer.Option(help="Port on this machine to listen on.", min=0, max=65_535)] = 8090,
    lang: Annotated[
        Language | None, typer.Option(help="Language of the words; default: English, and each run's own.")
    ] = None,
    redact: Annotated[
        bool,
        typer.Option("--redact", help="Mask handles, links, phone numbers and e-mail, and blur pictures."),
    ] = False,
) -> None:
    """Show runs on a page of this machine: history, any of them compared, samples, and runs that go on.

    Nothing is written. Only this machine can reach the page; the command runs until Ctrl-C."""
    from dfkeval.reports.viewing.pages import Viewer

    quiet_libraries()
    try:
        from dfkeval.inference.serving import server
        from dfkeval.reports.viewing.app import application
    except ModuleNotFoundError as error:
        raise missing_package("dfkeval view", error.name or "uvicorn", "serve") from error
    from dfkeval.inference.serving.limits import Limits

    viewer = Viewer(folders, lang, redact=redact)
    runs = viewer.runs()
    say(f"dfkeval: {len(runs)} runs; Ctrl-C ends")
    now("")
    server.run(
        application(viewer),
        Limits(connections=32),
        HOST,
        port,
        ready=lambda at: say(f"open http://{HOST}:{at}/"),
    )
