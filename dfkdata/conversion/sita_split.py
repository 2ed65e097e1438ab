"""The split that the SITA framework makes, bit for bit, so that published adapters can be compared on their
own rows.

It shuffles rows, not groups, so copies and neighbours of one post stand on both sides; use it to reproduce,
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
    """Takes rows in file order, all into the training file, and divides that file at the end."""

    def __init__(self, plan: ConvertOptions) -> None:
        self.plan = plan
        self.labels: list[str] = []
        self.sides: tuple[list[int], list[int]] = ([], [])

    def add(self, record: Record) -> None:
        """Remember the label of a row that is written."""
        gold = record.gold or {}
        self.labels.append(str(gold.get("label") or record.meta.get("raw_label", "")).lower())

    def divide(self, folder: Folder, files: dict[str, JsonlWriter]) -> int:
        """Write training and validation rows in SITA's order (`sides`); how many rows its caps left out."""
        plan, old = self.plan, files["train"].path
        ratio, count = round(1 - plan.validation, 12), len(self.labels)
        first = (
            plan.format == "dfk_csv"
        )  # the first loader cuts before the shuffle, all others after the split
        sides = places(count, ratio, plan.seed, cut=plan.max_samples if first else None)
        if plan.subsample < 1:
            sides = subsampled(sides, self.labels, plan.subsample, plan.seed, shuffled=sum(map(len, sides)))
        if plan.max_samples is not None and not first:
            sides = sides[0][: plan.max_samples], sides[1][: plan.max_samples]
        self.sides = sides
        before = old.rename(old.with_suffix(".before"))
        files["validation"].path.unlink()
        starts = _starts(before)
        with before.open("rb") as lines:
            for name, chosen in zip(("train", "validation"), sides, strict=True):
                files[name] = folder.lines(f"{name}.jsonl")
                for at in chosen:
                    lines.seek(starts[at])
                    files[name].put_line(lines.readline())
                files[name].close()
        before.unlink()
        return count - sum(map(len, sides))


def _starts(path: Path) -> list[int]:
    """Byte offset of each line."""
    starts, at = [], 0
    with path.open("rb") as lines:
        for line in lines:
            starts.append(at)
            at += len(line)
    return starts


def places(count: int, ratio: float, seed: int, *, cut: int | None = None) -> tuple[list[int], list[int]]:
    """(training, evaluation) places of `count` rows. ratio: share of training. cut: rows kept before the
    shuffle."""
    order = list(range(count if cut is None else min(cut, count)))
    random.Random(seed).shuffle(order)
    train = int(len(order) * ratio)
    return order[:train], order[train:]


def subsampled(
    sides: tuple[list[int], list[int]],
    labels: Sequence[str],
    share: float,
    seed: int,
    *,
    shuffled: int | None,
) -> tuple[list[int], list[int]]:
    """Both sides with `share` of each label's rows, at least one; rows without a label count as "unknown".

    shuffled: how many rows the same random source has shuffled before (ratio mode), None for fixed files."""
    pick = random.Random(seed)
    if shuffled is not None:
        pick.shuffle(list(range(shuffled)))
    return _side(sides[0], labels, share, pick), _side(sides[1], labels, share, pick)


def _side(rows: list[int], labels: Sequence[str], share: float, pick: random.Random) -> list[int]:
    groups: dict[str, list[int]] = {}
    for at in rows:
        groups.setdefault(labels[at] or "unknown", []).append(at)
    kept: list[int] = []
    for label in sorted(groups):
        kept += pick.sample(groups[label], max(1, int(len(groups[label]) * share)))
    pick.shuffle(kept)
    return kept
