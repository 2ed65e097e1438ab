"""Read the headers of safetensors files, and rewrite a file with some of its tensors changed.

How it works: `rewrite` copies the header byte for byte and streams the tensors in file order, one in memory at
a time. Tensors that nothing changes are copied as bytes. Values are read with the library's `safe_open`; it is
only the writing that is our own, because the library writes a file from tensors that are all in memory, in an
order and with a header of its own. A merge could then not promise that a file differs from its base only
inside the tensors that it changed.

Guarantees:
    - The type, shape and place of every tensor stay as they are.
    - A header that does not describe its file raises `DataError`.
    - A NaN or an infinity, old or new, raises `DataError` that names the tensor."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from dfkdata.common.errors import DataError
from dfkdata.common.json_files import read_json

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Stored types that can be computed with; tensors of every other type are only copied."""

INDEX = "model.safetensors.index.json"
"""File that names the weight file of each tensor, in the folder of a model with several weight files."""

_LONGEST_HEADER = 100 << 20
_CHUNK = 1 << 24


@dataclass(frozen=True)
class TensorEntry:
    """The place of one tensor in a file.

    Attributes:
        name: Name of the tensor.
        dtype: Its type as the header spells it, such as "BF16".
        shape: Its shape.
        start: Offset of its first byte in the file.
        end: Offset behind its last byte.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class TensorFile:
    """The header of a safetensors file.

    Attributes:
        path: The file.
        entries: Its tensors in file order.
        data: Offset of the first tensor byte.
    """

    path: Path
    entries: tuple[TensorEntry, ...]
    data: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor by name."""
        return {entry.name: entry.shape for entry in self.entries}


Change = Callable[[TensorEntry, Tensor], Tensor | None]
"""Returns the new value of a tensor of a float type, or None to keep its bytes."""


def open_tensors(path: Path) -> TensorFile:
    """Read the header of a file and check it against the file's size.

    Raises:
        DataError: The file cannot be read, or its header does not describe it.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
                raise DataError(f"{path}: not a safetensors file, or cut off; copy it again")
            header = json.loads(file.read(length))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: its safetensors header is broken ({error}); copy it again") from error
    entries = _entries(path, header, 8 + length)
    _check_layout(path, entries, 8 + length, size)
    return TensorFile(path, entries, 8 + length)


def _entries(path: Path, header: Any, data: int) -> tuple[TensorEntry, ...]:
    try:
        entries = [
            TensorEntry(
                name, facts["dtype"], tuple(facts["shape"]), *(data + at for at in facts["data_offsets"])
            )
            for name, facts in header.items()
            if name != "__metadata__"
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: its safetensors header is broken ({error!r}); copy it again") from error
    return tuple(sorted(entries, key=lambda entry: (entry.start, entry.end)))


def _check_layout(path: Path, entries: tuple[TensorEntry, ...], data: int, size: int) -> None:
    """Raise unless the tensors lie side by side and fill the file."""
    at = data
    for entry in entries:
        length = entry.end - entry.start
        known = entry.dtype in FLOATS
        if entry.start != at or (known and length != math.prod(entry.shape) * FLOATS[entry.dtype].itemsize):
            raise DataError(f"{path}: tensor {entry.name} is not where the header says; copy the file again")
        at = entry.end
    if at != size:
        raise DataError(f"{path}: is {size} bytes, its header describes {at}; copy it again")


def read_tensors(path: Path, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor) for each of the named tensors of a file, one in memory at a time."""
    with safe_open(str(path), framework="pt") as file:
        for name in names:
            yield name, file.get_tensor(name)


def read_tensor(path: Path, name: str) -> Tensor:
    """Return one tensor of a file."""
    return next(read_tensors(path, [name]))[1]


def rewrite(source: TensorFile, target: Path, change: Change) -> None:
    """Write a copy of a file in which some tensors have other values.

    Args:
        source: The file to copy.
        target: The new file.
        change: Returns the new value of a tensor of a float type, of the same type and shape, or None.

    Raises:
        DataError: An old or new value is NaN or infinite.
    """
    with source.path.open("rb") as old, target.open("wb") as new:
        new.write(old.read(source.data))
        for entry in source.entries:
            if entry.dtype not in FLOATS:
                _copy(old, new, entry)
                continue
            raw = _bytes(old, entry)
            tensor = _tensor(entry, raw)
            require_finite(tensor, f"{source.path.name}: tensor {entry.name}")
            changed = change(entry, tensor)
            new.write(raw if changed is None else _raw(entry, changed, source.path.name))


def require_finite(tensor: Tensor, what: str) -> None:
    """Raise `DataError` if a tensor holds a NaN or an infinity; `what` begins the message."""
    if not bool(torch.isfinite(tensor).all()):
        raise DataError(f"{what} holds NaN or infinity; nothing is written")


def _raw(entry: TensorEntry, tensor: Tensor, file: str) -> bytes:
    if tuple(tensor.shape) != entry.shape or tensor.dtype != FLOATS[entry.dtype]:
        raise ValueError(f"{entry.name} was {entry.dtype} {entry.shape} and would become {tensor.dtype}")
    require_finite(tensor, f"{file}: the merged tensor {entry.name}")
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def _bytes(file: BinaryIO, entry: TensorEntry) -> bytearray:
    file.seek(entry.start)
    raw = bytearray(entry.end - entry.start)
    file.readinto(raw)  # type: ignore[attr-defined] # a buffered reader
    return raw


def _tensor(entry: TensorEntry, raw: bytearray) -> Tensor:
    if not raw:
        return torch.empty(entry.shape, dtype=FLOATS[entry.dtype])
    return torch.frombuffer(raw, dtype=FLOATS[entry.dtype]).reshape(entry.shape)


def _copy(old: BinaryIO, new: BinaryIO, entry: TensorEntry) -> None:
    old.seek(entry.start)
    left = entry.end - entry.start
    while left:
        chunk = old.read(min(left, _CHUNK))
        new.write(chunk)
        left -= len(chunk)


def weight_files(folder: Path) -> list[TensorFile]:
    """Return the weight files of a model folder in name order.

    Raises:
        DataError: There is no weight file, or the index names a file or a tensor that is missing.
    """
    paths = sorted(folder.glob("model*.safetensors"))
    index = folder / INDEX
    if index.is_file():
        homes = _index(index)
        files = [open_tensors(folder / name) for name in sorted(set(homes.values()))]
        stored = {entry.name: file.path.name for file in files for entry in file.entries}
        if lost := sorted(name for name, home in homes.items() if stored.get(name) != home):
            raise DataError(f"{index}: tensor {lost[0]} is not in {homes[lost[0]]}; copy the model again")
        return files
    if not paths:
        raise DataError(
            f"{folder}: model.safetensors is missing (pickled weights are not read); save it as safetensors"
        )
    if len(paths) > 1:
        raise DataError(f"{folder}: has several weight files and no {INDEX}; copy the model again")
    return [open_tensors(paths[0])]


def _index(path: Path) -> dict[str, str]:
    """Return tensor name -> file name."""
    homes = read_json(path).get("weight_map")
    if not isinstance(homes, dict) or not all(isinstance(name, str) for name in homes.values()):
        raise DataError(f"{path}: not an index of weight files; copy the model again")
    if any("/" in name or "\\" in name for name in homes.values()):
        raise DataError(f"{path}: names a weight file outside the model's folder")
    return dict(homes)
