"""Write what a reader must know before any number of a run: shared rows, metrics without a number, and classes that
no row has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfkdata.pages import Words
from dfkdata.validation.overlap import KINDS, SAYS


def notices(summary: Mapping[str, Any], w: Words | None = None) -> list[str]:
    """Return sentences about a run, from its summary; empty if there is nothing to say.

    Args:
        summary: As in summary.json.
        w: Words of the page; None for English.
    """
    w = w or Words()
    return [*unscored(summary, w), *absent_classes(summary, w), *overlap(summary.get("overlap"), w)]


def unscored(summary: Mapping[str, Any], w: Words) -> list[str]:
    """Return a sentence for each metric that no row could be scored by."""
    return [
        w("unscored", name=name, reason=w.known(f"unscored.{reason}", reason))
        for name, reason in summary.get("unscored", {}).items()
    ]


def absent_classes(summary: Mapping[str, Any], w: Words) -> list[str]:
    """Return a sentence if classes of the labels are the gold of no row that was scored."""
    confusion = summary.get("details", {}).get("labels", {}).get("confusion", {"labels": [], "matrix": []})
    rows = list(zip(confusion["labels"], confusion["matrix"], strict=False))  # the last label has no row
    absent = [name for name, counts in rows if not any(counts)]
    if not absent or len(absent) == len(rows):
        return []
    others = [name for name, _ in rows if name not in absent]
    return [w("absent_classes", absent=", ".join(absent), others=", ".join(others))]


def overlap(counts: Mapping[str, int] | None, w: Words) -> list[str]:
    """Return a sentence if rows are shared with training; what is not known is not spoken of.

    Args:
        counts: Kind of `dfkdata.validation.overlap` -> number of rows; None if nothing is known.
        w: Words of the page.
    """
    shared = [
        w("shared_rows", n=counts[kind], what=w.known(f"shared.{kind}", SAYS[kind]))
        for kind in KINDS
        if counts and counts.get(kind)
    ]
    return [w("shared_with_training", what="; ".join(shared))] if shared else []
