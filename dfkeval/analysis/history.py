"""List the runs of a folder, oldest first, with the change of each value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dfkdata.common.errors import ConfigError
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
    return sorted(runs, key=lambda path: ((path / directory.COMPLETIONS).stat().st_mtime_ns, path.name))


def history(folder: Path, names: Sequence[str] = ()) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the table of the runs below a folder.

    Args:
        folder: A folder of run directories.
        names: The values to show; empty for those of `HEADLINES` that some run has.

    Returns:
        The header, and one row a run: its name, n, and each value with its change to the run before.

    Raises:
        ConfigError: No run has a value of this name, or the folder holds no runs.
    """
    runs = [(path.name, directory.read_summary(path)) for path in runs_in(folder)]
    known = {name for _, summary in runs for name in summary["metrics"]}
    check_names(names, known)
    shown = [name for name in names or HEADLINES if name in known]
    rows = []
    before: dict[str, float | None] = {}
    for name, summary in runs:
        cells = []
        for metric in shown:
            value = summary["metrics"].get(metric, {}).get("value")
            cells.append(_trend(value, before.get(metric)))
            before[metric] = value if value is not None else before.get(metric)
        rows.append((name, str(summary["n"]), *cells))
    return ["run", "n", *shown], rows


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
