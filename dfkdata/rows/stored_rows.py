"""Read the rows of a file of the `messages` layout again whenever they are asked for, instead of holding them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dfkdata.common.media_roots import MediaRoots
from dfkdata.common.stored_lines import StoredLines
from dfkdata.rows.messages import read_row, unreadable


def stored_rows(
    path: str | Path,
    check: Callable[[int, dict[str, Any]], None],
    *,
    opens_media: bool = True,
    limit: int | None = None,
) -> StoredLines[dict[str, Any]]:
    """Return the rows that `load_rows` yields, as a sequence; each has been read once.

    Args:
        path: As for `load_rows`.
        check: Called with the place of each row, from 0, and the row.
        opens_media: As for `load_rows`.
        limit: Number of rows that are read; None for all.

    Raises:
        DataError: As `load_rows`; later, if the file is changed between two looks at it.
    """
    path = Path(path)
    root = path.parent.resolve()
    roots = MediaRoots(path) if opens_media else None

    def read(roots: MediaRoots | None, line: bytes, number: int) -> dict[str, Any]:
        return read_row(line, f"{path}:{number}", root, roots)

    try:
        rows = StoredLines(path, partial(read, None))
        lines = rows.scan(limit=limit)
        for place, (number, line) in enumerate(lines):
            check(place, read(roots, line, number))
    except OSError as error:
        raise unreadable(path, error) from error
    return rows
