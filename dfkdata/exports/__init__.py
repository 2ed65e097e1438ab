"""FAMILY: one training layout a file.

A member writes the canonical row (the `messages` layout, see `dfkdata.rows.messages`) as one trainer reads it, and
back:

    def row(row) -> dict         the layout's row; raises `RowError` where this layout cannot hold it
    def inverse(row) -> dict     back to canonical: `inverse(row(r)) == bare(r)` for each row `row` accepts
    def check(row) -> None       the layout's own rules on a finished row; raises `RowError`
    def extra_files(splits) -> dict[str, bytes]     optional: files that belong beside the rows

All are pure. A layout of plain text has no borders between text parts, and chat templates render none: `bare`
joins neighbouring text parts and leaves out what such a layout has no room for (id, meta, ids of calls)."""

from __future__ import annotations

from dfkdata.exports._plain_text import bare
from dfkdata.rows.record import Row, RowError

__all__ = ["Row", "RowError", "bare"]
