"""Safetensors files, one tensor in memory: read a tensor at its place, or rewrite a file with some tensors
changed.

Strategy: the header is kept byte for byte and the data streams through in file order, so a rewritten file
differs from its source only inside the tensors that were changed.
Promises: dtype, shape and place of every tensor stay; a header that does not describe its file is a
`DataError`; a NaN or an infinity, old or new, is a `DataError` that names the tensor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from dfkdata.common.errors import DataError

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Stored types that can be computed with; every other type is only copied."""

INDEX = "model.safetensors.index.json"
_LONGEST_HEADER = 100 << 20
_CHUNK = 1 << 24


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file. dtype: as the header spells it. start, end: byte offsets in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class TensorFile:
    """A file's header. entries: in file order. data: offset of the first tensor byte."""

    path: Path
    entries: tuple[TensorEntry, ...]
    data: int

    def tensor(self, entry: TensorEntry) -> Tensor:
        """One tensor of a float type."""
        with self.path.open("rb") as file:
            return _tensor(entry, _bytes(file, entry))

    def tensors(self) -> Iterator[tuple[TensorEntry, Tensor]]:
        """Every tensor of a float type, one at a time, in file order."""
        with self.path.open("rb") as file:
            for entry in self.entries:
                if entry.dtype in FLOATS:
                    yield entry, _tensor(entry, _bytes(file, entry))


Change = Callable[[TensorEntry, Tensor], Tensor | None]
"""The new tensor in place of one of a float type, or None to keep its bytes."""


def open_tensors(path: Path) -> TensorFile:
    """The header of `path`. Raises `DataError` where it does not describe the file."""
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
    _check_cover(path, entries, 8 + length, size)
    return TensorFile(path, entries, 8 + length)


def _entries(path: Path, header: Any, data: int) -> tuple[TensorEntry, ...]:
    try:
        found = [
            TensorEntry(
                name, facts["dtype"], tuple(facts["shape"]), *(data + at for at in facts["data_offsets"])
            )
            for name, facts in header.items()
            if name != "__metadata__"
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: its safetensors header is broken ({error!r}); copy it again") from error
    return tuple(sorted(found, key=lambda entry: (entry.start, entry.end)))


def _check_cover(path: Path, entries: tuple[TensorEntry, ...], data: int, size: int) -> None:
    """The tensors lie side by side and fill the file."""
    at = data
    for entry in entries:
        wanted = 1
        for length in entry.shape:
            wanted *= length
        item = FLOATS[entry.dtype].itemsize if entry.dtype in FLOATS else None
        if entry.start != at or (item is not None and entry.end - entry.start != wanted * item):
            raise DataError(f"{path}: tensor {entry.name} is not where the header says; copy the file again")
        at = entry.end
    if at != size:
        raise DataError(f"{path}: is {size} bytes, its header describes {at}; copy it again")


def rewrite(source: TensorFile, target: Path, change: Change) -> None:
    """`source` as `target`, each tensor of a float type replaced by what `change` gives for it."""
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
    """Raise `DataError` where `tensor` holds a NaN or an infinity."""
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
    """The safetensors files of a model folder, in name order. Raises `DataError` where the index names a file
    or a tensor that is missing, or the folder has none."""
    paths = sorted(folder.glob("model*.safetensors"))
    index = folder / INDEX
    if index.is_file():
        wanted = _index(index)
        paths = [folder / name for name in sorted(set(wanted.values()))]
        files = [open_tensors(path) for path in paths]
        there = {entry.name: file.path.name for file in files for entry in file.entries}
        if lost := sorted(name for name, home in wanted.items() if there.get(name) != home):
            raise DataError(f"{index}: tensor {lost[0]} is not in {wanted[lost[0]]}; copy the model again")
        return files
    if not paths:
        raise DataError(
            f"{folder}: no model.safetensors (pickled weights are not read); save it as safetensors"
        )
    if len(paths) > 1:
        raise DataError(f"{folder}: several weight files and no {INDEX}; copy the model again")
    return [open_tensors(paths[0])]


def _index(path: Path) -> dict[str, str]:
    try:
        wanted = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not an index of weight files ({error!r}); copy the model again") from error
    if any("/" in name or "\\" in name for name in wanted.values()):
        raise DataError(f"{path}: names a weight file outside the model's folder")
    return dict(wanted)
