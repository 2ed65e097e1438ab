"""Write what a reader must know before any number of a run: shared rows, metrics without a number, and classes that
no row has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfkdata.validation.overlap import KINDS, SAYS


def notices(summary: Mapping[str, Any]) -> list[str]:
    """Return sentences about a run, from its summary; empty if there is nothing to say."""
    return [*unscored(summary), *absent_classes(summary), *overlap(summary.get("overlap"))]


def unscored(summary: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each metric that no row could be scored by."""
    return [
        f"metric {name} has no number: {reason} for it"
        for name, reason in summary.get("unscored", {}).items()
    ]


def absent_classes(summary: Mapping[str, Any]) -> list[str]:
    """Return a sentence if classes of the labels are the gold of no row that was scored."""
    confusion = summary.get("details", {}).get("labels", {}).get("confusion", {"labels": [], "matrix": []})
    rows = list(zip(confusion["labels"], confusion["matrix"], strict=False))  # the last label has no row
    absent = [name for name, counts in rows if not any(counts)]
    if not absent or len(absent) == len(rows):
        return []
    others = [name for name, _ in rows if name not in absent]
    return [
        f"no row has the gold {', '.join(absent)}: macro averages are those of {', '.join(others)},"
        " and their intervals say nothing of an average over all classes"
    ]


def overlap(counts: Mapping[str, int] | None) -> list[str]:
    """Return a sentence if rows are shared with training; what is not known is not spoken of.

    Args:
        counts: Kind of `dfkdata.validation.overlap` -> number of rows; None if nothing is known.
    """
    shared = [f"{counts[kind]} rows {SAYS[kind]}" for kind in KINDS if counts and counts.get(kind)]
    if not shared:
        return []
    return [f"shared with training: {'; '.join(shared)}. Scores on such rows are too good"]
