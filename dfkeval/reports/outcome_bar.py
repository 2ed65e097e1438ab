"""Draw the outcomes of a run as a bar and a table; each part links to its samples."""

from __future__ import annotations

from collections import Counter
from typing import Any

from markupsafe import Markup

from dfkdata.pages import Look
from dfkeval.reports.formatting import agrees
from dfkeval.reports.outcome_look import HATCHES, form_of, look_of
from dfkeval.runs.run import Run
from dfkeval.types import OUTCOMES

WIDTH = 640


def outcome_bar(run: Run, place: int, look: Look) -> Markup:
    """Return the bar and its table.

    Args:
        run: The run.
        place: Its number on the page.
        look: The look of the page.
    """
    form, total, x = form_of(run.schema, run.config.mode), max(1, run.summary["n"]), 0.0
    parts = []
    for code, right, count in _counts(run):
        outcome, width = look_of(code, form, look.w), count / total * WIDTH
        wrong = right == 0  # such an answer is valid, so it is hatched in a hue of its own
        parts.append(
            {
                "code": code,
                "name": outcome.name
                if right is None
                else f"{outcome.name}, {look.w('right' if right else 'wrong')}",
                "meaning": outcome.meaning,
                "sign": "✕" if wrong else outcome.sign,
                "kind": "wrong" if wrong else outcome.kind,
                "pattern": 0 if wrong else outcome.pattern,
                "count": count,
                "share": f"{count / total:.1%}",
                "link": f"#run={place}&outcome={code}" + ("" if right is None else f"&right={right}"),
                "x": f"{x:.2f}",
                "width": f"{width:.2f}",
            }
        )
        x += width
    return look.render("dfkeval.reports", "outcomes.html", place=place, parts=parts, hatches=HATCHES)


def _counts(run: Run) -> list[tuple[str, int | None, int]]:
    """Return (outcome, right or wrong or neither, number); of valid answers the right ones come first."""
    counts: Counter[tuple[str, int | None]] = Counter()
    for sample in run.samples:
        verdict: Any = agrees(sample) if sample.outcome == "ok" else None
        counts[sample.outcome, None if verdict is None else int(verdict)] += 1
    order = {code: at for at, code in enumerate(OUTCOMES)}
    ranked = sorted(counts, key=lambda key: (order[key[0]], -1 if key[1] is None else 1 - key[1]))
    return [(code, right, counts[code, right]) for code, right in ranked]
