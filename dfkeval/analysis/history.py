"""Trends over a folder of runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dfkdata.common.errors import ConfigError
from dfkdata.common.plugins import suggestion
from dfkeval.analysis.comparison import HEADLINES
from dfkeval.runs import directory


def runs_in(folder: Path) -> list[Path]:
    """The scored runs directly below `folder`, oldest first. Raises `ConfigError` when there are none."""
    found = [
        path
        for path in folder.glob("*/")
        if (path / directory.SUMMARY).is_file() and (path / directory.CONFIG).is_file()
    ]
    if not found:
        raise ConfigError(f"{folder}: holds no scored runs")
    return sorted(found, key=lambda path: ((path / directory.COMPLETIONS).stat().st_mtime_ns, path.name))


def history(folder: Path, names: Sequence[str] = ()) -> tuple[list[str], list[tuple[str, ...]]]:
    """(header, rows) of the runs below `folder`: n, each metric's value, and its change to the run before.

    names: values to show; without any, those of `HEADLINES` that some run has. Raises `ConfigError` for a
    name that no run has, or a folder without runs."""
    runs = [(path.name, directory.read_summary(path)) for path in runs_in(folder)]
    known = {name for _, summary in runs for name in summary["metrics"]}
    refuse_unknown(names, known)
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


def refuse_unknown(names: Sequence[str], known: Iterable[str]) -> None:
    """Raises `ConfigError` for a value that the runs do not have."""
    there = sorted(known)
    for name in names:
        if name not in there:
            raise ConfigError(f"--metric: no run has a value {name!r}{suggestion(name, there)}")


def _trend(value: float | None, before: float | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:.3f}" if before is None else f"{value:.3f} ({value - before:+.3f})"
