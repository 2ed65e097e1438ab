"""`dfktrain init`: write a preset as a file to edit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfkdata.common.console import examples, write
from dfkdata.common.errors import ConfigError
from dfkdata.common.tables import TextTable, write_table

EXAMPLES = examples(
    "dfktrain init starter --example posts", "dfktrain init json_captioner_v2 --out train.yaml"
)

#: Good rows of `--example`; the broken ones come on top.
EXAMPLE_POSTS, EXAMPLE_SEED = 160, 1


def init_command(
    preset: Annotated[
        str | None, typer.Argument(help="A preset; without one they are listed.", metavar="[PRESET]")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="A YAML file, or a folder for PRESET.yaml.")] = Path(),
    example: Annotated[
        Path | None,
        typer.Option(
            help="Also write sample posts with pictures into this new folder: posts.csv, a few rows broken."
        ),
    ] = None,
) -> None:
    """Write a training configuration that ships, to edit; its comments say whose numbers it holds."""
    from dfktrain.config import presets

    if preset is None:
        if example is not None:
            raise ConfigError("--example goes with a preset: dfktrain init starter --example DIR")
        write_table(
            TextTable(("preset", "about"), [(name, presets.headline(name)) for name in presets.names()])
        )
        return
    if example is not None and example.exists():
        raise ConfigError(f"--example {example}: is there already; name a new folder")
    path = out if out.suffix in (".yaml", ".yml") else out / f"{preset}.yaml"
    text = presets.write(preset, path)
    write(f"{path}\n\n{presets.header(text)}\n")
    if example is not None:
        from dfktrain.demo import posts

        write(f"\nsample posts: {posts.write_posts(example, count=EXAMPLE_POSTS, seed=EXAMPLE_SEED)}\n")
