"""Write runs and comparisons as tables, for Markdown files and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from dfkdata.common.tables import TextTable
from dfkdata.pages import mask
from dfkeval.analysis import server_parser
from dfkeval.analysis.comparison import Comparison
from dfkeval.reports.formatting import (
    interval,
    leading,
    number,
    p_value,
    shown,
    signed,
    split,
    verdict_line,
)
from dfkeval.reports.notices import notices
from dfkeval.reports.run_curves import differences
from dfkeval.runs.run import Run
from dfkeval.types import OUTCOMES

FAILED_EXAMPLES = 5
#: Values whose smallest detectable difference is printed under a comparison.
_POWER = ("labels.macro_f1", "fields.f1")


def markdown(run: Run, comparisons: Sequence[Comparison] = (), *, redact: bool = False) -> str:
    """Return the report of a run as Markdown.

    Args:
        run: The run.
        comparisons: Comparisons with it, which are shown after its own numbers.
        redact: Whether handles, links, phone numbers and e-mail addresses are masked.

    Returns:
        Metrics, outcomes, comparisons, and examples of answers that are not valid.
    """
    facts = run.environment.get("backend", {})
    answered_by = ", ".join(
        f"{key.replace('_', ' ')} {facts[key]}"
        for key in ("kind", "model", "adapter", "adapter_effect", "dtype")
        if facts.get(key)
    )
    modes = "".join(f", mode {mode}" for mode in run.config.modes if mode != "free")
    head = [
        f"# {run.name}",
        "",
        f"{run.summary['n']} samples, schema `{run.schema.name}`, {_code(answered_by or run.config.kind)}{modes}",
        "",
    ]
    for notice in notices(run.summary):
        head += [f"> **Note:** {notice}.", ""]
    parts = ["## Metrics", "", *metric_rows(run), "", "## Outcomes", "", *outcome_rows(run), ""]
    parts += [part for line in server_parser.lines(run.summary["details"]) for part in (line, "")]
    parts += _confusion(run.summary["details"].get("labels", {}).get("confusion"))
    differing = differences(run.summary["details"].get("validity", {}))
    if differing:
        lines = [f"- {_code(mask(line) if redact else line)}" for line in differing]
        parts += ["## JSON Schema and answer class differ", "", *lines, ""]
    for comparison in comparisons:
        parts += ["", f"## {comparison.a} -> {comparison.b}", "", comparison_table(comparison), ""]
    examples = [mask(line) if redact else line for line in _examples(run)]
    return "\n".join([*head, *parts, *examples]).rstrip() + "\n"


def metric_rows(run: Run) -> list[str]:
    """Return the Markdown table of all values of a run, headline values first."""
    return metric_table(run, every=True).markdown()


def metric_table(run: Run, *, every: bool) -> TextTable:
    """Return the table of a run's values, headline values first.

    Args:
        run: The run.
        every: Whether all values are in it, or only those that are shown first (`leading`).
    """
    metrics = run.summary["metrics"]
    first, rest = split(metrics)
    rows = [
        (name, number(m["value"]), interval(m["low"], m["high"]), str(m["n"]))
        for name in (first + rest if every else leading(metrics))
        for m in [metrics[name]]
    ]
    return TextTable(("metric", "value", f"{run.summary.get('confidence', 0.95):.0%} interval", "n"), rows)


def outcome_rows(run: Run) -> list[str]:
    """Return the table of outcomes; their shares sum to 100 %."""
    total = run.summary["n"]
    rows = [
        (name, str(count), f"{count / total:.1%}", OUTCOMES[name])
        for name, count in run.summary["outcomes"].items()
    ]
    return TextTable(("outcome", "samples", "share", "meaning"), rows).markdown()


def comparison_table(comparison: Comparison, names: Sequence[str] | None = None) -> str:
    """Return the table of paired differences in Markdown, with notes below it.

    Args:
        comparison: The comparison.
        names: The values to show; None for the headline values.
    """
    notes = [verdict_line(comparison), *(f"- {note}" for note in comparison_notes(comparison, names))]
    return "\n".join([*difference_table(comparison, names).markdown(), "", *notes])


def difference_table(comparison: Comparison, names: Sequence[str] | None = None) -> TextTable:
    """Return the table of paired differences.

    Args:
        comparison: The comparison.
        names: The values to show; None for those that are shown first (`leading`).
    """
    rows = []
    for name in _chosen(comparison, names):
        change = comparison.differences[name]
        rows.append(
            (name, number(change.a), number(change.b), signed(change.value),
             interval(change.low, change.high, True), p_value(change.p_holm), str(change.n),
             comparison.verdict(name))
        )  # fmt: skip
    header = ("metric", comparison.a, comparison.b, "difference", "interval", "p (Holm)", "n", "verdict")
    return TextTable(header, rows, spare=("n", "p (Holm)"))


def comparison_notes(comparison: Comparison, names: Sequence[str] | None = None) -> list[str]:
    """Return what a reader should know of a comparison: its notes, what changed, and what it could find."""
    notes = list(comparison.notes)
    if comparison.changed:
        notes.append(f"{len(comparison.changed)} answers changed")
    chosen = _chosen(comparison, names)
    shown = [(name, comparison.detectable(name)) for name in chosen if name in _POWER]
    return notes + [f"{_power(name, least)} would show in 4 of 5 such runs" for name, least in shown if least]


def _chosen(comparison: Comparison, names: Sequence[str] | None) -> Sequence[str]:
    return leading(comparison.differences) if names is None else names


def _power(name: str, least: float) -> str:
    """Return what a comparison of these rows and runs could find; the values are shares."""
    return f"a true difference of {least:.3f} in {name}" if least <= 1 else f"no true difference in {name}"


def _confusion(matrix: dict[str, Any] | None) -> list[str]:
    if matrix is None:
        return []
    names = matrix["labels"]
    rows = [(name, *map(str, row)) for name, row in zip(names, matrix["matrix"], strict=False)]
    return [
        "## Confusion matrix",
        "",
        *TextTable(("gold \\ answer", *(name.strip("<>") for name in names)), rows).markdown(),
        "",
    ]


def _examples(run: Run) -> list[str]:
    failed = list(islice((sample for sample in run.samples if sample.value is None), FAILED_EXAMPLES))
    lines = ["## Answers that are not valid", ""] if failed else []
    for sample in failed:
        reason = "; ".join(sample.problems) or "no reason given"
        lines += [f"- {_code(sample.id)} {sample.outcome}: {_code(reason)}", "", *_block(sample.text), ""]
        lines += [f"  gold: {_code(shown(sample.gold))}", ""] if sample.gold else []
    return lines


def _code(text: str) -> str:
    """Return a text as inline code, whatever it holds."""
    one_line = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in _ticks(one_line)), default=0))
    return f"{fence} {one_line} {fence}" if "`" in one_line else f"`{one_line}`"


def _block(text: str) -> list[str]:
    """Return a text as a code block inside a list item: two columns for the item and four for the block."""
    cut = text if len(text) <= 1000 else text[:1000] + " …"
    return ["      " + line for line in cut.splitlines()] or ["      (nothing)"]


def _ticks(text: str) -> list[str]:
    return ["`" * len(run) for run in "".join(sign if sign == "`" else " " for sign in text).split()]
