"""FAMILY: one service that keeps numbers over time a file.

A member says what it needs and how a scored run is put there:

    PACKAGE                                         the package it needs, as it is imported
    send(run, step, folder) -> str                  logs every value of the run; says where it lies

`step` is the place on the service's axis. `folder` is where a member that writes files puts them; None means
its own place. Promises: nothing is sent or written unless the user names the tracker; values that do not
exist are left out; texts of samples, prompts and images never leave the machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from dfkdata.common import plugins
from dfkdata.common.errors import missing_package
from dfkeval.runs.run import Run

FAMILY = "dfkeval.reports.trackers"


def check(names: Sequence[str]) -> None:
    """Raises `ConfigError` for an unknown tracker, or one whose package is not installed."""
    for name in names:
        package = plugins.load(FAMILY, name).PACKAGE
        if importlib.util.find_spec(package) is None:
            raise missing_package(f"tracker {name!r}", package, "trackers")


def send(run: Run, names: Sequence[str], *, step: int = 0, folder: Path | None = None) -> list[str]:
    """Put the run into each tracker; returns where it lies in each."""
    check(names)
    return [plugins.load(FAMILY, name).send(run, step, folder) for name in names]


def numbers(run: Run) -> Iterator[tuple[str, float]]:
    """(name, number) of everything in the summary: values with `.low` and `.high`, and shares of outcomes."""
    for name, value in run.summary["metrics"].items():
        for part, title in (("value", name), ("low", f"{name}.low"), ("high", f"{name}.high")):
            if value[part] is not None:
                yield title, float(value[part])
    total = max(1, run.summary["n"])
    for name, count in run.summary["outcomes"].items():
        yield f"outcomes.{name}", count / total
