"""Training layouts: one file a layout writes rows as one trainer reads them, and reads them back.

FAMILY. A member is named as users call it (`--to NAME`). It takes rows of the canonical layout (`messages`,
see `dfkdata.rows.messages`) and defines:

    def row(row) -> dict         the layout's row; raises `RowError` if this layout cannot hold it
    def inverse(row) -> dict     back to canonical: `inverse(row(r)) == bare(r)` for each row `r` it accepts
    def check(row) -> None       the layout's own rules on a finished row; raises `RowError`
    def extra_files(columns) -> dict[str, bytes]     optional: files that belong beside the rows, from split -> its keys

None of them does I/O. A layout of plain text has no borders between text parts, and chat templates render
none: `bare` joins neighbouring text parts and leaves out what such a layout has no room for (id, meta, ids of
calls). A complete member:

    from dfkdata.exports import Row, RowError

    COLUMNS = ("images", "videos", "audios", "tools")


    def row(row: Row) -> Row:
        return {"turns": row["messages"]} | {name: row[name] for name in COLUMNS if name in row}


    def inverse(row: Row) -> Row:
        return {"messages": row["turns"]} | {name: row[name] for name in COLUMNS if name in row}


    def check(row: Row) -> None:
        if not row["turns"]:
            raise RowError("LAYOUT_CANNOT", "a row without turns", path="turns")
"""

from __future__ import annotations

from dfkdata.exports._plain_text import bare
from dfkdata.rows.record import Row, RowError

#: Names that every member defines.
REQUIRED = ("row", "inverse", "check")

__all__ = ["Row", "RowError", "bare"]
