"""Captions of COCO: one JSON document with the lists `images` and `annotations`.

    {"images": [{"id": 391895, "file_name": "000000391895.jpg"}, ...],
     "annotations": [{"id": 770337, "image_id": 391895, "caption": "A man with a red helmet."}, ...]}

Each caption is a row; the captions of one picture share a group. `--images` names the folder of the pictures,
such as `train2017`, and `--question` says how a caption is asked for. `captions_train2017.json` and
`captions_val2017.json` give the splits: with the pattern `'coco/annotations/captions_*.json'`, `--images coco` and
`-o 'folder={name}'` each file's pictures lie in the folder that the end of its name says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from dfkdata.formats import Fit, Likeness, Record, Row, RowError, _seen, key, need

SCHEMA: str | None = "answer"
COLUMNS = (frozenset({"caption", "file_name"}),)
FILES = ("splits",)
_NAME = re.compile(r"_([^_/]+)\.json(?:\.\w+)?:\d+(?:\[\d+\])?$")


class Options(_seen.Options):
    """ask: the question of rows that have none (`--question`). field: the schema's field for the answer.
    folder: where the pictures lie below `--images`; {name} is what follows the last _ in the file's name."""

    folder: str = ""


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like COCO's document, or like one of its captions."""
    captions = row.get("annotations")
    if isinstance(captions, list) and isinstance(row.get("images"), list):
        if captions and isinstance(captions[0], dict) and {"caption", "image_id"} <= captions[0].keys():
            return Likeness(Fit.MARKED, "images and annotations with captions")
        return None
    if {"caption", "image_id", "file_name"} <= row.keys():
        return Likeness(Fit.LIKELY, "columns caption, image_id, file_name")
    return None


def missing(_: Row) -> str:
    """Return what to do if a picture is not where the document says."""
    return "-o folder=NAME says where below the image root the pictures lie"


def expand(row: Row) -> Iterator[Row]:
    """Yield each caption of a document with the file of its picture; other rows as they are."""
    images, captions = row.get("images"), row.get("annotations")
    if not isinstance(images, list) or not isinstance(captions, list):
        yield row
        return
    files = {_key(image.get("id")): image.get("file_name") for image in images if isinstance(image, dict)}
    for caption in captions:
        if isinstance(caption, dict):
            yield {**caption, "file_name": files.get(_key(caption.get("image_id")))}
        else:
            yield {"caption": caption}


def _key(value: Any) -> str:
    return str(value)


def record(row: Row, source: str, options: Options) -> Record:
    """Return one caption; one without text, or of a picture that the document does not list, raises `RowError`."""
    caption = need(row, "caption", hint="write the caption, or leave the annotation out")
    if row.get("file_name") is None:
        reason, hint = "the document lists no picture of this caption", "list the picture under images"
        raise RowError("FIELD_EMPTY", reason, path="image_id", value=row.get("image_id"), hint=hint)
    return _seen.seen(
        source,
        images=(_placed(need(row, "file_name"), source, options.folder),),
        question=options.ask,
        answer=caption,
        field=options.field,
        key=key(row, "id"),
        group=key(row, "image_id"),
    )


def _placed(name: str, source: str, folder: str) -> str:
    found = _NAME.search(source)
    folder = folder.replace("{name}", found[1] if found else "").strip("/")
    return f"{folder}/{name}" if folder else name
