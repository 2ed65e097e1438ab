"""Write reports of runs: Markdown, one self-contained HTML page, and numbers for trackers.

Guarantees:

- Everything that comes from data or a model is escaped, or is written into the page as text by its script.
- The page loads nothing and runs no script but its own, and its Content-Security-Policy says so; pictures are small
  JPEGs inside the page."""

from __future__ import annotations

from dfkeval.reports.formatting import number
from dfkeval.reports.leaderboard import LeaderboardEntry, sweep_page
from dfkeval.reports.markdown import (
    comparison_notes,
    comparison_table,
    difference_table,
    markdown,
    metric_rows,
    metric_table,
)
from dfkeval.reports.notices import notices
from dfkeval.reports.page import page, page_parts
from dfkeval.reports.terminal import write_comparison, write_metrics

__all__ = [
    "LeaderboardEntry",
    "comparison_notes",
    "comparison_table",
    "difference_table",
    "markdown",
    "metric_rows",
    "metric_table",
    "notices",
    "number",
    "page",
    "page_parts",
    "sweep_page",
    "write_comparison",
    "write_metrics",
]
