"""DFK posts with claims as CSV: link, img, ringkasan, klaim, fakta, label, analisis.

`img` is one path or a stringified list of paths; all of them are kept unless `images_per_row: first`."""

from __future__ import annotations

from dfkdata.formats import Row, _posts, need, path_list
from dfkdata.rows.record import Record

SCHEMA: str | None = "dfk_label"
VARIANT = "claims"
COLUMNS = (frozenset({"img", "label", "analisis"}),)
Options = _posts.Options


def record(row: Row, source: str, options: _posts.Options) -> Record:
    """Return one post; an empty label or an unreadable list of images raises `RowError`."""
    images = path_list(need(row, "img", hint="name the picture of the post"), "img")
    return _posts.post(row, source, images, options)
