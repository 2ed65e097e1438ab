"""Read files into records: the one loop under every format.

`pairs` yields each raw row with what became of it; the public `read` yields only the latter.

Guarantee: one `Record` or `Reject` for every raw row, in file order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
from msgspec.structs import replace

from dfkdata import sources
from dfkdata.common import media_roots, plugins
from dfkdata.common.config import Config, bind
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.hashing import content_id
from dfkdata.conversion import detection, output_folder
from dfkdata.conversion.detection import FAMILY
from dfkdata.conversion.label_map import unsettled
from dfkdata.conversion.unread_columns import FILES, ColumnWatch
from dfkdata.media.resolver import MediaResolver
from dfkdata.rows.record import Record, Reject, RowError
from dfkdata.schemas import Schema
from dfkdata.validation.rules import rule_of

_FILE_COLUMNS = frozenset(FILES)

Pair = tuple[Any, Record | Reject]
"""The raw row and what became of it."""


def read(
    input: sources.Input,
    format: str,
    *,
    images: str | Path | None = None,
    store: str | Path | None = None,
    options: dict[str, Any] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
    header_row: int | None = None,
    schema: Schema | None = None,
) -> Iterator[Record | Reject]:
    """Read raw rows as records and rejects, in order.

    Args:
        input: A file (.csv, .json, .jsonl, .parquet, each also .gz or .zst, or .xlsx), a folder, a pattern, a zip or
            tar, hf://datasets/ORG/NAME@REV, or rows in memory.
        format: Name of the raw format; "auto" finds it by the first rows.
        images: Folder where image names start and outside which none may lie; default: the input's folder.
        store: Folder for embedded images and unpacked archives.
        options: The format's own options, for example {"images_per_row": "first"}.
        delimiter: The sign between the cells of CSV files; None recognises it.
        encoding: The encoding of CSV files; None recognises it.
        sheet: The sheet of .xlsx files, by name or number; None takes the only one with rows.
        header_row: The line of CSV files, or row of a sheet, that names the columns; None is the first.
        schema: A schema with spellings of labels of your own, which settle conflicts between columns.

    Yields:
        One `Record` or `Reject` for every raw row.

    Raises:
        ConfigError: The format or an option is unknown, `auto` finds none or two, or `images` is not a folder.
        DataError: A file is not of this format.

    Example:
        >>> from dfkdata import read
        >>> rows = [{"instruction": "Sapa dunia.", "output": "Halo, dunia."}, {"instruction": "Sapa!"}]
        >>> [type(item).__name__ for item in read(rows, "alpaca")]
        ['Record', 'Reject']
    """
    tables = sources.TableOptions(encoding, delimiter, sheet, header_row)
    if detection.is_auto(format):
        input, found = detection.detected(input, format, tables=tables)
        format = found.name
    module = plugins.load(FAMILY, format)
    bound = bind(options or {}, module.Options, f"format {format}")
    keep = Path(store) if store is not None else None
    check_folder(images)
    parts = sources.parts(input, store=keep, tables=tables, files=files_of(module))
    return (
        _named(item, raw, part.split, schema)
        for part in parts
        for raw, item in pairs(part, module, bound, media_for(part, images, keep))
    )


def check_folder(images: str | Path | None) -> None:
    """Raise `ConfigError` if `images` is given and is not a folder."""
    if images is not None and not Path(images).is_dir():
        raise ConfigError(f"images: {images} is not a folder; give the one in which image names start")


def media_for(part: sources.Part, images: str | Path | None, store: Path | None) -> MediaResolver:
    """Return the resolver of a part's media: under `images` or the part's own root, and in the store.

    A file that a conversion wrote names its media from its own folder, and may name those that the conversion found."""
    written = None
    if images is None and part.path is not None and not part.fetched:
        written = output_folder.media_folders(part.path)
    allowed = tuple(map(Path, media_roots.allowed()))
    if written is not None:
        return MediaResolver((written[0],), store, also=(*written[1:], *allowed))
    return MediaResolver(
        (Path(images),) if images is not None else (part.root, *part.also), store, also=allowed
    )


def _named(item: Record | Reject, raw: Any, split: str | None, schema: Schema | None) -> Record | Reject:
    """Name a record by its content if its format left that open; one that breaks a strict rule is a reject here."""
    if isinstance(item, Reject):
        return item
    if split is not None:
        item = replace(item, split=split)
    for warning in unsettled(item, schema):
        if rule_of(warning.code).default == "quarantine":
            return warning.reject(item.source, raw)
    if item.id:
        return item if item.group else replace(item, group=item.id)
    name = record_digest(item).hex()
    return replace(item, id=name, group=item.group or name)


def group_of(item: Record) -> str:
    """Return the group of a record that `read` would name."""
    return item.group or item.id or record_digest(item).hex()


def turns_digest(turns: bytes, beside: bytes) -> bytes:
    """Return 8 bytes over the turns of a row and what stands beside them, its tools and its options of the chat
    template; all encoded, and nothing for what it has not."""
    return sha256(turns + beside).digest()[:8]


def row_digest(turns: bytes, files: Iterable[bytes]) -> bytes:
    """Return 8 bytes over a row: the digest of its turns, and what identifies its files (`MediaResolver.digests`)."""
    whole = b"".join((turns, *files))
    return turns if len(whole) == len(turns) else sha256(whole).digest()[:8]


def record_digest(record: Record) -> bytes:
    """Return the digest of a record's turns, or of its fields and gold if it has none."""
    if record.messages is None:
        said = msgspec.json.encode((record.fields, record.gold), order="sorted")
        return turns_digest(said, b"")
    beside = [more for more in (record.tools, record.chat_template_kwargs) if more]
    return turns_digest(msgspec.json.encode(record.messages), b"".join(map(msgspec.json.encode, beside)))


def watch_of(module: ModuleType, options: Config) -> ColumnWatch:
    """Return what watches which columns of a part a format reads."""
    return ColumnWatch(
        partial(_unsourced, module.record, options), module.__name__.removeprefix(FAMILY + ".")
    )


def pairs(
    part: sources.Part,
    module: ModuleType,
    options: Config,
    media: MediaResolver,
    watch: ColumnWatch | None = None,
) -> Iterator[Pair]:
    """Yield (raw row, `Record` or `Reject`) for each raw row of `part`, image paths absolute.

    Args:
        part: The part.
        module: The format.
        options: Its own options.
        media: Finds the media of the part.
        watch: Watches the columns of the part; None begins to.

    Raises:
        DataError: A table has none of the format's headers.
    """
    make: Callable[..., Record] = module.record
    watch = watch_of(module, options) if watch is None else watch
    checked, looks = False, True
    rows: Iterator[Any] = sources.rows(part, module.COLUMNS)
    if hasattr(module, "expand"):
        rows = _expanded(rows, module.expand, part.name)
    for row, source in rows:
        if type(row) is Reject:
            yield row.raw, row
            continue
        if not checked:
            _check_columns(row, module, part)
            checked = True
        try:
            record = make(row, source, options)
            if looks:
                looks = watch.look(row)
                part.lost[:] = watch.lost
            if not _FILE_COLUMNS.isdisjoint(row):
                record = watch.checked(row, record)
            if record.messages is None or record.images or record.videos or record.audios:
                record = _located(record, media)
        except RowError as error:
            if (
                error.code == "IMG_MISSING"
                and hasattr(module, "missing")
                and (way_out := module.missing(row))
            ):
                error.hint = f"{error.hint}{' ' if error.hint.endswith('?') else '; '}{way_out}"
            yield row, error.reject(source, row)
            continue
        yield row, record


def _unsourced(make: Callable[..., Record], options: Config, row: Any) -> Record:
    return make(row, "", options)


def _expanded(
    rows: Iterator[sources.SourcedRow], expand: Callable[[Any], Iterator[Any]], name: str
) -> Iterator[sources.SourcedRow]:
    """Yield the rows that documents hold, numbered through the part; other rows as they are."""
    number = 0
    for row, source in rows:
        if type(row) is Reject:
            yield row, source
            continue
        for one in expand(row):
            number += 1
            yield one, source if one is row else f"{name}:{number}"


def files_of(module: ModuleType) -> tuple[str, ...]:
    """Return how the rows of a format lie in files."""
    return tuple(getattr(module, "FILES", ("rows",)))


def _located(record: Record, media: MediaResolver) -> Record:
    """Return `record` with absolute media paths, and with an id and a group made of its media if the row names none.

    Names of files tell no two rows apart: other folders hold other files of the same name. Raises `RowError`."""
    if not (record.images or record.videos or record.audios):
        return record if record.id else replace(record, id=record_digest(record).hex())
    images = tuple(map(media.locate, record.images))
    videos = tuple(media.other(name, "video") for name in record.videos) if record.videos else ()
    audios = tuple(media.other(name, "audio") for name in record.audios) if record.audios else ()
    name, group = record.id, record.group
    if not (name and group):
        digests = [digest.hex() for digest in media.digests(images, videos, audios)]
        name = name or content_id(record_digest(record).hex(), *digests)
        group = group or digests[0][:16]
    return replace(record, id=name, group=group, images=images, videos=videos, audios=audios)


def _check_columns(row: Any, module: ModuleType, part: sources.Part) -> None:
    """Raise `DataError` if the first row of a table shows a header that no layout of the format has."""
    if not part.facts or not module.COLUMNS or any(columns <= row.keys() for columns in module.COLUMNS):
        return
    needed = " or ".join(", ".join(sorted(columns)) for columns in module.COLUMNS[:4])
    kind = module.__name__.removeprefix(FAMILY + ".")
    how = "--sheet names another one"
    read = f"read from the sheet {part.facts.get('sheet')!r}"
    if "encoding" in part.facts:
        read = f"read as {part.facts['encoding']} with {part.facts['delimiter']!r} between cells"
        how = "--encoding and --delimiter set that"
    raise DataError(
        f"{part.name}: not of the format {kind!r}: it has the columns {', '.join(row)}; it needs {needed}"
        f" ({read}; {how}){detection.suggestion([row], kind)}"
    )
