"""Options and helpers that the commands share."""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkdata.common.console import say
from dfkdata.common.errors import missing_package
from dfkeval.models.quiet import quiet_libraries
from dfktrain.config import overrides
from dfktrain.config.launch import is_main_process
from dfktrain.config.run import TrainConfig

if TYPE_CHECKING:
    from dfktrain.training.state import OnProgress, TrainingProgress

ConfigPath = Annotated[
    Path, typer.Argument(help="The training configuration, a YAML file.", metavar="CONFIG")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Replace one key: stages.0.learning_rate=1e-4. May be repeated."),
]
OverrideFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--override", help="File of changes, or the name of a preset (tiny); every changed key is printed."
    ),
]

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "jinja2")


def say_indented(line: str) -> None:
    """Write one indented line to stderr at once."""
    say(f"  {line}")


def load_config(path: Path, changes: list[str] | None = None, files: list[str] | None = None) -> TrainConfig:
    """Read a training configuration and print on stderr what the override files change.

    Args:
        path: The YAML file; relative paths in it start at its folder.
        changes: `PLACE=VALUE` texts of `--set`, applied after the files.
        files: Override files, or names of override presets.

    Returns:
        The configuration with absolute paths.

    Raises:
        ConfigError: A file or a change is wrong.
    """
    config, deviations = overrides.load(path, files or (), changes or ())
    for line in deviations:
        say(f"override: {line}")
    return config.resolved(path.parent.resolve())


def require_packages() -> None:
    """Raise `ConfigError` for the first package that training needs and that is not installed."""
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise missing_package("dfktrain", package, "train")


def quiet() -> None:
    """Turn off telemetry and other libraries' progress bars and warnings."""
    quiet_libraries()
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    logging.getLogger("accelerate").setLevel(logging.ERROR)


def progress_bar() -> OnProgress | None:
    """Return a callback that shows the progress of each stage on stderr; None on other ranks than 0."""
    if not is_main_process():
        return None
    from dfkdata.common.progress import Progress

    bars: dict[str, Progress] = {}

    def show(at: TrainingProgress) -> None:
        bar = bars.setdefault(at.stage, Progress("steps"))
        loss = "" if at.loss is None else f"  loss {at.loss:.4f}"
        bar(at.step, at.steps, f"{at.stage}{loss}")

    return show


@contextmanager
def writing_weights(folder: Path) -> Iterator[None]:
    """Raise `OSError` for what safetensors and torch make of a full disk or a limit while they write weights."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is not None:
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(folder)) from error
        if "inline_container" in str(error) or "PytorchStreamWriter" in str(error):
            reason = "weights cannot be written: the disk is full, or a file may not be that large"
            raise OSError(errno.ENOSPC, reason, str(folder)) from error
        raise
