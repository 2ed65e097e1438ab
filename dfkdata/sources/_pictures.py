"""Read a folder of pictures: the folder's name is the label, or a file `metadata.*` holds a row for each.

How it works. The layout is that of `imagefolder` in the `datasets` library. Folders at the top that are named
as splits (`train`, `valid-1`) give the split, also if one folder holds everything; below them every picture is
labelled by the folder it lies in.
Where there are metadata files, the rows are theirs: `file_name`, `x_file_name` and `file_names` become the
columns `image`, `x` and `images` with paths seen from the top.

Guarantees: pictures come in the order of their names; a picture that no metadata names is counted."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from dfkdata.common.errors import ConfigError
from dfkdata.rows.record import Row
from dfkdata.rows.split_names import fold, split_in
from dfkdata.sources._part import Part, is_litter
from dfkdata.sources._rejects import SourcedRow

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

Rows = Callable[[Part], Iterator[SourcedRow]]


def parts(folder: Path, read: Rows, metadata: Path | None = None) -> list[Part]:
    """Return a part for each metadata file, or for each split's pictures if there is none.

    Args:
        folder: The folder.
        read: Reads the rows of a metadata file.
        metadata: The only metadata file to take.

    Raises:
        ConfigError: The folder holds no picture.
    """
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.name.lower().endswith((*PICTURES, *METADATA)) and path.is_file()
    )
    names = [name for name in names if not is_litter(name)]
    shown = [name for name in names if name.lower().endswith(PICTURES)]
    files = [name for name in names if name.rsplit("/")[-1] in METADATA]
    if metadata is not None:
        files = [metadata.relative_to(folder).as_posix()]
    if not shown:
        raise ConfigError(f"{folder}: no picture in this folder; pictures end in {', '.join(PICTURES)}")
    folders = _split_folders(shown)
    if files:
        return [
            Part(
                name,
                folder,
                folder / name,
                split=split_in(PurePosixPath(_home(name, folders)).name),
                reads=partial(_described, read=read, shown=shown),
            )
            for name in files
        ]
    below: dict[str, list[str]] = {}
    for name in shown:
        below.setdefault(_home(name, folders), []).append(name)
    unlabelled = {".", *folders, *(PurePosixPath(one).parent.as_posix() for one in folders)}
    return [
        Part(
            home or ".",
            folder,
            split=split_in(PurePosixPath(home).name),
            reads=partial(_labelled, names=names, unlabelled=unlabelled),
        )
        for home, names in below.items()
    ]


def _split_folders(names: list[str]) -> list[str]:
    """Return the folders that name splits: those at the top, or below one folder in which everything lies.

    `train` always does; `test-tube` does only where all folders beside it have such a word."""
    wrapper = ""
    while True:
        tops = {name.partition("/")[0] for name in names if "/" in name}
        named = {top for top in tops if split_in(top) is not None}
        if named != tops:
            named = {top for top in named if fold(top) is not None}
        if named:
            return sorted(wrapper + top for top in named)
        if len(tops) != 1 or any("/" not in name for name in names):
            return []
        (top,) = tops
        wrapper, names = f"{wrapper}{top}/", [name.removeprefix(top + "/") for name in names]


def _home(name: str, folders: list[str]) -> str:
    """Return the folder of a split in which a file lies; empty if it lies in none."""
    return next((folder for folder in folders if name.startswith(folder + "/")), "")


def _labelled(_part: Part, *, names: list[str], unlabelled: set[str]) -> Iterator[SourcedRow]:
    """Yield each picture with the name of its folder, unless that is the top, a split or what holds the splits."""
    for name in names:
        parent = PurePosixPath(name).parent.as_posix()
        label = "" if parent in unlabelled else parent.rsplit("/")[-1]
        yield {"image": name, "label": label}, f"{name}:1"


def _described(part: Part, *, read: Rows, shown: list[str]) -> Iterator[SourcedRow]:
    """Yield the rows of a metadata file with paths seen from the top."""
    folder = PurePosixPath(part.name).parent.as_posix()
    left = {name for name in shown if folder == "." or name.startswith(folder + "/")}
    for row, source in read(replace(part, reads=None)):
        if isinstance(row, dict):
            row = _with_paths(row, folder)
            left -= {name for value in row.values() for name in _texts(value)}
        yield row, source
    if left:
        part.facts["pictures_without_a_row"] = len(left)


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, str)]


def _with_paths(row: Row, folder: str) -> Row:
    """Return a row whose columns of file names are columns of pictures."""
    found: Row = {}
    for key, value in row.items():
        for end, default in (("file_name", "image"), ("file_names", "images")):
            if key == end or key.endswith("_" + end):
                key = key.removesuffix(end).rstrip("_") or default
                value = (
                    [_placed(one, folder) for one in value]
                    if isinstance(value, list)
                    else _placed(value, folder)
                )
                break
        found[key] = value
    return found


def _placed(name: Any, folder: str) -> Any:
    if not isinstance(name, str) or not name or folder == ".":
        return name
    return posixpath.normpath(f"{folder}/{name}")
