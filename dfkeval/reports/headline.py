"""Say the result of a page in one sentence: "Accuracy 0.88 (was 0.42), 33 posts, +0.46 [0.23, 0.69]"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dfkdata.pages import Words
from dfkeval.analysis.comparison import Comparison
from dfkeval.reports.formatting import interval, number, signed
from dfkeval.reports.outcome_look import form_of
from dfkeval.runs.run import Run

MOST = 3
"""Sentences on one page."""
#: The values that a sentence is about; the first that a run has.
LEADING = (
    "labels.accuracy", "fields.f1", "answers.exact", "answers.f1", "keywords.phrase_f1", "rouge.f1", "bertscore.f1",
    "validity.schema_valid", "loss.loss",
)  # fmt: skip


@dataclass(frozen=True)
class Headline:
    """One sentence in its parts.

    Attributes:
        metric: Name of the value, as people read it.
        value: The value.
        was: The value of the run that it is compared with; empty without one.
        n: "33 posts".
        change: The difference with its interval; without a comparison, the interval of the value.
        verdict: As `Difference.verdict`; empty without a comparison.
        of: What the sentence is about, if there are several.
    """

    metric: str
    value: str
    was: str
    n: str
    change: str
    verdict: str
    of: str = ""

    @property
    def text(self) -> str:
        """Return the whole sentence."""
        was = f" ({self.was})" if self.was else ""
        change = f", {self.change}" if self.change else ""
        return f"{self.metric} {self.value}{was}, {self.n}{change}"


def metric_name(code: str, run: Run, w: Words) -> str:
    """Return what people call a value, by the form that was asked; its code if it has no other name."""
    by_form = w.known(f"metric.{code}.{form_of(run.schema, run.config.mode)}", "")
    return by_form or w.known(f"metric.{code}", code)


def counted(n: int, run: Run, w: Words) -> str:
    """Return "33 posts" for a schema of posts, else "33 samples"."""
    unit = w.known(f"unit.{run.schema.name}", "")
    return unit.format(n=n) if unit else w("n_samples", n=n)


def headlines(runs: Sequence[Run], comparisons: Sequence[Comparison], w: Words) -> list[Headline]:
    """Return the sentences of a page: of each comparison, the best of those with one base; else of each run."""
    if not comparisons:
        return [line for run in runs[:MOST] if (line := _of_run(run, w, len(runs) > 1))]
    best: dict[str, tuple[float, Headline]] = {}
    for pair in comparisons:
        run = next((run for run in runs if run.name == pair.b), runs[-1])
        code = next((name for name in LEADING if name in pair.differences), "")
        if not code or pair.differences[code].b is None:
            continue
        change = pair.differences[code]
        line = Headline(
            metric_name(code, run, w), number(change.b, 2), w("was", value=number(change.a, 2)),
            counted(pair.n, run, w), _change(change), change.verdict, pair.b if len(comparisons) > 1 else "",
        )  # fmt: skip
        worth = -float(change.b or 0) if change.lower_is_better else float(change.b or 0)
        if pair.a not in best or worth > best[pair.a][0]:
            best[pair.a] = worth, line
    return [line for _, line in best.values()][:MOST]


def _change(change: Any) -> str:
    ends = interval(change.low, change.high, digits=2)
    return f"{signed(change.value, 2)} {ends}".strip() if change.value is not None else ""


def _of_run(run: Run, w: Words, named: bool) -> Headline | None:
    values = run.summary["metrics"]
    code = next((name for name in LEADING if name in values and values[name]["value"] is not None), None)
    if code is None:
        return None
    found = values[code]
    ends = interval(found["low"], found["high"], digits=2)
    name = run.name if named else ""
    return Headline(
        metric_name(code, run, w), number(found["value"], 2), "", counted(found["n"], run, w), ends, "", name
    )
