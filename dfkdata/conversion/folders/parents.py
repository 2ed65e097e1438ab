"""Open finished conversions to merge them, and read their rows back in the order in which they are merged.

How it works. A folder that is itself a merge keeps the rows that it left out in `left_out.jsonl`, each with the number
of rows before it. They are read in their old places, so that merging anew decides about every row from the beginning:
a merge of merges comes to the same rows as one merge of all folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from dfkdata.common import limits
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.files import open_regular
from dfkdata.common.hashing import file_sha256
from dfkdata.common.manifest import LEFT_OUT, MANIFEST
from dfkdata.conversion.folders.reading import ListedFile
from dfkdata.conversion.output_folder import PARTIAL

ORDER = ("test", "validation", "train")
"""Splits in the order in which rows are merged: of two copies the held-out one stays."""


OnConflict = Literal["error", "first"]
"""What becomes of two rows of one id with different contents: an error, or the first one stays."""

OnOverlap = Literal["error", "drop-train"]
"""What becomes of training rows that are like held-out ones of another folder: an error, or they are left out."""


class RuleFacts(msgspec.Struct):
    """How often a rule was broken, with the first example."""

    count: int
    first: dict[str, Any] = {}


class MergeFacts(msgspec.Struct):
    """What a merge did: its policies, and reason -> rows that it left out."""

    on_conflict: OnConflict
    on_overlap: OnOverlap
    left_out: dict[str, int] = {}


class FullManifest(msgspec.Struct):
    """A manifest as it is merged."""

    config: dict[str, Any]
    inputs: list[dict[str, Any]]
    rows: dict[str, int]
    codes: dict[str, RuleFacts]
    warnings: dict[str, RuleFacts]
    labels: dict[str, dict[str, dict[str, int]]]
    outputs: list[ListedFile]
    tables: dict[str, dict[str, Any]] = {}
    columns_unread: list[str] = []
    merge: MergeFacts | None = None
    parents: list[dict[str, Any]] = []


class LeftOut(msgspec.Struct):
    """A line of `left_out.jsonl`.

    Attributes:
        reason: "copy", "conflict", or what the row shares with a held-out one.
        like: The split in which the copy stays, or the place of the held-out row; empty for a conflict.
        split: The split that the row was in.
        before: Number of rows before it in the file of that split.
        row: The row as it was.
    """

    reason: str
    like: str
    split: str
    before: int
    row: msgspec.Raw


class ParentRow(NamedTuple):
    """A row of a folder that is merged.

    Attributes:
        place: Where it stands, such as "train.jsonl:7" or "left_out.jsonl:3".
        line: Its line, with the line break.
        was_left_out: Whether the folder is a merge that left it out.
    """

    place: str
    line: bytes
    was_left_out: bool


@dataclass(frozen=True)
class Parent:
    """A finished conversion that is merged.

    Attributes:
        path: As the user named it.
        manifest: Its manifest.
        sha256: The hash of its manifest.
        splits: The splits that it has a file of.
        has_left_out: Whether it keeps rows that it left out.
    """

    path: Path
    manifest: FullManifest
    sha256: str
    splits: tuple[str, ...] = field(default=())
    has_left_out: bool = False

    def rows(self, split: str) -> Iterator[ParentRow]:
        """Yield the rows of a split, those that were left out in their old places."""
        left_out = self._left_out(split)
        waiting = next(left_out, None)
        for number, line in self._lines(f"{split}.jsonl") if split in self.splits else ():
            while waiting is not None and waiting[0] < number:
                yield waiting[1]
                waiting = next(left_out, None)
            yield ParentRow(f"{split}.jsonl:{number}", line, False)
        while waiting is not None:
            yield waiting[1]
            waiting = next(left_out, None)

    def _left_out(self, split: str) -> Iterator[tuple[int, ParentRow]]:
        if not self.has_left_out:
            return
        decode = msgspec.json.Decoder(LeftOut).decode
        for number, line in self._lines(LEFT_OUT):
            place = f"{self.path / LEFT_OUT}:{number}"
            try:
                left_out = decode(line)
            except (msgspec.MsgspecError, RecursionError) as error:
                raise DataError(f"{place}: not a row that a merge left out ({error})") from error
            if left_out.split not in ORDER:
                raise DataError(
                    f"{place}: not a row that a merge left out (its split is {left_out.split!r:.40})"
                )
            if left_out.split == split:
                yield left_out.before, ParentRow(f"{LEFT_OUT}:{number}", bytes(left_out.row) + b"\n", True)

    def lines(self, name: str) -> Iterator[bytes]:
        """Yield the lines of one of its files; none if it has no such file."""
        if any(output.path == name for output in self.manifest.outputs):
            yield from (line for _, line in self._lines(name))

    def _lines(self, name: str) -> Iterator[tuple[int, bytes]]:
        path = self.path / name
        with path.open("rb") as file:
            yield from enumerate(limits.lines(file, str(path)), start=1)


def opened_parents(folders: Sequence[str | Path]) -> list[Parent]:
    """Return the folders to merge.

    Raises:
        ConfigError: There are fewer than two, one is named twice, or one holds no finished conversion.
        DataError: A manifest is not of dfkdata, or a file was changed since.
    """
    paths = [Path(folder) for folder in folders]
    if len(paths) < 2:
        raise ConfigError("merge: name two folders or more that dfkdata convert wrote")
    real = [os.path.realpath(path) for path in paths]
    for path, place in zip(paths, real, strict=True):
        if real.count(place) > 1:
            raise ConfigError(f"{path}: is named twice; name each folder once")
    return [_opened(path) for path in paths]


def _opened(path: Path) -> Parent:
    place = path / MANIFEST
    if not place.is_file():
        why = "a conversion was stopped here" if (path / PARTIAL).is_dir() else "no finished conversion"
        raise ConfigError(f"{path}: {why}; merge takes folders that dfkdata convert wrote")
    try:
        manifest = msgspec.json.decode(place.read_bytes(), type=FullManifest)
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DataError(f"{place}: not a manifest of dfkdata convert ({error}); convert again") from error
    for output in manifest.outputs:
        _check_unchanged(path, output)
    names = {output.path for output in manifest.outputs}
    return Parent(
        path,
        manifest,
        file_sha256(place),
        tuple(split for split in ORDER if f"{split}.jsonl" in names),
        LEFT_OUT in names,
    )


def policies(
    parents: Sequence[Parent], on_conflict: OnConflict | None, on_overlap: OnOverlap | None
) -> tuple[OnConflict, OnOverlap]:
    """Return the policies of a merge: those that are given, else those of the merges among the folders, else "error".

    Raises:
        ConfigError: "error" is given, and a folder is a merge that left rows out by the other policy.
    """
    merges = [(parent, parent.manifest.merge) for parent in parents if parent.manifest.merge is not None]
    for parent, merge in merges:
        for option, given, old in (
            ("on-conflict", on_conflict, merge.on_conflict),
            ("on-overlap", on_overlap, merge.on_overlap),
        ):
            if given == "error" and old != "error":
                raise ConfigError(
                    f"{parent.path}: was merged with --{option} {old}, and --{option} error would bring the rows back"
                    f" that it left out; leave the option away, or merge the folders that it was made of"
                )
    first = on_conflict or ("first" if any(merge.on_conflict == "first" for _, merge in merges) else "error")
    drops = any(merge.on_overlap == "drop-train" for _, merge in merges)
    return first, on_overlap or ("drop-train" if drops else "error")


def _check_unchanged(folder: Path, output: ListedFile) -> None:
    """Raise `DataError` unless a file is as the manifest says, so that the counts in the manifest are true."""
    if Path(output.path).name != output.path or output.path in ("", ".", ".."):
        raise DataError(
            f"{folder / MANIFEST}: lists {output.path!r:.80}, which is no file beside it; convert again"
        )
    file = folder / output.path
    try:
        open_regular(file, limit=1 << 62).close()  # a pipe would never end
        same = file_sha256(file) == output.sha256
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read, and the manifest lists it; convert again") from error
    if not same:
        raise DataError(f"{file}: was changed after its manifest was written; convert again")
