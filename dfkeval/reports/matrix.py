"""Draw a confusion matrix: square, errors in a hue of their own, counts with shares; each cell links to its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from dfkdata.pages import Look

UNPARSED = "unparsed"


def matrix(confusion: Mapping[str, Any], place: int, look: Look) -> Markup:
    """Return the matrix of a run.

    Args:
        confusion: {"labels", "matrix"}: the last label stands for answers that could not be read.
        place: The run's number on the page.
        look: The look of the page.
    """
    names = [*confusion["labels"][:-1], UNPARSED]
    counts: Sequence[Sequence[int]] = confusion["matrix"]
    used = [at for at in range(len(names)) if at < len(names) - 1 or any(row[-1] for row in counts)]
    rows = [
        (names[at], [_cell(names[at], names[to], row[to], sum(row), place) for to in used], sum(row))
        for at, row in enumerate(counts)
    ]
    columns = [look.w("unparsed") if names[at] == UNPARSED else names[at] for at in used]
    return look.render("dfkeval.reports", "matrix.html", columns=columns, rows=rows)


def _cell(gold: str, answer: str, count: int, total: int, place: int) -> tuple[int, str, str, str]:
    """Return (count, CSS class, link, share of the gold label)."""
    share = count / total if total else 0.0
    link = "#" + urlencode({"run": place, "gold": gold, "answer": answer})
    return count, f"{'h' if gold == answer else 'w'}{min(5, 1 + int(share * 5))}", link, f"{share:.0%}"
