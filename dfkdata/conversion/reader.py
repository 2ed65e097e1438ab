"""Files -> records: the one loop under every format.

`pairs` gives each raw row with what became of it; `read` gives only the latter and is the public door.
Promise: one `Record` or `Reject` for every raw row, in file order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
from msgspec.structs import replace

from dfkdata import sources
from dfkdata.common import plugins
from dfkdata.common.config import Config, bind
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.hashing import content_id
from dfkdata.media.resolver import MediaResolver
from dfkdata.rows.record import Record, Reject, RowError

FAMILY = "dfkdata.formats"
Pair = tuple[Any, Record | Reject]
"""The raw row and what became of it."""


def read(
    input: sources.Input,
    format: str,
    *,
    images: str | Path | None = None,
    store: str | Path | None = None,
    options: dict[str, Any] | None = None,
) -> Iterator[Record | Reject]:
    """The rows of `input` in the raw layout `format`, as records and rejects in order.

    input: a file (.csv, .json, .jsonl, .parquet, each also .gz or .zst), a folder, a pattern, a zip or tar,
    hf://datasets/ORG/NAME@REV, or rows in memory. images: folder where image names start and outside which
    none may lie; default: the folder of the input. store: folder for embedded images and unpacked archives.
    options: the format's own options, for example {"images_per_row": "first"}.
    Raises `ConfigError` for an unknown format or option or an `images` that is no folder, `DataError` for a
    file that is not of this format."""
    module = plugins.load(FAMILY, format)
    bound = bind(options or {}, module.Options, f"format {format}")
    keep = Path(store) if store is not None else None
    demand_folder(images)
    parts = sources.parts(input, store=keep)
    return (
        _named(item, raw)
        for part in parts
        for raw, item in pairs(part, module, bound, media_for(part, images, keep))
    )


def demand_folder(images: str | Path | None) -> None:
    """Raises `ConfigError` where image names are to start in a folder that is none."""
    if images is not None and not Path(images).is_dir():
        raise ConfigError(f"images: {images} is no folder; give the one in which image names start")


def media_for(part: sources.Part, images: str | Path | None, store: Path | None) -> MediaResolver:
    """Where the images of a part may lie: under `images`, or the part's own root, and in the store."""
    return MediaResolver((Path(images) if images is not None else part.root,), store)


def _named(item: Record | Reject, raw: Any) -> Record | Reject:
    """A record whose format leaves the name to its content gets it; a doubtful one is a reject here."""
    if isinstance(item, Reject):
        return item
    if item.warnings:
        return item.warnings[0].reject(item.source, raw)
    if item.id:
        return item if item.group else replace(item, group=item.id)
    name = turns_digest(msgspec.json.encode(item.messages), item.tools).hex()
    return replace(item, id=name, group=item.group or name)


def group_of(item: Record) -> str:
    """The group of a record that `read` would name."""
    return item.group or item.id or turns_digest(msgspec.json.encode(item.messages), item.tools).hex()


def turns_digest(turns: bytes, tools: Any) -> bytes:
    """8 bytes over the encoded turns of a row and its tools."""
    return sha256(turns + msgspec.json.encode(tools) if tools else turns).digest()[:8]


def pairs(part: sources.Part, module: ModuleType, options: Config, media: MediaResolver) -> Iterator[Pair]:
    """(raw row, `Record` or `Reject`) for each raw row of `part`, image paths absolute."""
    make: Callable[..., Record] = module.record
    checked = False
    for row, source in sources.rows(part):
        if type(row) is Reject:
            yield row.raw, row
            continue
        if not checked:
            _check_columns(row, module, part.name)
            checked = True
        try:
            record = make(row, source, options)
            if record.images or record.videos or record.audios:
                record = _located(record, media)
        except RowError as fault:
            yield row, fault.reject(source, row)
            continue
        yield row, record


def _located(record: Record, media: MediaResolver) -> Record:
    """`record` with absolute media paths, and with a group made of its media where the row names none. Raises
    `RowError`. Names stay part of an identity that the turns give."""
    changed = replace(
        record,
        images=tuple(media.locate(name) for name in record.images),
        videos=tuple(media.other(name, "video") for name in record.videos),
        audios=tuple(media.other(name, "audio") for name in record.audios),
    )
    if not record.group:
        changed = replace(changed, group=_media_group(changed.images, record, media))
    if record.id:
        return changed
    turns = turns_digest(msgspec.json.encode(record.messages), record.tools).hex()
    name = content_id(turns, *record.images, *record.videos, *record.audios)
    return replace(changed, id=name)


def _media_group(paths: tuple[str, ...], record: Record, media: MediaResolver) -> str:
    """Rows with the same first picture, whatever it is called, or else with a video or audio file of the same
    name, belong together. Raises `RowError` for a picture that cannot be read."""
    if paths:
        return media.picture(paths[0]).digest.hex()[:16]
    return content_id(*(record.videos or record.audios)[:1])


def _check_columns(row: Any, module: ModuleType, name: str) -> None:
    """A table's first row shows its header. Raises `DataError` when no layout of the format has these
    columns."""
    if (
        ".csv" not in name.lower()
        or not module.COLUMNS
        or any(columns <= row.keys() for columns in module.COLUMNS)
    ):
        return
    wanted = " or ".join(", ".join(sorted(columns)) for columns in module.COLUMNS[:4])
    kind = module.__name__.removeprefix(FAMILY + ".")
    raise DataError(
        f"{name}: not of the format {kind!r}: it has the columns {', '.join(row)}; it needs {wanted}"
    )
