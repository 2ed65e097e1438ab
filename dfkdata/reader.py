"""Files -> records: the one loop under every format.

`pairs` gives each raw row with what became of it; `read` gives only the latter and is the public door.
Promise: one `Record` or `Reject` for every raw row, in file order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
from msgspec.structs import replace

from dfkdata import plugins, sources
from dfkdata.config import Config, bind
from dfkdata.errors import DataError
from dfkdata.identity import content_id
from dfkdata.media import Media
from dfkdata.records import Fault, Record, Reject

FAMILY = "dfkdata.formats"
Pair = tuple[Any, Record | Reject]
"""The raw row and what became of it."""


def read(
    path: str | Path,
    format: str,
    *,
    images: str | Path | None = None,
    options: dict[str, Any] | None = None,
) -> Iterator[Record | Reject]:
    """The rows of `path` in the raw layout `format`, as records and rejects in file order.

    images: folder where image names start and outside which none may lie; default: the folder of `path`.
    options: the format's own options, for example {"images_per_row": "first"}.
    Raises `ConfigError` for an unknown format or option, `DataError` for a file that is not of this
    format."""
    path = Path(path)
    module = plugins.load(FAMILY, format)
    media = Media((Path(images) if images is not None else path.parent,))
    found = pairs(path, module, bind(options or {}, module.Options, f"format {format}"), media)
    return (_named(item) for _, item in found)


def _named(item: Record | Reject) -> Record | Reject:
    """A record whose format leaves the name to its content gets it."""
    if isinstance(item, Reject) or item.id:
        return item
    name = turns_digest(msgspec.json.encode(item.messages), item.tools).hex()
    return replace(item, id=name, group=item.group or name)


def turns_digest(turns: bytes, tools: Any) -> bytes:
    """8 bytes over the encoded turns of a row and its tools."""
    return sha256(turns + msgspec.json.encode(tools) if tools else turns).digest()[:8]


def pairs(path: Path, module: ModuleType, options: Config, media: Media) -> Iterator[Pair]:
    """(raw row, `Record` or `Reject`) for each raw row of `path`, image paths absolute."""
    make: Callable[..., Record] = module.record
    checked = False
    for row, source in sources.rows(path):
        if type(row) is Reject:
            yield row.raw, row
            continue
        if not checked:
            _check_columns(row, module, path)
            checked = True
        try:
            record = make(row, source, options)
            if record.images:
                record = _located(record, media)
        except Fault as fault:
            yield row, fault.reject(source, row)
        else:
            yield row, record


def _located(record: Record, media: Media) -> Record:
    """`record` with absolute image paths. Raises `Fault`. Names stay part of an identity that the turns
    give."""
    images = tuple(media.locate(name) for name in record.images)
    if record.id:
        return replace(record, images=images)
    turns = turns_digest(msgspec.json.encode(record.messages), record.tools).hex()
    name = content_id(turns, *record.images)
    return replace(record, id=name, group=record.group or name, images=images)


def _check_columns(row: Any, module: ModuleType, path: Path) -> None:
    """A table's first row shows its header. Raises `DataError` when no layout of the format has these
    columns."""
    if path.suffix.lower() != ".csv" or any(columns <= row.keys() for columns in module.COLUMNS):
        return
    wanted = " or ".join(", ".join(sorted(columns)) for columns in module.COLUMNS)
    name = module.__name__.removeprefix(FAMILY + ".")
    raise DataError(
        f"{path}: not of the format {name!r}: it has the columns {', '.join(row)}; it needs {wanted}"
    )


def relative(path: str, start: str) -> str:
    """`path` as seen from the folder `start`, with forward slashes."""
    return os.path.relpath(path, start).replace(os.sep, "/")
