"""Reports of runs: Markdown for terminals and pull requests, and one self-contained HTML page for people.

Promises: everything that comes from data or a model is escaped; the page loads nothing, runs no script, and
says so in its Content-Security-Policy; pictures are small thumbnails inside the page."""

from __future__ import annotations

from dfkeval.reports.charts import Curve, line_chart
from dfkeval.reports.formatting import number
from dfkeval.reports.markdown import comparison_table, markdown, metric_rows, table
from dfkeval.reports.page import document, page

__all__ = [
    "Curve",
    "comparison_table",
    "document",
    "line_chart",
    "markdown",
    "metric_rows",
    "number",
    "page",
    "table",
]
