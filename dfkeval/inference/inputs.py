"""Read inputs without gold answers: files of any raw format, files with one column an input, and folders of
pictures.

    {"title": "Judul", "text": "Isi", "img_path": "images/1.png", "videos"?, "audios"?, "id"?: key of the row}

The module is a raw format (see `dfkdata.formats`) itself. Every column with text is an input under its name,
and the schema's prompt shows those that it knows: title and text for posts, caption for captions, question
for questions. Numbers count as text; other values are not inputs. A row needs a text or a picture. The column
`caption`, if there is one, is kept as `meta.text`, which an answer must be grounded in. The module stands
outside `dfkdata.formats`, because what it reads cannot be converted into training rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from dfkdata import read, sources
from dfkdata.common.config import Config
from dfkdata.common.data_uri import is_data_uri
from dfkdata.common.errors import ConfigError
from dfkdata.common.hashing import content_id
from dfkdata.formats import Row, key, path_list
from dfkdata.rows.file_names import file_names
from dfkdata.rows.record import Record, Reject, RowError
from dfkdata.schemas import Schema

SCHEMA: str | None = "caption"
COLUMNS = ()  # columns are the user's
NAME = "dfkeval.inference.inputs"
#: Rows that are given to a backend together.
CHUNK = 256
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


class Options(Config):
    """Options of the raw format.

    Args:
        image: Columns; the first that holds something names the row's pictures.
        id: Column with the row's key.
        source: Column with the text that an answer must be grounded in.
    """

    image: tuple[str, ...] | str = ("image", "images", "img_path")
    id: str = "id"
    source: str = "caption"


def record(row: Row, source: str, options: Options) -> Record:
    """Read one row. Raises `RowError` if it shows nothing, or its pictures are not paths."""
    columns = (options.image,) if isinstance(options.image, str) else options.image
    images = _images(row, columns)
    films = {column: _files(row, column) for column in ("videos", "audios")}
    fields = {
        name: text
        for name, value in row.items()
        if name not in (*columns, *films) and name != options.id and (text := _as_text(value))
    }
    files = (*images, *films["videos"], *films["audios"])
    if not fields and not files:
        hint = "give it a text, or a picture in the column " + " or ".join(columns)
        raise RowError("EMPTY_USER", "the row has neither text nor picture", value=row, hint=hint)
    name = key(row, options.id)
    source_text = fields.get(options.source)
    content = content_id(*files, *(part for pair in sorted(fields.items()) for part in pair))
    return Record(
        id=name or content,
        keyed=bool(name),
        group=name or content,
        source=source,
        fields=fields,
        images=images,
        videos=films["videos"],
        audios=films["audios"],
        meta={"text": source_text} if source_text else {},
    )


def rows(
    source: str | Path,
    format: str | None = None,
    *,
    images: str | Path | None = None,
    store: str | Path | None = None,
) -> Iterator[Record | Reject]:
    """Read the rows of a file or folder.

    Args:
        source: A file or a folder. A folder of pictures without tables gives one row a picture.
        format: Raw format of the file; None takes every column as an input under its name.
        images: Folder where picture names start.
        store: Folder for pictures that are embedded in the file.

    Returns:
        Records and, for rows that cannot be read, rejects.

    Raises:
        ConfigError: The folder holds nothing to ask; or as `dfkdata.read` raises it.
    """
    folder = Path(source)
    if format is None and folder.is_dir() and not _has_tables(folder):
        pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
        if not pictures:
            raise ConfigError(f"{folder}: holds neither pictures ({', '.join(PICTURES)}) nor tables")
        names = [path.relative_to(folder).as_posix() for path in pictures]
        raw: list[dict[str, Any]] = [{"id": name, "image": name} for name in names]
        return read(raw, NAME, images=folder)
    return read(source, format if format is not None else NAME, images=images, store=store)


def _has_tables(folder: Path) -> bool:
    return any(path.name.lower().endswith(sources.SUFFIXES) for path in folder.rglob("*") if path.is_file())


def _as_text(value: object) -> str:
    """Return the value as text; empty if it is not an input."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value.strip() if isinstance(value, str) else ""


def _files(row: Row, column: str) -> tuple[str, ...]:
    """Return the videos or audio files of a row: a path, or a list of paths."""
    return file_names(row.get(column) or None, column)


def _images(row: Row, columns: tuple[str, ...]) -> tuple[str, ...]:
    column = next((name for name in columns if row.get(name)), None)
    if column is None:
        return ()
    value = row[column]
    if isinstance(value, str):
        return (value,) if is_data_uri(value) else path_list(value.strip(), column)
    if isinstance(value, list) and all(isinstance(path, str) and path for path in value):
        return tuple(value)
    hint = 'write "a.png" or ["a.png", "b.png"]'
    raise RowError("IMG_LIST", "not a path and no list of paths", path=column, value=value, hint=hint)


def askable(rows: Iterable[Record | Reject], schema: Schema) -> Iterator[Record | Reject]:
    """Yield the rows; a row with nothing of what the schema's prompt shows becomes a `Reject`."""
    known = schema.prompt.fields
    for row in rows:
        if isinstance(row, Reject) or _shows_something(row, known):
            yield row
            continue
        has = ", ".join(row.fields) or "nothing"
        reason = f"the prompt of {schema.name} shows {', '.join(known)} and images; the row has {has}"
        yield Reject(source=row.source, code="NO_INPUT", reason=reason)


def _shows_something(record: Record, known: Sequence[str]) -> bool:
    own = record.messages is not None or bool(record.images or record.videos or record.audios)
    return own or any(record.fields.get(name) for name in known)


def name_of(row: Record | Reject) -> str:
    """Return what a row is called in the output: its id, or the place of a reject."""
    return row.id if isinstance(row, Record) else row.source


def numbered(rows: Iterable[Record | Reject]) -> Iterator[Record | Reject]:
    """Yield the rows under names that occur once.

    The second row of a name is called "name#2", or takes the next number that is free, and so on."""
    counts: Counter[str] = Counter()
    for row in rows:
        first = name = name_of(row)
        while name in counts:
            counts[first] += 1
            name = f"{first}#{counts[first]}"
        counts[name] = 1
        if name == first:
            yield row
        else:
            yield replace(row, id=name) if isinstance(row, Record) else replace(row, source=name)
