"""Repeat the split of the SITA framework bit for bit, so that published adapters can be compared.

It shuffles rows, not groups, so copies and neighbours of one post stand in both splits: use it to reproduce,
not to measure. Duplicates are kept, since removing them would change the order."""

from __future__ import annotations

import random
from pathlib import Path

from dfkdata.common.errors import ConfigError
from dfkdata.common.jsonl import JsonlWriter
from dfkdata.conversion.counts import LabelCounts, Labels
from dfkdata.conversion.options import ConvertOptions
from dfkdata.conversion.output_folder import Folder
from dfkdata.rows.record import Record


class SitaSplit:
    """Take rows in file order, all into the training file, and divide that file at the end.

    Rows of one file are shuffled, subsampled by label, shuffled again, and then divided. Training and validation
    files are subsampled one after the other by one random source, and never shuffled as a whole.

    Attributes:
        order: Places (from 0) of the rows as they were written, in training and in validation.
    """

    def __init__(self, options: ConvertOptions) -> None:
        self._options = options
        self._labels: list[str] = []
        self._counted: list[Labels] = []
        self._fixed: list[str | None] = []
        self.order: tuple[list[int], list[int]] = ([], [])

    def add(self, record: Record, counted: Labels, split: str | None) -> None:
        """Remember a row that is written.

        Args:
            record: The row.
            counted: What `LabelCounts` counts of it.
            split: The split that its source fixes; None for a row of one file with both.

        Raises:
            ConfigError: The source fixes a split that SITA does not have.
        """
        if split not in (None, "train", "validation"):
            raise ConfigError(
                f"{record.source} belongs to the split {split!r}; split=sita makes training and validation only: "
                "leave these rows out (--where), or take another split"
            )
        gold = record.gold or {}
        label = str(record.meta.get("raw_label") or gold.get("label") or "unknown")
        self._labels.append(label.strip().lower())
        self._counted.append(counted)
        self._fixed.append(split)

    def divide(self, folder: Folder, files: dict[str, JsonlWriter], counts: LabelCounts) -> int:
        """Write training and validation rows in SITA's order, count their labels, and return how many rows its
        caps left out.
        """
        old, count = files["train"].path, len(self._labels)
        self.order = splits = self._splits(count)
        before = old.rename(old.with_suffix(".before"))
        files["validation"].path.unlink()
        starts = _starts(before)
        with before.open("rb") as lines:
            for name, chosen in zip(("train", "validation"), splits, strict=True):
                files[name] = folder.lines(f"{name}.jsonl")
                for at in chosen:
                    lines.seek(starts[at])
                    files[name].put_line(lines.readline())
                    counts.add(self._counted[at], name)
                files[name].close()
        before.unlink()
        return count - sum(map(len, splits))

    def _splits(self, count: int) -> tuple[list[int], list[int]]:
        options = self._options
        pick = random.Random(options.seed)
        cut = options.max_samples
        if any(self._fixed):
            held_out = [at for at, split in enumerate(self._fixed) if split == "validation"]
            train = [at for at, split in enumerate(self._fixed) if split != "validation"]
            splits = self._sampled(train, pick), self._sampled(held_out, pick)
        else:
            # SITA's first loader cuts before the shuffle, all others after the split
            first = options.format == "dfk_csv"
            order = list(range(count if cut is None or not first else min(cut, count)))
            pick.shuffle(order)
            order = self._sampled(order, pick)
            size = int(len(order) * round(1 - options.validation, 12))
            splits = order[:size], order[size:]
            cut = None if first else cut
        return splits[0][:cut], splits[1][:cut]

    def _sampled(self, rows: list[int], pick: random.Random) -> list[int]:
        """Return the same share of each label's rows, at least one a label, in a new order."""
        share = self._options.subsample
        if share == 1:
            return rows
        groups: dict[str, list[int]] = {}
        for at in rows:
            groups.setdefault(self._labels[at], []).append(at)
        sample: list[int] = []
        for label in sorted(groups):
            sample += pick.sample(groups[label], max(1, int(len(groups[label]) * share)))
        pick.shuffle(sample)
        return sample


def _starts(path: Path) -> list[int]:
    """Return the byte offset of each line."""
    starts, at = [], 0
    with path.open("rb") as lines:
        for line in lines:
            starts.append(at)
            at += len(line)
    return starts
