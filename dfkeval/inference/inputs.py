"""Inputs without gold: a raw format (see `dfkdata.formats`) whose rows are asked and not taught, and folders
of pictures.

    {"title": "Judul", "text": "Isi", "img_path": "images/1.png", "id"?: key of the row}

Every column with text is an input by its name, and the schema's prompt shows those that it knows: title and
text for posts, caption for captions, question for questions. Numbers count as text; other values are not
inputs. A row needs a text or an image. The column `caption`, where there is one, is kept as `meta.text`: what
an answer must be grounded in. Outside `dfkdata.formats`, since what it reads cannot be converted into
training rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dfkdata import read, sources
from dfkdata.common.config import Config
from dfkdata.common.errors import ConfigError
from dfkdata.common.hashing import content_id
from dfkdata.formats import Row, key, path_list
from dfkdata.rows.record import Record, Reject, RowError

SCHEMA: str | None = "caption"
COLUMNS = ()  # columns are the user's
NAME = "dfkeval.inference.inputs"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


class Options(Config):
    """image: the first of these columns that holds something names the row's pictures. id: the column with
    the row's key. source: the text that an answer must be grounded in."""

    image: tuple[str, ...] | str = ("image", "images", "img_path")
    id: str = "id"
    source: str = "caption"


def record(row: Row, source: str, options: Options) -> Record:
    """One row. Raises `RowError` for a row that shows nothing, and for pictures that are no paths."""
    columns = (options.image,) if isinstance(options.image, str) else options.image
    images = _images(row, columns)
    fields = {
        name: found
        for name, value in row.items()
        if name not in columns and name != options.id and (found := _shown(value))
    }
    if not fields and not images:
        hint = "give it a text, or a picture in the column " + " or ".join(columns)
        raise RowError("EMPTY_USER", "the row has neither text nor picture", value=row, hint=hint)
    name = key(row, options.id)
    told = fields.get(options.source)
    content = content_id(*images, *(part for pair in sorted(fields.items()) for part in pair))
    return Record(
        id=name or content,
        keyed=bool(name),
        group=name or content,
        source=source,
        fields=fields,
        images=images,
        meta={"text": told} if told else {},
    )


def rows(
    given: str | Path,
    format: str | None = None,
    *,
    images: str | Path | None = None,
    store: str | Path | None = None,
) -> Iterator[Record | Reject]:
    """The rows of a file or folder: of a raw format, of this one where none is named, or one row a picture
    for a folder that holds pictures and no tables.

    images: where image names start. store: folder for embedded images. Raises `ConfigError` for a folder
    with nothing to ask, and as `dfkdata.read`."""
    folder = Path(given)
    if format is None and folder.is_dir() and not _tables(folder):
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
        if not found:
            raise ConfigError(f"{folder}: holds neither pictures ({', '.join(PICTURES)}) nor tables")
        names = [path.relative_to(folder).as_posix() for path in found]
        raw: list[dict[str, Any]] = [{"id": name, "image": name} for name in names]
        return read(raw, NAME, images=folder)
    return read(given, format if format is not None else NAME, images=images, store=store)


def _tables(folder: Path) -> bool:
    return any(path.name.lower().endswith(sources.SUFFIXES) for path in folder.rglob("*") if path.is_file())


def _shown(value: object) -> str:
    """The value as an input; empty for what is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value.strip() if isinstance(value, str) else ""


def _images(row: Row, columns: tuple[str, ...]) -> tuple[str, ...]:
    column = next((name for name in columns if row.get(name)), None)
    if column is None:
        return ()
    value = row[column]
    if isinstance(value, str):
        return (value,) if value.startswith("data:") else path_list(value.strip(), column)
    if isinstance(value, list) and all(isinstance(each, str) and each for each in value):
        return tuple(value)
    hint = 'write "a.png" or ["a.png", "b.png"]'
    raise RowError("IMG_LIST", "not a path and no list of paths", path=column, value=value, hint=hint)
