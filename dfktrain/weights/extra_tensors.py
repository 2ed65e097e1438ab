"""Tensors of a base that its class does not load (Qwen3.5's `mtp.*`), kept when the whole model is trained.

Strategy: the class says by pattern which names it passes over; those that the base's files hold are copied
into a file of their own, and an index names every tensor of the folder.
Promises: their values, dtypes and names are the base's; the trained tensors' files are not touched."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dfkdata.common.errors import BackendError, ConfigError
from dfkeval.models.source import model_source
from dfktrain.weights.safetensors_io import INDEX, TensorEntry, TensorFile, open_tensors, weight_files

FILE = "model-carried.safetensors"
"""What the copied tensors are written to."""


def patterns(net: Any) -> list[str]:
    """Regular expressions for names of tensors that the model's class passes over when it loads."""
    return list(getattr(net, "_keys_to_ignore_on_load_unexpected", None) or ())


def carry(net: Any, base: str, folder: Path) -> int:
    """Copy what `net` has passed over in `base` (a folder or a hub name that was loaded) beside the weights
    that were saved to `folder`; returns how many tensors that were."""
    home = _home(base)
    found = [] if home is None else list(_passed_over(patterns(net), home))
    if not found:
        return 0
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors = {}
    for file, entry in found:
        with safe_open(str(file.path), framework="pt") as opened:
            tensors[entry.name] = opened.get_tensor(entry.name)
    save_file(tensors, str(folder / FILE), metadata={"format": "pt"})
    _write_index(folder)
    return len(tensors)


def _home(base: str) -> Path | None:
    """The base's folder; of a hub name the copy that loading has left on this machine; None for a base that
    was never on disk."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        source = model_source(base)
        if Path(source).is_dir():
            return Path(source)
        return Path(huggingface_hub.snapshot_download(source, local_files_only=True))
    except (ConfigError, LocalEntryNotFoundError):
        return None


def _passed_over(names: list[str], home: Path) -> Iterator[tuple[TensorFile, TensorEntry]]:
    if not names or not any(home.glob("model*.safetensors")):
        return  # pickled weights: nothing is known of them
    for file in weight_files(home):
        for entry in file.entries:
            if any(re.search(name, entry.name) for name in names):
                yield file, entry


def _write_index(folder: Path) -> None:
    """An index over every weight file in `folder`."""
    files = [open_tensors(path) for path in sorted(folder.glob("model*.safetensors"))]
    homes = {entry.name: file.path.name for file in files for entry in file.entries}
    size = sum(entry.end - entry.start for file in files for entry in file.entries)
    if len(homes) != sum(len(file.entries) for file in files):
        raise BackendError(f"{folder}: a tensor lies in two files; the trained model is in the others")
    index = {"metadata": {"total_size": size}, "weight_map": homes}
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True), encoding="utf-8")
