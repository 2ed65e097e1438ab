"""`dfktrain demo`: the whole way on drawn data, with the built-in model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfkdata.common.console import examples
from dfkdata.common.faults import leaves
from dfkeval.models.quiet import wait_briefly
from dfktrain.cli._common import quiet, require_packages

EXAMPLES = examples("dfktrain demo --out demo", "dfktrain demo --out demo --minutes 1")


@leaves("the same command starts again; {out} may be thrown away")
def demo_command(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for data, adapters, runs and report.html.")
    ] = Path("dfk-demo"),
    minutes: Annotated[
        int,
        typer.Option(
            help="How long to train, roughly: 1, 2, 3, 5 or 10 stands for a fixed number of steps, so that two demos "
            "print the same table; the time depends on the machine."
        ),
    ] = 3,
) -> None:
    """Go the whole way on generated data with the built-in model on this CPU: from raw rows to a report."""
    quiet()
    wait_briefly()
    require_packages()
    from dfktrain.demo import demo

    demo(out, minutes)
