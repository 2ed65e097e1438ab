"""Write runs and comparisons to stdout: headline values first, and how to see the others."""

from __future__ import annotations

from collections.abc import Sequence

from dfkdata.common.console import write
from dfkdata.common.tables import write_table
from dfkeval.analysis.comparison import Comparison
from dfkeval.reports.formatting import verdict_line
from dfkeval.reports.markdown import comparison_notes, difference_table, metric_table
from dfkeval.runs.run import Run


def write_metrics(run: Run, *, every: bool = False, option: bool = True) -> None:
    """Write the values of a run.

    Args:
        run: The run.
        every: Whether all values are written, or only the headline values.
        option: Whether the command has --all, to name it.
    """
    table = metric_table(run, every=every)
    write_table(table)
    if more := len(run.summary["metrics"]) - len(table.rows):
        write(f"\n{more} more values {'with --all, or ' if option else ''}in {run.folder / 'report.md'}\n")


def write_comparison(
    pair: Comparison, names: Sequence[str] | None = None, *, every: bool = False, option: bool = True
) -> None:
    """Write the paired differences of two runs, and what a reader should know of them.

    Args:
        pair: The comparison.
        names: Values to write; None for the headline values.
        every: Whether all values are written.
        option: Whether the command has --all, to name it.
    """
    table = difference_table(pair, list(pair.differences) if every else names)
    write(f"{pair.a} -> {pair.b}, {verdict_line(pair)}\n\n")
    write_table(table)
    notes = comparison_notes(pair, names)
    more = len(pair.differences) - len(table.rows)
    notes += [f"{more} more values with --all"] if more and option else []
    write("".join(f"\n{note}" for note in notes) + "\n\n")
