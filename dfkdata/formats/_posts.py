"""Options, post and frame of the CSV layouts of DFK posts with claims."""

from __future__ import annotations

from typing import Literal

from dfkdata.common.config import Config
from dfkdata.formats import Row, label, need, text
from dfkdata.rows.record import Record, RowError

CLAIMS = ("ringkasan", "klaim", "fakta")


class Options(Config):
    """images_per_row: "all" images in order, or only the "first"."""

    images_per_row: Literal["all", "first"] = "all"


def post(row: Row, source: str, images: tuple[str, ...], options: Options) -> Record:
    """Return one labelled post; an empty label raises `RowError`, a missing analysis gives a warning."""
    name_of_class = label(row, "label")
    analysis = text(row, "analisis")
    link = text(row, "link")
    fields = {name: text(row, name) for name in CLAIMS}
    return Record(
        id="",
        group=link,
        source=source,
        fields=fields,
        images=images if options.images_per_row == "all" else images[:1],
        gold={"label": name_of_class, "analisis": analysis},
        meta={"raw_label": name_of_class} | ({"link": link} if link else {}),
        warnings=() if analysis else (no_analysis("analisis holds no text"),),
    )


def no_analysis(reason: str) -> RowError:
    """Return the warning about a post that has a label and no reasons for it."""
    hint = "write the analysis; a row without one teaches an empty answer"
    return RowError("EMPTY_ANSWER", reason, path="analisis", hint=hint)


def frame(row: Row) -> str:
    """Return the frame's path without the folder `images/` that some files write twice."""
    path = need(row, "frame_path", hint="name the picture of the frame")
    return path.removeprefix("images/") if path.startswith("images/images/") else path
