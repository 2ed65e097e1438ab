"""Repeat the split of the SITA framework bit for bit, so that published adapters can be compared.

It shuffles rows, not groups, so copies and neighbours of one post stand in both splits: use it to reproduce,
not to measure. Duplicates are kept, since removing them would change the order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from dfkdata.common.jsonl import JsonlWriter
from dfkdata.conversion.options import ConvertOptions
from dfkdata.conversion.output_folder import Folder
from dfkdata.rows.record import Record


class SitaSplit:
    """Take rows in file order, all into the training file, and divide that file at the end.

    Attributes:
        order: Places (from 0) of the rows as they were written, in training and in validation.
    """

    def __init__(self, options: ConvertOptions) -> None:
        self._options = options
        self._labels: list[str] = []
        self.order: tuple[list[int], list[int]] = ([], [])

    def add(self, record: Record) -> None:
        """Remember the label of a row that is written."""
        gold = record.gold or {}
        self._labels.append(str(gold.get("label") or record.meta.get("raw_label", "")).lower())

    def divide(self, folder: Folder, files: dict[str, JsonlWriter]) -> int:
        """Write training and validation rows in SITA's order; return how many rows its caps left out."""
        options, old = self._options, files["train"].path
        ratio, count = round(1 - options.validation, 12), len(self._labels)
        # SITA's first loader cuts before the shuffle, all others after the split
        first = options.format == "dfk_csv"
        splits = places(count, ratio, options.seed, cut=options.max_samples if first else None)
        if options.subsample < 1:
            splits = subsampled(
                splits, self._labels, options.subsample, options.seed, shuffled=sum(map(len, splits))
            )
        if options.max_samples is not None and not first:
            splits = splits[0][: options.max_samples], splits[1][: options.max_samples]
        self.order = splits
        before = old.rename(old.with_suffix(".before"))
        files["validation"].path.unlink()
        starts = _starts(before)
        with before.open("rb") as lines:
            for name, chosen in zip(("train", "validation"), splits, strict=True):
                files[name] = folder.lines(f"{name}.jsonl")
                for at in chosen:
                    lines.seek(starts[at])
                    files[name].put_line(lines.readline())
                files[name].close()
        before.unlink()
        return count - sum(map(len, splits))


def _starts(path: Path) -> list[int]:
    """Return the byte offset of each line."""
    starts, at = [], 0
    with path.open("rb") as lines:
        for line in lines:
            starts.append(at)
            at += len(line)
    return starts


def places(count: int, ratio: float, seed: int, *, cut: int | None = None) -> tuple[list[int], list[int]]:
    """Return the places (from 0) of training and evaluation rows.

    Args:
        count: Number of rows.
        ratio: Share of training.
        seed: Of the shuffle.
        cut: Rows that are kept before the shuffle; None for all.
    """
    order = list(range(count if cut is None else min(cut, count)))
    random.Random(seed).shuffle(order)
    train = int(len(order) * ratio)
    return order[:train], order[train:]


def subsampled(
    splits: tuple[list[int], list[int]],
    labels: Sequence[str],
    share: float,
    seed: int,
    *,
    shuffled: int | None,
) -> tuple[list[int], list[int]]:
    """Return both splits with `share` of each label's rows, at least one a label.

    Args:
        splits: Places of training and evaluation rows.
        labels: Label of each row; an empty one counts as "unknown".
        share: Of the rows to keep.
        seed: Of the choice.
        shuffled: How many rows the same random source has shuffled before; None for fixed files.
    """
    pick = random.Random(seed)
    if shuffled is not None:
        pick.shuffle(list(range(shuffled)))
    return _sampled(splits[0], labels, share, pick), _sampled(splits[1], labels, share, pick)


def _sampled(rows: list[int], labels: Sequence[str], share: float, pick: random.Random) -> list[int]:
    groups: dict[str, list[int]] = {}
    for at in rows:
        groups.setdefault(labels[at] or "unknown", []).append(at)
    sample: list[int] = []
    for label in sorted(groups):
        sample += pick.sample(groups[label], max(1, int(len(groups[label]) * share)))
    pick.shuffle(sample)
    return sample
