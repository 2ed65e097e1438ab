"""`dfktrain rft`: rejection-sampling fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfkdata.common.console import examples, say, write
from dfkdata.common.faults import leaves
from dfktrain.cli._common import progress_bar, quiet, require_packages, say_indented, writing_weights

EXAMPLES = examples(
    "dfktrain rft rft.yaml --out runs/rft",
    "dfktrain rft rft.yaml --out runs/more --set rounds=2 --set sample.sampling.repeats=8",
)


@leaves("{out} keeps every answer and every whole checkpoint; the same command goes on there")
def rft_command(
    config: Annotated[Path, typer.Argument(help="The configuration, a YAML file.", metavar="CONFIG")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the run; an interrupted run continues there.")
    ],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Replace one key: keep=2. May be repeated.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--override", help="File of changes; what changes is printed.")
    ] = None,
) -> None:
    """Ask every row several times, keep the answers that validators accept, train on them; DIR/adapter,
    DIR/rft.json."""
    from dfkdata.common.config import load_config
    from dfkdata.common.progress import Progress
    from dfktrain.config import overrides
    from dfktrain.config.rft import RftConfig

    quiet()
    changes = [change for file in override or () for change in overrides.expand(config, file)]
    settings = load_config(config, RftConfig, [*changes, *(set_ or ())])
    for line in overrides.deviations(config, settings, changes) if changes else ():
        say(f"override: {line}")
    settings = settings.resolved(config.parent.resolve())
    require_packages()
    from dfktrain.experiments import rft

    with writing_weights(out):
        result = rft.rft(
            settings, out, on_answer=Progress("answers"), on_step=progress_bar(), say=say_indented
        )
    write(rft.table(result))
