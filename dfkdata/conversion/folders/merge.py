"""Merge finished conversions into one folder, under one policy.

How it works. All rows are read once to decide which of them stay (`decisions`), and once to be written. Rows keep their
bytes, but for the names of their files, which are seen from the new folder.

Guarantees:
    - Nothing is dropped silently: what a merge leaves out lies in left_out.jsonl, each row with its reason and place.
    - Rows in = rows out + quarantined + duplicates + left out, over all folders.
    - Merging a merge with more folders gives the rows that one merge of all of them gives.
    - A killed merge leaves the previous result or no manifest (`output_folder`)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import msgspec

from dfkdata.common import plugins
from dfkdata.common.errors import ConfigError
from dfkdata.common.jsonl import JsonlWriter
from dfkdata.common.manifest import LEFT_OUT
from dfkdata.conversion.counts import ImageCounts, LabelCounts
from dfkdata.conversion.folders import merged_manifest
from dfkdata.conversion.folders.decisions import Decider, Decisions
from dfkdata.conversion.folders.parent_rows import ParentRows, RowNamer
from dfkdata.conversion.folders.parents import (
    ORDER,
    LeftOut,
    OnConflict,
    OnOverlap,
    Parent,
    ParentRow,
    opened_parents,
    policies,
)
from dfkdata.conversion.folders.reading import NAMED, known_layout
from dfkdata.conversion.folders.same_settings import check_same
from dfkdata.conversion.job import EXPORTS
from dfkdata.conversion.output_folder import MEDIA, Folder
from dfkdata.conversion.splits import SPLITS
from dfkdata.conversion.strangers import check_strangers


@dataclass(frozen=True)
class MergeSummary:
    """Hold what a merge did.

    Attributes:
        folder: The new folder.
        rows: Number of rows: in, out, quarantined, duplicates, left_out.
        splits: Number of rows in each split's file.
        left_out: "copy", "conflict", "groups", "prompts", "pictures" or "media" -> rows that the merge left out.
        on_conflict: What became of rows of one id with different contents.
        on_overlap: What became of training rows like held-out ones.
        looked: Whether pictures were compared by their looks, too.
        fresh: False if the folder held exactly this merge already, so that nothing was to do.

    Example:
        >>> import tempfile
        >>> from dfkdata import convert, merge_folders
        >>> folders = [tempfile.mkdtemp() + "/out" for _ in range(3)]
        >>> for folder, word in zip(folders, ("dunia", "kota")):
        ...     row = {"instruction": f"Sapa {word}.", "output": "Halo."}
        ...     _ = convert([row], folder, format="alpaca", validation=0)
        >>> merge_folders(folders[:2], folders[2]).splits
        {'train': 2, 'validation': 0}
    """

    folder: Path
    rows: dict[str, int]
    splits: dict[str, int]
    left_out: dict[str, int]
    on_conflict: OnConflict
    on_overlap: OnOverlap
    looked: bool
    fresh: bool


def merge_folders(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    on_conflict: OnConflict | None = None,
    on_overlap: OnOverlap | None = None,
    accept: Collection[str] = (),
    materialize: Literal["link", "copy"] = "link",
    paths: Literal["relative", "absolute"] = "relative",
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> MergeSummary:
    """Merge folders that `convert` wrote into one.

    Args:
        folders: Two folders or more; in conflicts the first counts.
        out: Folder to write.
        on_conflict: What becomes of rows of one id with different contents: "error", or the "first" stays, a held-out
            one before a training one. None is "error", or what the folders were merged with themselves.
        on_overlap: What becomes of training rows that are like held-out ones (copies, groups, nearly the same prompts,
            pictures): "error" if they are of different folders, or "drop-train" leaves them out. None as above.
        accept: Settings that may differ between the folders, named as options of `dfkdata convert` without dashes.
        materialize: "link" names the pictures where they are, "copy" copies them into the folder.
        paths: Write media paths "relative" to the rows' file, or "absolute".
        overwrite: Whether another conversion or merge in `out` is replaced.
        progress: Called with the number of rows read, from time to time.

    Returns:
        Counts of rows, splits, and what was left out.

    Raises:
        ConfigError: A folder is no finished conversion, settings differ, or `out` holds something else.
        DataError: Rows are in conflict or overlap, a folder was changed, or a file that a row names is gone.

    Example:
        >>> import tempfile
        >>> from dfkdata import convert, load_rows, merge_folders
        >>> folders = [tempfile.mkdtemp() + "/out" for _ in range(3)]
        >>> rows = [{"instruction": "Sapa dunia.", "output": "Halo."}, {"instruction": "Sapa!", "output": "Hai."}]
        >>> for folder, end in zip(folders, (1, 2)):
        ...     _ = convert(rows[:end], folder, format="alpaca", validation=0)
        >>> summary = merge_folders(folders[:2], folders[2])
        >>> summary.rows["out"], summary.left_out
        (2, {'copy': 1})
    """
    parents = opened_parents(folders)
    configs = [parent.manifest.config for parent in parents]
    check_same([parent.path for parent in parents], configs, accept)
    layout = known_layout(configs[0].get("to"), parents[0].path)
    folder = Folder(Path(out))
    if os.path.realpath(out) in [os.path.realpath(parent.path) for parent in parents]:
        raise ConfigError(f"{out}: is one of the folders that are merged; give another --out")
    chosen = policies(parents, on_conflict, on_overlap)
    head = merged_manifest.head(parents, folder.final, chosen, paths, materialize)
    old = None if overwrite else _earlier(folder, head)
    if old is not None:
        return _summary(folder, old, fresh=False)
    with folder.alone():
        check_strangers(folder, [], overwrite=overwrite)
        folder.start()
        try:
            rows = [ParentRows(parent, layout) for parent in parents]
            decisions = Decider(rows, *chosen, progress).decide()
            namer = RowNamer(folder.naming(paths), folder.partial / MEDIA, materialize)
            facts = _Merge(folder, rows, decisions, namer, layout).write()
            manifest = head | facts | {"merge": head["merge"] | facts["merge"]}
            if manifest["rows"]["out"]:
                folder.finish(manifest)
        finally:
            folder.discard()
    return _summary(folder, manifest, fresh=True)


def _earlier(folder: Folder, head: dict[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of this very merge if it was finished before; raise `ConfigError` for anything else."""
    old = folder.manifest()
    if old is None:
        return None
    merge = old.get("merge")
    same = all(old.get(key) == value for key, value in head.items() if key != "merge")
    if same and isinstance(merge, dict) and head["merge"].items() <= merge.items():
        return old
    raise ConfigError(
        f"{folder.final}: holds another conversion or merge; give another --out or use --overwrite"
    )


def _summary(folder: Folder, manifest: dict[str, Any], *, fresh: bool) -> MergeSummary:
    written = {Path(entry["path"]).stem: entry["rows"] for entry in manifest["outputs"] if "rows" in entry}
    return MergeSummary(
        folder=folder.final,
        rows=manifest["rows"],
        splits={name: written[name] for name in SPLITS if name in written},
        left_out=manifest["merge"]["left_out"],
        on_conflict=manifest["merge"]["on_conflict"],
        on_overlap=manifest["merge"]["on_overlap"],
        looked=manifest["merge"]["looked"],
        fresh=fresh,
    )


class _Warned(msgspec.Struct):
    row: str = ""
    partner_row: str = ""


class _Merge:
    """Write the files of a merge and count what is in them."""

    def __init__(
        self, folder: Folder, rows: Sequence[ParentRows], decisions: Decisions, namer: RowNamer, layout: str
    ) -> None:
        self._folder, self._rows, self._decisions, self._namer = folder, rows, decisions, namer
        self._parents: list[Parent] = [one.parent for one in rows]
        self._layout = layout
        self._export: ModuleType = plugins.load(EXPORTS, layout)
        names = sorted({name for parent in self._parents for name in parent.manifest.labels})
        self._labels, self._images = LabelCounts(names if layout in NAMED else ()), ImageCounts()
        splits = [split for split in SPLITS if any(split in parent.splits for parent in self._parents)]
        self._files = {split: folder.lines(f"{split}.jsonl") for split in splits}
        self._left_out = folder.lines(LEFT_OUT)
        self._reasons: Counter[str] = Counter()
        self._columns: dict[str, set[str]] = {split: set() for split in splits}
        self._moved: dict[tuple[int, str], str] = dict.fromkeys(self._warned(), "")

    def write(self) -> dict[str, Any]:
        """Write everything; return the manifest's part about rows and outputs."""
        for split in ORDER:
            for number, folder in enumerate(self._rows):
                for at, row in enumerate(folder.parent.rows(split)):
                    self._one(split, number, at, row)
        for file in (*self._files.values(), self._left_out):
            file.close()
        others = [self._joined(name) for name in ("quarantine.jsonl", "duplicates.jsonl")]
        outputs = [*self._files.values(), *others, self._warnings()]
        if self._left_out.rows:
            outputs.append(self._left_out)
        else:
            self._left_out.path.unlink()
        if hasattr(self._export, "extra_files"):
            columns = {split: keys for split, keys in self._columns.items() if self._files[split].rows}
            for name, data in self._export.extra_files(columns).items():
                (self._folder.partial / name).write_bytes(data)
        return self._facts(outputs)

    def _one(self, split: str, number: int, at: int, row: ParentRow) -> None:
        folder = self._rows[number]
        raw = folder.raw(row)
        record = folder.record(row, raw)
        columns = raw.keys()
        line = self._namer.line(row, raw, record)
        left_out = self._decisions.of(split, number, at)
        if left_out is not None:
            before = self._files[split].rows
            self._reasons[left_out[0]] += 1
            self._left_out.put(LeftOut(*left_out, split, before, msgspec.Raw(line.rstrip(b"\r\n"))))
            place = f"{LEFT_OUT}:{self._left_out.rows}"
        else:
            self._files[split].put_line(line if line.endswith(b"\n") else line + b"\n")
            self._columns[split].update(columns)
            self._labels.add(self._labels.of(record), split)
            for picture in folder.pictures(row, record):
                self._images.add(picture)
            place = f"{split}.jsonl:{self._files[split].rows}"
        if (number, row.place) in self._moved:
            self._moved[number, row.place] = place

    def _warned(self) -> list[tuple[int, str]]:
        """Return (number of the folder, place) of the rows that warnings name."""
        decode = msgspec.json.Decoder(_Warned).decode
        places = [
            (number, place)
            for number, parent in enumerate(self._parents)
            for warning in map(decode, parent.lines("warnings.jsonl"))
            for place in (warning.row, warning.partner_row)
        ]
        return [place for place in places if place[1]]

    def _joined(self, name: str) -> JsonlWriter:
        """Write a file of all folders one behind the other."""
        file = self._folder.lines(name)
        for parent in self._parents:
            for line in parent.lines(name):
                file.put_line(line)
        file.close()
        return file

    def _warnings(self) -> JsonlWriter:
        """Write the warnings of all folders; they name rows where these stand now."""
        file = self._folder.lines("warnings.jsonl")
        for number, parent in enumerate(self._parents):
            for line in parent.lines("warnings.jsonl"):
                warning = msgspec.json.decode(line)
                if warning.get("row") or warning.get("partner_row"):
                    for key in ("row", "partner_row"):
                        warning[key] = self._moved.get((number, warning.get(key, ""))) or warning.get(key, "")
                file.put(warning)
        file.close()
        return file

    def _facts(self, outputs: Sequence[JsonlWriter]) -> dict[str, Any]:
        out = sum(file.rows for file in self._files.values())
        reasons = dict(sorted(self._reasons.items()))
        named = self._layout in NAMED
        labels = (
            merged_manifest.label_sums(self._parents) if not named and not reasons else self._labels.facts()
        )
        facts: dict[str, Any] = {
            "rows": merged_manifest.row_counts(self._parents, out, reasons),
            "codes": merged_manifest.rules(parent.manifest.codes for parent in self._parents),
            "warnings": merged_manifest.rules(parent.manifest.warnings for parent in self._parents),
            "labels": labels,
            "images": self._images.facts(),
            "merge": {"left_out": reasons, "looked": self._decisions.looked},
        }
        facts |= merged_manifest.reading_facts(self._parents)
        if named and all(parent.manifest.config.get("balance") for parent in self._parents):
            facts["weights"] = self._labels.weights("train")
        if folders := self._folder.media_folders():
            facts["media_folders"] = folders
        facts["outputs"] = sorted((file.facts for file in outputs), key=lambda entry: str(entry["path"]))
        return facts
