"""Read the rows of a folder that is merged as records with their files, and write them for another folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from dfkdata import sources
from dfkdata.common import data_uri
from dfkdata.common.errors import DataError
from dfkdata.conversion.folders.parents import Parent, ParentRow
from dfkdata.conversion.folders.reading import record_reader
from dfkdata.conversion.reader import media_for, record_digest, row_digest
from dfkdata.media.probe import Picture, inspect
from dfkdata.media.resolver import store_picture
from dfkdata.rows.part_files import COLUMNS
from dfkdata.rows.record import Record, RowError

Namer = Callable[[str], str]
"""A path -> how rows of the new folder name it."""


class ParentRows:
    """Read the rows of one folder."""

    def __init__(self, parent: Parent, layout: str) -> None:
        self.parent = parent
        self._record = record_reader(layout)
        own = parent.path / f"{parent.splits[0]}.jsonl" if parent.splits else parent.path
        self._media = media_for(sources.Part(own.name, parent.path, own), None, None)

    def raw(self, row: ParentRow) -> dict[str, Any]:
        """Return a row as it was written. Raises `DataError`."""
        try:
            raw = msgspec.json.decode(row.line)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise DataError(f"{self.where(row)}: not JSON ({error}); convert again") from error
        if not isinstance(raw, dict):
            raise DataError(f"{self.where(row)}: a row is a JSON object; convert again")
        return raw

    def record(self, row: ParentRow, raw: dict[str, Any]) -> Record:
        """Return the record of a row, with its files as absolute paths and `data:` URIs.

        Raises:
            DataError: It is no row of the layout, or a file is gone or may not be named (`media_roots`).
        """
        record = self._record(raw, self.where(row))
        if not (record.images or record.videos or record.audios):
            return record
        try:
            return replace(
                record,
                images=tuple(self._located(name) for name in record.images),
                videos=tuple(self._media.other(name, "video") for name in record.videos),
                audios=tuple(self._media.other(name, "audio") for name in record.audios),
            )
        except RowError as error:
            raise self._gone(row, error) from error

    def pictures(self, row: ParentRow, record: Record) -> list[Picture]:
        """Return what the pictures of a record are. Raises `DataError` for one that is damaged."""
        try:
            return [self._picture(path) for path in record.images]
        except (RowError, data_uri.DataUriError) as error:
            raise self._gone(row, error) from error

    def digest(self, row: ParentRow, record: Record) -> bytes:
        """Return what tells a row from all others: its turns, tools and the bytes of its files, as in a conversion."""
        files = [picture.digest for picture in self.pictures(row, record)]
        try:
            files += self._media.digests((), record.videos, record.audios)
        except RowError as error:
            raise self._gone(row, error) from error
        return row_digest(record_digest(record), files)

    def where(self, row: ParentRow) -> str:
        """Return where a row stands, for messages."""
        return str(self.parent.path / row.place)

    def _located(self, name: str) -> str:
        return name if data_uri.is_data_uri(name) else self._media.locate(name)

    def _picture(self, path: str) -> Picture:
        return inspect(data_uri.decode(path)) if data_uri.is_data_uri(path) else self._media.picture(path)

    def _gone(self, row: ParentRow, error: Exception) -> DataError:
        if not isinstance(error, RowError):
            return DataError(f"{self.where(row)}: an embedded picture is damaged: {error}; convert again")
        hint = error.hint or "put the file back, or convert again without the row"
        if error.code == "IMG_OUTSIDE":
            hint = "if you trust the folder, --media-root FOLDER lets its rows name files there"
        name = f" ({error.value!r:.200})" if error.value else ""
        return DataError(f"{self.where(row)}: {error.code}: {error.reason}{name}; {hint}")


class RowNamer:
    """Write rows for the new folder: their files are named as seen from there."""

    def __init__(self, name: Namer, store: Path, materialize: Literal["link", "copy"]) -> None:
        self._name, self._store, self._copies = name, store, materialize == "copy"
        self._encode = msgspec.json.Encoder().encode

    def line(self, row: ParentRow, raw: dict[str, Any], record: Record) -> bytes:
        """Return the line of a row; one without files stays byte for byte."""
        files = {
            "images": [self._picture(path) for path in record.images],
            "videos": [self._name(path) for path in record.videos],
            "audios": [self._name(path) for path in record.audios],
        }
        if not any(files.values()):
            return row.line
        listed = {column: names for column, names in files.items() if raw.get(column)}
        raw |= listed
        if len(listed) < sum(map(bool, files.values())):
            waiting = {column: iter(names) for column, names in files.items() if column not in listed}
            _name_parts(raw.get("messages"), waiting)
        return self._encode(raw) + b"\n"

    def _picture(self, path: str) -> str:
        if data_uri.is_data_uri(path):
            return path
        if self._copies:
            path = str(store_picture(Path(path).read_bytes(), self._store))
        return self._name(path)


def _name_parts(messages: Any, waiting: dict[str, Any]) -> None:
    """Name the pictures that parts of turns name themselves, as OpenAI's layout does."""
    for turn in messages if isinstance(messages, list) else ():
        parts = turn.get("content") if isinstance(turn, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if part.get("type") == "image_url" and COLUMNS["image"] in waiting:
                part["image_url"] = part["image_url"] | {"url": next(waiting[COLUMNS["image"]])}
