"""The canonical layout itself: what `dfkeval` and `dfktrain` read, and what TRL and Unsloth take.

    {"id", "messages", "images": [...], "tools"?, "meta"}

Content is always a list of parts, an image always the bare placeholder {"type": "image"}, `images` always a
list."""

from __future__ import annotations

from dfkdata.rows.record import Row


def row(row: Row) -> Row:
    """The row as it is."""
    return row


def inverse(row: Row) -> Row:
    """The row as it is."""
    return row


def check(row: Row) -> None:
    """Nothing beyond the general rules: they are this layout's rules."""
