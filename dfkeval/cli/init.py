"""`dfkeval init`: write a preset to edit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfkdata.common.console import examples, next_command, write
from dfkdata.common.tables import TextTable, write_table

EXAMPLES = examples("dfkeval init json_captioner", "dfkeval init sita_vlm_gen --out eval.yaml")


def init_command(
    preset: Annotated[
        str | None, typer.Argument(help="A preset; without one they are listed.", metavar="[PRESET]")
    ] = None,
    out: Annotated[Path, typer.Option(help="A YAML file, or a folder for PRESET.yaml.")] = Path(),
) -> None:
    """Write an evaluation configuration that ships, to edit and to run."""
    from dfkeval.runs import presets

    if preset is None:
        write_table(TextTable(("preset", "about"), [(name, presets.about(name)) for name in presets.names()]))
        return
    path = presets.write(preset, out)
    write(f"{path}\nname your rows and your model in it, then\n")
    next_command("dfkeval", "run", path, "--out", f"runs/{preset}")
