"""Keep the tensors of a base that its class does not load (Qwen3.5's `mtp.*`) when the whole model is trained.

How it works: the class lists patterns of names that it ignores; tensors of the base's files with such names
are copied into a file of their own beside the trained weights, and an index names every tensor of the folder.

Guarantees:
    - The copies have the values, types and names of the base's tensors.
    - The files of the trained tensors are not touched."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dfkdata.common.errors import BackendError, ConfigError
from dfkeval.models.source import model_source
from dfktrain.weights.safetensors_io import INDEX, open_tensors, read_tensors, weight_files

FILE = "model-carried.safetensors"
"""File of the copied tensors."""


def ignored_patterns(net: Any) -> list[str]:
    """Return regular expressions for the names of tensors that the model's class ignores when it loads."""
    return list(getattr(net, "_keys_to_ignore_on_load_unexpected", None) or ())


def copy_extra_tensors(net: Any, base: str, folder: Path) -> int:
    """Copy the base's tensors that a model's class ignored to the folder of the trained weights.

    Args:
        net: The trained model.
        base: Folder or Hub name of the base that was loaded.
        folder: Folder with the saved weights.

    Returns:
        The number of copied tensors.
    """
    from safetensors.torch import save_file

    base_folder = _base_folder(base)
    if base_folder is None:
        return 0
    tensors = {
        name: tensor
        for path, names in _ignored(ignored_patterns(net), base_folder)
        for name, tensor in read_tensors(path, names)
    }
    if not tensors:
        return 0
    save_file(tensors, str(folder / FILE), metadata={"format": "pt"})
    _write_index(folder)
    return len(tensors)


def _base_folder(base: str) -> Path | None:
    """Return the base's folder, for a Hub name the downloaded copy; None if the base was never on disk."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        source = model_source(base)
        if Path(source).is_dir():
            return Path(source)
        return Path(huggingface_hub.snapshot_download(source, local_files_only=True))
    except (ConfigError, LocalEntryNotFoundError):
        return None


def _ignored(patterns: Sequence[str], folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield (weight file, names in it that match a pattern); nothing for pickled weights."""
    if not patterns or not any(folder.glob("model*.safetensors")):
        return
    for file in weight_files(folder):
        names = [entry.name for entry in file.entries]
        yield file.path, [name for name in names if any(re.search(pattern, name) for pattern in patterns)]


def _write_index(folder: Path) -> None:
    """Write an index of every weight file in the folder."""
    files = [open_tensors(path) for path in sorted(folder.glob("model*.safetensors"))]
    homes = {entry.name: file.path.name for file in files for entry in file.entries}
    size = sum(entry.end - entry.start for file in files for entry in file.entries)
    if len(homes) != sum(len(file.entries) for file in files):
        raise BackendError(f"{folder}: a tensor lies in two files; the trained model is in the others")
    index = {"metadata": {"total_size": size}, "weight_map": homes}
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True), encoding="utf-8")
