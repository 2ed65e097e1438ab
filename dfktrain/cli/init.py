"""`dfktrain init`: write a preset as a file to edit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfkdata.common.console import examples, write

EXAMPLES = examples("dfktrain init sita_qwen35", "dfktrain init json_captioner_v2 --out train.yaml")


def init_command(
    preset: Annotated[
        str | None, typer.Argument(help="A preset; without one they are listed.", metavar="[PRESET]")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="A YAML file, or a folder for PRESET.yaml.")] = Path(),
) -> None:
    """Write a training configuration that ships, to edit; its comments say whose numbers it holds."""
    from dfktrain.config import presets

    if preset is None:
        write("".join(f"{name:22} {presets.headline(name)}\n" for name in presets.names()))
        return
    path = out if out.suffix in (".yaml", ".yml") else out / f"{preset}.yaml"
    text = presets.write(preset, path)
    write(f"{path}\n\n{presets.header(text)}\n")
