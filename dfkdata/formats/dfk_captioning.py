"""Frames of DFK videos with their summaries as CSV: frame_path, ringkasan, link, label.

The answer is the summary; a label is kept in `meta` for stratified sampling."""

from __future__ import annotations

from dfkdata.common.config import Config
from dfkdata.formats import Row, _posts, need, text
from dfkdata.rows.record import Record

SCHEMA: str | None = "summary"
COLUMNS = (frozenset({"frame_path", "ringkasan"}),)


class Options(Config):
    """This format has no options."""


def record(row: Row, source: str, options: Options) -> Record:
    """Return one frame; an empty path or summary raises `RowError`."""
    image, summary = _posts.frame(row), need(row, "ringkasan", hint="write the summary")
    link, label = text(row, "link"), text(row, "label")
    meta = {key: value for key, value in (("link", link), ("raw_label", label)) if value}
    return Record(id="", group=link, source=source, images=(image,), gold={"ringkasan": summary}, meta=meta)
