"""Frames of DFK videos with claims as CSV: link, frame_path, ringkasan, klaim, fakta, label, analisis.

Frames of one link share a group: published splits put frames of one post into both splits. `--variant
image_only` asks with the picture alone."""

from __future__ import annotations

from dfkdata.formats import Row, _posts
from dfkdata.rows.record import Record

SCHEMA: str | None = "dfk_label"
VARIANT = "claims"
COLUMNS = (frozenset({"frame_path", "label", "analisis"}),)
Options = _posts.Options


def record(row: Row, source: str, options: _posts.Options) -> Record:
    """Return one frame; an empty path or label raises `RowError`, an empty analysis gives a warning."""
    return _posts.post(row, source, (_posts.frame(row),), options)
