"""Find files in an output folder that no conversion wrote, before anything is written over them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dfkdata.common.errors import ConfigError
from dfkdata.common.manifest import LEFT_OUT
from dfkdata.conversion.output_folder import Folder
from dfkdata.conversion.splits import SPLITS

WRITTEN = (*(f"{name}.jsonl" for name in (*SPLITS, "quarantine", "duplicates", "warnings")), LEFT_OUT)
"""Files that a conversion or a merge writes."""


def check_strangers(folder: Folder, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Check that nothing is written over that no conversion wrote.

    Args:
        folder: The output folder.
        inputs: Files that are read.
        overwrite: Whether other files may be replaced.

    Raises:
        ConfigError: A file to be written is an input, or is there without a manifest.
    """
    files = [path for name in WRITTEN if (path := folder.final / name).exists()]
    read = {path.resolve() for path in inputs}
    if own := [path for path in files if path.resolve() in read]:
        raise ConfigError(f"{own[0]}: is an input and would be written over; give another --out")
    killed = folder.partial.exists() or folder.manifest_exists()
    if files and not killed and not overwrite:
        reason = "not written by a conversion"
        raise ConfigError(f"{files[0]}: {reason}; give another --out or use --overwrite")
