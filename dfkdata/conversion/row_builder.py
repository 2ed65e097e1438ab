"""Turn a record into a finished row: gold, turns, media paths, identity, and the checks of one row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from dfkdata.common import data_uri
from dfkdata.conversion import output_folder, reader, selection
from dfkdata.conversion.dataset_checks import DatasetChecks
from dfkdata.conversion.job import ConversionJob
from dfkdata.conversion.label_map import TargetWriter
from dfkdata.conversion.post_labels import PostKeys
from dfkdata.media.images import png_bytes
from dfkdata.media.probe import MAX_ASPECT, Picture, inspect
from dfkdata.media.resolver import MediaResolver, store_picture
from dfkdata.rows.record import Record, RowError
from dfkdata.schemas import Choice, Label
from dfkdata.validation import conversation, damaged_answers
from dfkdata.validation.gold import bind_gold
from dfkdata.validation.rules import RowReport


class BuiltRow(msgspec.Struct, frozen=True, gc=False):
    """Hold a row that passed its checks.

    Attributes:
        record: The record behind it, its gold bound to the schema.
        row: The row in the messages layout.
        turns: Its turns as JSON.
        digest: 8 bytes over its turns, tools and media.
        group: Rows of one group go to one split.
        pictures: What the pictures of the input are, one for each of the record's images.
        post: What tells its post and its labels; None for a row without labels.
    """

    record: Record
    row: dict[str, Any]
    turns: bytes
    digest: bytes
    group: str
    pictures: list[Picture]
    post: PostKeys | None


class RowBuilder:
    """Build the rows of one conversion. The turns are encoded once: the same bytes are hashed and written."""

    def __init__(self, job: ConversionJob, checks: DatasetChecks) -> None:
        self._job, self._checks = job, checks
        self._schema, self._export = job.schema, job.export
        roles = self._schema.roles if self._schema is not None else {}
        self._classes = frozenset(name for name, role in roles.items() if isinstance(role, Label | Choice))
        self._group_by = job.options.group_by
        self._identity = job.options.to == "messages"
        self._store = job.folder.partial / output_folder.MEDIA
        self._name = job.folder.naming(job.options.paths)
        self._encode = msgspec.json.Encoder().encode
        self._target = TargetWriter(job.schema, job.options.labels, job.options.nulls)

    def build(self, raw: Any, record: Record, report: RowReport, media: MediaResolver) -> BuiltRow:
        """Return the finished row of a record.

        Raises:
            RowError: The row breaks a rule whose policy is "quarantine".
        """
        spelt = record.gold
        if self._schema is not None:
            record = bind_gold(record, self._schema, report)
        pictures: list[Picture] = []
        if record.images:
            record, pictures = self._pictures(record, report, media)
        row = self._target.row(record, spelt)
        files = (
            self._files(record, row, pictures, media) if pictures or record.videos or record.audios else None
        )
        conversation.check_conversation(row, report)
        damaged_answers.check_answers(record, row["messages"], report, self._classes)
        post = self._checks.check_row(row, record, files, report) if self._checks.needs_rows else None
        turns: bytes = self._encode(row["messages"])
        tools = self._encode(row["tools"]) if "tools" in row else b""
        conversation.check_control_tokens(turns + tools, report)
        if tools and self._identity:
            row["tools"] = msgspec.Raw(tools)
        options = row.get("chat_template_kwargs")
        beside = tools + self._encode(options) if options else tools
        digest = reader.turns_digest(turns, beside)
        if not record.id:
            row["id"] = digest.hex()
        group = record.group or row["id"] if self._group_by is None else _group(raw, self._group_by)
        row["meta"]["group"] = group
        if not turns.isascii():
            turns, digest = self._normal(row, turns, beside, digest, report)
        if files:
            digest = reader.row_digest(digest, files)
        return BuiltRow(record, row, turns, digest, group, pictures, post)

    def export(self, built: BuiltRow) -> dict[str, Any]:
        """Return the row in the training layout. Raises `RowError` if the layout cannot hold it."""
        if self._identity:
            built.row["messages"] = msgspec.Raw(built.turns)
            return built.row
        written: dict[str, Any] = self._export.row(built.row)
        self._export.check(written)
        return written

    def _pictures(
        self, record: Record, report: RowReport, media: MediaResolver
    ) -> tuple[Record, list[Picture]]:
        """Return the record with a still picture for each that is animated, and what its pictures are."""
        pictures = [media.picture(path) for path in record.images]
        if not any(picture.changes or picture.is_long for picture in pictures):
            return record, pictures
        paths = [*record.images]
        for at, picture in enumerate(pictures):
            if "first_frame" in picture.changes:
                hint = "save the frame that counts, or --rule IMG_ANIMATED=fix to take the first"
                reason, value = "the file holds several frames or pages", Path(paths[at]).name
                report(RowError("IMG_ANIMATED", reason, path=f"images.{at}", value=value, hint=hint))
                paths[at] = str(store_picture(png_bytes(paths[at], first_frame=True), self._store))
            if picture.is_long:
                reason = f"{picture.width} x {picture.height} pixels: one side is over {MAX_ASPECT} times the other"
                hint, value = "crop the picture or leave the row out", Path(paths[at]).name
                report(RowError("IMG_SHAPE", reason, path=f"images.{at}", value=value, hint=hint))
        return replace(record, images=tuple(paths)), pictures

    def _files(
        self, record: Record, row: dict[str, Any], pictures: list[Picture], media: MediaResolver
    ) -> list[bytes]:
        """Write all paths as rows name them; return what identifies the files."""
        files = [picture.digest for picture in pictures]
        match self._job.options.materialize:
            case "link":
                row["images"] = [self._name(path) for path in record.images]
            case "copy":
                copies = (str(store_picture(Path(path).read_bytes(), self._store)) for path in record.images)
                row["images"] = [self._name(path) for path in copies]
            case "embed":
                row["images"] = [_embedded(path) for path in record.images]
        for kind, paths in (("videos", record.videos), ("audios", record.audios)):
            if paths:
                row[kind] = [self._name(path) for path in paths]
                files += media.digests((), paths)
        return files

    def _normal(
        self, row: dict[str, Any], turns: bytes, beside: bytes, digest: bytes, report: RowReport
    ) -> tuple[bytes, bytes]:
        """Return the turns in Unicode normal form C and their digest; the row changes with them."""
        text = conversation.normalised(turns.decode(), report)
        if text is None:
            return turns, digest
        row["messages"] = msgspec.json.decode(text)
        row["meta"] = msgspec.json.decode(conversation.nfc(self._encode(row["meta"]).decode()))
        return text.encode(), reader.turns_digest(text.encode(), beside)


def _embedded(path: str) -> str:
    """Return the picture as a `data:` URI."""
    data = Path(path).read_bytes()
    return data_uri.encode(data, f"image/{inspect(data).kind}")


def _group(raw: Any, path: str) -> str:
    """Return the value to group by. Raises `RowError` if there is none."""
    group = selection.text(raw, path)
    if group is None:
        hint, value = "give each row a value to group by", selection.lookup(raw, path)
        raise RowError("GROUP_MISSING", f"{path} holds no value", path=path, value=value, hint=hint)
    return group
