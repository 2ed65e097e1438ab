"""FAMILY: trackers, services that keep numbers over time, one a file.

A member says what it needs and logs a scored run:

    PACKAGE                             the package that it needs, as it is imported
    send(run, step, folder) -> str      logs every value of the run; returns where it lies

`step` is the place on the service's axis. `folder` is where a member that writes files puts them; None means its own
place. This is a whole member:

    >>> import json
    >>> PACKAGE = "json"
    >>> def send(run, step=0, folder=None):
    ...     path = (folder or run.folder) / "numbers.jsonl"
    ...     with path.open("a") as file:
    ...         file.write(json.dumps({"step": step} | dict(numbers(run))) + "\\n")
    ...     return str(path)

Guarantees that every member keeps:

- Nothing is sent or written unless the user names the tracker.
- Values that do not exist are left out; texts of samples, prompts and images never leave the machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from dfkdata.common import plugins
from dfkdata.common.errors import missing_package
from dfkeval.runs.run import Run

FAMILY = "dfkeval.reports.trackers"


def check(names: Sequence[str]) -> None:
    """Raise `ConfigError` for an unknown tracker, or one whose package is not installed."""
    for name in names:
        package = plugins.load(FAMILY, name).PACKAGE
        if importlib.util.find_spec(package) is None:
            raise missing_package(f"tracker {name!r}", package, "trackers")


def send(run: Run, names: Sequence[str], *, step: int = 0, folder: Path | None = None) -> list[str]:
    """Send a run to each tracker.

    Args:
        run: The scored run.
        names: Members of this family.
        step: Its place on the services' axis.
        folder: Where members that write files put them; None for their own places.

    Returns:
        Where the run lies in each.

    Raises:
        ConfigError: A tracker is unknown, or its package is missing.
    """
    check(names)
    return [plugins.load(FAMILY, name).send(run, step, folder) for name in names]


def numbers(run: Run) -> Iterator[tuple[str, float]]:
    """Yield name and number of all in the summary: values with `.low` and `.high`, and shares of outcomes."""
    for name, value in run.summary["metrics"].items():
        for part, title in (("value", name), ("low", f"{name}.low"), ("high", f"{name}.high")):
            if value[part] is not None:
                yield title, float(value[part])
    total = max(1, run.summary["n"])
    for name, count in run.summary["outcomes"].items():
        yield f"outcomes.{name}", count / total
