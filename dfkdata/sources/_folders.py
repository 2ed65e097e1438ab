"""Find the data files in a folder of many files."""

from __future__ import annotations

import logging
from pathlib import Path

from dfkdata.common import manifest
from dfkdata.sources._arrow import SAVED
from dfkdata.sources._part import is_litter

_log = logging.getLogger(__name__)


def data_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the data files at and below a folder, sorted, less what a conversion wrote; that is logged by name.

    Args:
        folder: The folder.
        suffixes: Ends of the names of data files.
    """
    files = (file for file in folder.rglob("*") if file.name.lower().endswith(suffixes) and file.is_file())
    data = sorted(file for file in files if not is_litter(file.relative_to(folder).as_posix()))
    written = {place: _written(place, folder) for place in {file.parent for file in data}}
    outputs = [file for file in data if file.name in written[file.parent] and file.parent != folder]
    if outputs:
        named = ", ".join(file.relative_to(folder).as_posix() for file in outputs[:5])
        more = f" and {len(outputs) - 5} more" if len(outputs) > 5 else ""
        _log.warning("%s: not read, as outputs of an earlier conversion: %s%s", folder, named, more)
    return [file for file in data if file.name not in written[file.parent] and not _describes_arrow(file)]


_SET_ASIDE = frozenset(
    (
        "quarantine.jsonl",
        "duplicates.jsonl",
        "warnings.jsonl",
        manifest.LEFT_OUT,
        manifest.MANIFEST,
        manifest.EXTRA,
    )
)


def _written(place: Path, top: Path) -> frozenset[str]:
    """Return the names of the files in a folder that a conversion wrote and that are no rows to convert.

    In the folder that is converted these are the files that a conversion set aside; its rows are converted again."""
    found = manifest.read(place)
    names = frozenset[str]() if found is None else found.names
    return names & _SET_ASIDE if place == top else names


def _describes_arrow(file: Path) -> bool:
    """Return whether a file beside rows describes them, as the `datasets` library writes it."""
    return file.name in SAVED and any(True for _ in file.parent.glob("**/*.arrow"))
