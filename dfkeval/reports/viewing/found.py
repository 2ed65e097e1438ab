"""Find run directories below folders, finished ones and such that go on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dfkdata.common.errors import ConfigError
from dfkeval.runs import directory

DEPTH = 6
"""Levels below a folder in which runs are looked for; a sweep has four."""
MOST = 5_000
"""Runs that are found at most."""


@dataclass(frozen=True)
class FoundRun:
    """A run directory.

    Attributes:
        name: Its path below the folder that was named, with "/".
        folder: Its path.
        stamp: Changes if a file of the run does.
        is_scored: Whether it has a summary; else it goes on, or was stopped.
    """

    name: str
    folder: Path
    stamp: tuple[int, ...]
    is_scored: bool


def runs_below(folders: Sequence[Path]) -> list[FoundRun]:
    """Return the runs in folders and below them, by name; a link is not followed.

    Args:
        folders: Run directories, or folders that hold some at any depth.

    Raises:
        ConfigError: A folder is not there.
    """
    runs: dict[str, FoundRun] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder; name one that holds runs of `dfkeval run`")
        root = folder.resolve()
        for path in _walk(root):
            inside = path.relative_to(root).as_posix()
            alone = inside == "." or len(folders) > 1
            name = "/".join(part for part in ((root.name if alone else ""), inside) if part not in ("", "."))
            found = _found(name, path)
            if found is not None and len(runs) < MOST:
                runs.setdefault(name, found)
    return sorted(runs.values(), key=lambda run: run.name)


def _walk(root: Path) -> Iterator[Path]:
    """Yield the folders that hold a run; what lies inside a run is not looked at."""
    for place, folders, files in os.walk(root):
        path = Path(place)
        if directory.CONFIG in files and (directory.SUMMARY in files or directory.COMPLETIONS in files):
            folders.clear()
            yield path
        elif len(path.relative_to(root).parts) >= DEPTH:
            folders.clear()
        else:
            folders[:] = sorted(name for name in folders if not name.startswith("."))


def _found(name: str, folder: Path) -> FoundRun | None:
    """Return the run of a folder; None if it has gone meanwhile."""
    stamp: list[int] = []
    for file in (directory.CONFIG, directory.SUMMARY, directory.SAMPLES, directory.COMPLETIONS):
        try:
            facts = (folder / file).stat()
            stamp += [facts.st_mtime_ns, facts.st_size]
        except OSError:
            stamp += [0, 0]
    return FoundRun(name, folder, tuple(stamp), stamp[3] > 0) if stamp[0] else None
