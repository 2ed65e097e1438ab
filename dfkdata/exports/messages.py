"""The canonical layout itself: what `dfkeval` and `dfktrain` read, and what TRL and Unsloth take.

    {"id", "messages", "images": [...], "tools"?, "meta"}

Content is always a list of parts, an image always the bare placeholder {"type": "image"}, `images` always a
list."""

from __future__ import annotations

from dfkdata.rows.record import Row


def row(row: Row) -> Row:
    """Return the row as it is."""
    return row


def inverse(row: Row) -> Row:
    """Return the row as it is."""
    return row


def check(row: Row) -> None:
    """Accept every row: the general rules are this layout's rules."""
