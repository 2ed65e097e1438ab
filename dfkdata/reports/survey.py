"""Read the rows of a converted data set once: lengths, sizes of pictures, and the rows that a page shows."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from dfkdata.media.images import UnreadableImageError, image_size
from dfkdata.reports.row_text import characters
from dfkdata.rows.messages import load_rows

MOST_PICTURES = 5000
"""Pictures whose sizes are read; each costs a file that is opened."""
NEAR = ("TEXT_NEAR_DUPLICATE", "IMG_NEAR_DUPLICATE", "GROUP_ACROSS")
MOST_PAIRS = 12
MOST_EXAMPLES = 5

Row = dict[str, Any]


@dataclass
class Survey:
    """What one reading found.

    Attributes:
        prompts: Characters of text before the answer, row by row.
        answers: Characters of text in the answers.
        sizes: (width, height) of pictures.
        chosen: (split, row) of the rows with the smallest hashes of their ids.
        wanted: "file:line" -> row, for the rows that were asked for.
    """

    prompts: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    chosen: list[tuple[str, Row]] = field(default_factory=list)
    wanted: dict[str, Row] = field(default_factory=dict)


def survey(folder: Path, splits: Sequence[str], samples: int, places: set[str]) -> Survey:
    """Return what the rows of a folder hold.

    Args:
        folder: A finished conversion to the messages layout.
        splits: Its splits that have a file.
        samples: Number of rows to choose.
        places: "file:line" of rows to keep besides.
    """
    found = Survey()
    best: list[tuple[int, int, str, Row]] = []
    for number, (split, place, row) in enumerate(_all_rows(folder, splits)):
        found.prompts.append(characters(row, answers=False))
        found.answers.append(characters(row, answers=True))
        _measure(row, found.sizes)
        if place in places:
            found.wanted[place] = row
        name = int(sha256(str(row["id"]).encode()).hexdigest(), 16)
        entry = (-name, -number, split, row)
        if len(best) < samples:
            heapq.heappush(best, entry)
        elif best and entry[:2] > best[0][:2]:
            heapq.heapreplace(best, entry)
    found.chosen = [
        (split, row) for _, _, split, row in sorted(best, key=lambda entry: entry[:2], reverse=True)
    ]
    return found


def _all_rows(folder: Path, splits: Sequence[str]) -> Iterator[tuple[str, str, Row]]:
    for split in splits:
        name = f"{split}.jsonl"
        for line, row in enumerate(load_rows(folder / name), start=1):
            yield split, f"{name}:{line}", row


def _measure(row: Row, sizes: list[tuple[int, int]]) -> None:
    for image in row["images"]:
        if len(sizes) >= MOST_PICTURES:
            return
        try:
            sizes.append(image_size(image))
        except UnreadableImageError:
            continue


def lines_of(path: Path) -> list[Row]:
    """Return the objects of a JSONL file that `convert` wrote; none if there is no such file."""
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()] if path.is_file() else []


def near_pairs(warnings: Sequence[Row]) -> list[tuple[str, str, list[str]]]:
    """Return (held-out row, training row, rules) of rows that are alike, the pairs of most rules first."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for warning in warnings:
        if warning["code"] in NEAR and warning.get("row"):
            pairs.setdefault((warning["row"], warning["partner_row"]), []).append(warning["code"])
    ranked = sorted(pairs.items(), key=lambda pair: -len(pair[1]))
    return [(row, partner, codes) for (row, partner), codes in ranked]
