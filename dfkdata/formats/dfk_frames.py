"""Frames of DFK videos with claims as CSV: link, frame_path, ringkasan, klaim, fakta, label, analisis.

Frames of one link share a group: published splits put frames of one post into both splits. `--variant
image_only` asks with the picture alone."""

from __future__ import annotations

from dfkdata.formats import Fit, Likeness, Row, _posts
from dfkdata.rows.record import Record

SCHEMA: str | None = "dfk_label"
VARIANT = "claims"
COLUMNS = (frozenset({"frame_path", "label", "analisis"}),)
Options = _posts.Options


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like a frame with its label; such tables hold summaries, too."""
    needed = COLUMNS[0] <= row.keys()
    return Likeness(Fit.TYPICAL, "columns frame_path, label, analisis") if needed else None


def record(row: Row, source: str, options: _posts.Options) -> Record:
    """Return one frame; an empty path or label raises `RowError`, an empty analysis gives a warning."""
    return _posts.post(row, source, (_posts.frame(row),), options)
