"""Write reports of runs: Markdown, one self-contained HTML page, and numbers for trackers.

Guarantees:

- Everything that comes from data or a model is escaped.
- The page loads nothing and runs no script, and its Content-Security-Policy says so; pictures are small thumbnails
  inside the page."""

from __future__ import annotations

from dfkeval.reports.charts import Curve, line_chart
from dfkeval.reports.formatting import number
from dfkeval.reports.markdown import comparison_table, markdown, metric_rows, table
from dfkeval.reports.notices import notices
from dfkeval.reports.page import document, page

__all__ = [
    "Curve",
    "comparison_table",
    "document",
    "line_chart",
    "markdown",
    "metric_rows",
    "notices",
    "number",
    "page",
    "table",
]
