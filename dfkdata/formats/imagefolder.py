"""Folders of pictures as the `datasets` library reads them: a folder's name is the label, or metadata holds it.

    train/kucing/1.jpg                      the label is "kucing"; the folder at the top is the split
    metadata.csv (.jsonl, .parquet)         file_name, and a column such as label or text for each picture

The input is the folder, or a zip or tar of it. Folders at the top named `train`, `valid`, `dev`, `test` and so
on give the splits. Of the metadata's columns the first of `answer` is taken. `--question` says what is asked;
without it, the picture alone is shown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dfkdata.formats import Fit, Likeness, Record, Row, RowError, _seen, text
from dfkdata.rows.file_names import file_names

SCHEMA: str | None = "answer"
COLUMNS = ()  # users name the columns of metadata
FILES = ("pictures",)
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_ROWS = (
    ".csv",
    ".tsv",
    ".json",
    ".jsonl",
    ".ndjson",
    ".parquet",
    ".arrow",
    ".xlsx",
    ".gz",
    ".zst",
    ".txt",
    ".cls",
)
_NOTES = ("readme", "license", "classes")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_PACKED = re.compile(r"^.*?\.(?:zip|tar\.gz|tar|tgz)/")


class Options(_seen.Options):
    """ask: the question of rows that have none (`--question`). field: the schema's field for the answer.
    answer, question: columns of metadata; of several the first that is filled counts."""

    answer: tuple[str, ...] | str = ("label", "text", "caption", "answer", "output")
    question: str = "question"


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like one of metadata, or like a picture of a labelled folder."""
    if any(key == "file_name" or key.endswith("_file_name") for key in row) and "image_id" not in row:
        return Likeness(Fit.LIKELY, "a column file_name")
    return None


def detect_files(names: Sequence[str]) -> Likeness | None:
    """Return how much files look like labelled pictures: metadata beside them, or nothing but pictures in folders."""
    inside = [_PACKED.sub("", name) for name in names if not name.lower().endswith(_ARCHIVES)]
    pictures = [name for name in inside if name.lower().endswith(_PICTURES)]
    metadata = [last for name in inside if (last := name.rsplit("/")[-1]) in _METADATA]
    if metadata and (pictures or len(metadata) == len(inside)):
        return Likeness(Fit.MARKED, f"{metadata[0]} beside pictures")
    labelled = [name for name in pictures if "/" in name]
    rows = [last for name in inside if (last := name.lower().rsplit("/")[-1]).endswith(_ROWS)]
    if (
        not labelled
        or 2 * len(labelled) <= len(pictures)
        or any(not last.startswith(_NOTES) for last in rows)
    ):
        return None
    return Likeness(Fit.MARKED, "pictures in folders and no table")


def record(row: Row, source: str, options: Options) -> Record:
    """Return one picture with its label; a row without either raises `RowError`."""
    names = (options.answer,) if isinstance(options.answer, str) else options.answer
    column, answer = _seen.first_text(row, names)
    if not answer:
        reason = f"no label: no folder names it, and none of {', '.join(names)} is filled"
        hint = "put the picture into a folder of its class"
        raise RowError("FIELD_EMPTY", reason, path=names[0], value=row, hint=hint)
    shown = next((row[name] for name in ("images", "image", "file_name") if row.get(name) is not None), None)
    images = file_names(shown, "image")
    if not images:
        raise RowError(
            "FIELD_EMPTY", "no picture", path="file_name", value=row, hint="name the file of the picture"
        )
    return _seen.seen(
        source,
        images=images,
        question=text(row, options.question) or options.ask,
        answer=answer,
        field=options.field,
        meta={"raw_label": answer} if column == "label" else {},
    )
