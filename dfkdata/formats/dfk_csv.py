"""DFK posts as CSV, in the two layouts of the first DFK data sets.

    images   title, link, text, img_path, label, analisis       img_path: one path or a stringified list
    legacy   image_filename, analisis_pelanggaran, label        the image is images/<image_filename>, or lies in
                                                                the folder that `-o folder=` names (. for none)

The header says which layout a file has. All images of a row are kept; published adapters were trained on the
first only, which `images_per_row: first` repeats. The answer is the analysis column and nothing else: falling
back to the post's own text would teach copying. Rows that share a link share a group."""

from __future__ import annotations

from typing import Literal

from dfkdata.common.config import Config
from dfkdata.formats import Row, label, need, path_list, text
from dfkdata.formats._posts import no_analysis
from dfkdata.rows.record import Record

SCHEMA = "dfk_label"
COLUMNS = (frozenset({"img_path", "label"}), frozenset({"image_filename", "label"}))


class Options(Config):
    """images_per_row: "all" images in order, or only the "first". folder: where the pictures of image_filename lie
    below the image root; "." is the root itself."""

    images_per_row: Literal["all", "first"] = "all"
    folder: str = "images"


def record(row: Row, source: str, options: Options) -> Record:
    """Return one post; an empty label or an unreadable list of images raises `RowError`.

    A missing analysis gives a warning."""
    images = _images(row, options.folder)
    name_of_class = label(row, "label")
    analysis = text(row, "analisis") or text(row, "analisis_pelanggaran")
    link, title, post = text(row, "link"), text(row, "title"), text(row, "text")
    meta = {"raw_label": name_of_class} | ({"link": link} if link else {})
    return Record(
        id="",
        group=link,
        source=source,
        fields={"title": title, "text": post},
        images=images if options.images_per_row == "all" else images[:1],
        gold={"label": name_of_class, "analisis": analysis},
        meta=meta,
        warnings=() if analysis else (no_analysis("neither analisis nor analisis_pelanggaran holds text"),),
    )


def missing(row: Row) -> str:
    """Return what to do if a picture is not where the layout looks for it."""
    if "img_path" in row:
        return ""
    return "image_filename is looked for in images/ below the image root: -o folder=NAME names another folder, . none"


def _images(row: Row, folder: str) -> tuple[str, ...]:
    if "img_path" in row:
        return path_list(need(row, "img_path", hint="name the picture of the post"), "img_path")
    name = need(row, "image_filename", hint="name the picture of the post")
    folder = folder.replace("\\", "/").rstrip("/")
    return (name if folder in ("", ".") else f"{folder}/{name}",)
