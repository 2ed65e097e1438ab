"""List the runs of a folder, oldest first, with the change of each value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.plugins import suggestion
from dfkeval.analysis.comparison import HEADLINES
from dfkeval.runs import directory


def runs_in(folder: Path) -> list[Path]:
    """Return the scored runs directly below `folder`, oldest first. Raises `ConfigError` if there are
    none."""
    runs = [
        path
        for path in folder.glob("*/")
        if (path / directory.SUMMARY).is_file() and (path / directory.CONFIG).is_file()
    ]
    if not runs:
        raise ConfigError(f"{folder}: holds no scored runs")
    return sorted(runs, key=lambda path: (answered_at(path), path.name))


def answered_at(run: Path) -> int:
    """Return when the last answer was written; of a run without its answers, when it was scored."""
    path = run / directory.COMPLETIONS
    return (path if path.is_file() else run / directory.SUMMARY).stat().st_mtime_ns


def history(folder: Path, names: Sequence[str] = ()) -> tuple[list[str], list[tuple[str, ...]], list[str]]:
    """Return the table of the runs below a folder.

    A run whose summary cannot be read has the row "broken", and the others go on beside it.

    Args:
        folder: A folder of run directories.
        names: The values to show; empty for those of `HEADLINES` that some run has.

    Returns:
        The header; one row a run: its name, n, and each value with its change to the run before; and what is
        wrong with the broken runs, in words.

    Raises:
        ConfigError: No run has a value of this name, or the folder holds no runs.
        DataError: No run of the folder can be read.
    """
    runs: list[tuple[str, dict[str, Any] | None]] = []
    broken = []
    for path in runs_in(folder):
        try:
            runs.append((path.name, directory.read_summary(path)))
        except DataError as error:
            runs.append((path.name, None))
            broken.append(str(error))
    if len(broken) == len(runs):
        raise DataError(broken[0])
    known = {name for _, summary in runs if summary is not None for name in summary["metrics"]}
    check_names(names, known)
    shown = [name for name in names or HEADLINES if name in known]
    rows: list[tuple[str, ...]] = []
    before: dict[str, float | None] = {}
    for name, summary in runs:
        if summary is None:
            rows.append((name, "broken", *("" for _ in shown)))
            continue
        cells = []
        for metric in shown:
            value = summary["metrics"].get(metric, {}).get("value")
            cells.append(_trend(value, before.get(metric)))
            before[metric] = value if value is not None else before.get(metric)
        rows.append((name, str(summary["n"]), *cells))
    return ["run", "n", *shown], rows, broken


def check_names(names: Sequence[str], known: Iterable[str]) -> None:
    """Raise `ConfigError` for a value that no run has."""
    choices = sorted(known)
    for name in names:
        if name not in choices:
            raise ConfigError(f"--metric: no run has a value {name!r}{suggestion(name, choices)}")


def _trend(value: float | None, before: float | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:.3f}" if before is None else f"{value:.3f} ({value - before:+.3f})"
