"""`dfktrain init`: a preset as a file to edit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dfkdata.common.errors import ConfigError


def init_command(
    preset: Annotated[
        str | None, typer.Argument(help="A preset; without one they are listed.", metavar="[PRESET]")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="A YAML file, or a folder for PRESET.yaml.")] = Path(),
) -> None:
    """Write a training configuration that ships, to edit; its comments say whose numbers it holds."""
    from dfktrain.config import presets

    if preset is None:
        sys.stdout.write("".join(f"{name:22} {presets.headline(name)}\n" for name in presets.names()))
        return
    path = out if out.suffix in (".yaml", ".yml") else out / f"{preset}.yaml"
    text = presets.write(preset, path)
    sys.stdout.write(f"{path}\n\n{presets.header(text)}\n")


def sweep_command(
    config: Annotated[Path, typer.Argument(help="The training configuration.", metavar="CONFIG")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the sweep; one that was stopped goes on there.")
    ],
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", help="place=value,value; several are combined. May be repeated."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of every point, separated by commas.")] = "42",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Replace one key in every point.")] = None,
    override: Annotated[
        list[str] | None, typer.Option("--override", help="File of changes of every point.")
    ] = None,
) -> None:
    """Train every combination with every seed, one process each, and end with one comparison."""
    from dfktrain.experiments import sweep

    asked = sweep.Sweep(
        config, sweep.points(vary or ()), _seeds(seeds), tuple(override or ()), tuple(set_ or ())
    )
    found = sweep.run(asked, out, _say)
    sys.stdout.write(f"{sweep.table(found)}\n\nreport: {out / 'report.html'}\n")
    if found.failed:
        names = "\n  ".join(f"{name}: {reason}" for name, reason in found.failed.items())
        sys.stderr.write(
            f"dfktrain: {len(found.failed)} runs failed; the same command goes on with them\n  {names}\n"
        )
        raise typer.Exit(1)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _seeds(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--seeds {text!r}: write whole numbers with commas between: 1,2,3") from None
    if len(set(found)) < len(found):
        raise ConfigError(f"--seeds {text!r}: a seed is written twice")
    return found
