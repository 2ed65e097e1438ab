"""The rows of one conversion on their way: check, deduplicate, split, export, count.

One row is in memory at a time, of plain text a few hundred (`dfkdata.conversion.fast_path`). The turns are encoded once: the
same bytes are hashed, normalised and written."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Container, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import msgspec

from dfkdata import sources
from dfkdata.common.config import Config
from dfkdata.common.errors import ConfigError
from dfkdata.conversion import counts, output_folder, prepass, reader, selection, splits
from dfkdata.conversion.dataset_checks import DatasetChecks
from dfkdata.conversion.fast_path import PlainTextBatcher
from dfkdata.conversion.options import ConvertOptions
from dfkdata.conversion.sita_split import SitaSplit
from dfkdata.conversion.writer import CODE, SplitWriter
from dfkdata.media.probe import inspect
from dfkdata.media.resolver import MediaResolver, store_picture
from dfkdata.rows.messages import PlainRow, training_row
from dfkdata.rows.record import Record, Reject, RowError
from dfkdata.schemas import Schema
from dfkdata.sources import unencodable
from dfkdata.validation import text as texts
from dfkdata.validation.conversation import check_conversation
from dfkdata.validation.gold import bind_gold
from dfkdata.validation.leakage import LeakageCheck
from dfkdata.validation.rules import RuleReporter


class Job(Protocol):
    """What a flow needs to know: the resolved names and files of a conversion."""

    plan: ConvertOptions
    images: Path | None
    folder: output_folder.Folder
    format: ModuleType
    options: Config
    export: ModuleType
    schema: Schema | None
    side: splits.HashSplit
    conditions: list[selection.Condition]
    inputs: list[tuple[sources.Input, str | None]]
    progress: Callable[[int], None] | None

    def parts(self) -> list[tuple[sources.Part, str | None]]: ...


class ConversionRun:
    """One run over all rows: what is open and counted while they flow."""

    def __init__(self, job: Job) -> None:
        self.job, self.plan, self.schema, self.folder = job, job.plan, job.schema, job.folder
        self.quarantine = self.folder.lines("quarantine.jsonl")
        self.rejects, self.warnings = counts.RuleCounts(), counts.RuleCounts()
        self.labels = counts.LabelCounts(self.schema, splits.SPLITS)
        self.report = RuleReporter(self.plan.rules, self.warnings.add)
        self.taken = 0
        self.met: int | None = None
        self.rows = {"in": 0, "out": 0, "quarantined": 0, "duplicates": 0, "left_out": 0}
        self.written = SplitWriter(self.folder, self.rows, self.labels)
        self.image_hash, self.image_count = sha256(), 0
        self.relative = self.folder.relative()
        self.encode = msgspec.json.Encoder().encode
        self.identity = self.plan.to == "messages"
        self.nulls, self.group_by, self.split_column = (
            self.plan.nulls,
            self.plan.group_by,
            self.plan.split_column,
        )
        self.sita = SitaSplit(self.plan) if self.plan.split == "sita" else None
        self.watch = DatasetChecks(self.plan, self.labels, self.report, self.schema)
        self.across = self._across()
        self.side: splits.Splitter = (
            job.side if self.sita is None else splits.HashSplit(self.plan.seed, 0.0, 0.0)
        )
        self.plain = PlainTextBatcher(self) if self._may_be_plain() else None

    def _may_be_plain(self) -> bool:
        """Whether this conversion asks nothing of rows of plain text that `PlainTextBatcher` does not do."""
        simple = self.identity and self.schema is None and self.sita is None
        return simple and self.split_column is None and not self.watch.busy

    def _across(self) -> LeakageCheck | None:
        """None where every row is a training row."""
        fixed = self.plan.split_column is not None or any(side for _, side in self.job.inputs)
        if not (fixed or self.plan.validation or self.plan.test):
            return None
        sided = fixed or self.sita is not None
        return LeakageCheck(self.folder.partial, self.report, fixed=sided, deep=self.plan.deep)

    def run(self) -> dict[str, Any]:
        """All rows of all inputs; the manifest's part about rows and outputs."""
        try:
            self._rows()
            if self.across is not None:
                self.across.finish()
        finally:
            self.watch.close()
            if self.across is not None:
                self.across.close()
        return self._close()

    def _rows(self) -> None:
        parts = self.job.parts()
        chosen = self._look(parts)
        picky, progress, rows = bool(self.job.conditions) or chosen is not None, self.job.progress, self.rows
        plain = self.plain
        for part, fixed in parts:
            self.media = self._media(part)
            for raw, item in self._pairs(part):
                rows["in"] += 1
                if progress is not None and not rows["in"] & 1023:
                    progress(rows["in"])
                if picky and not self._chosen(raw, chosen):
                    rows["left_out"] += 1
                    continue
                if plain is not None:
                    if plain.takes(raw, item, fixed):
                        continue
                    plain.write()
                self._one(raw, item, fixed)
            if plain is not None:
                plain.write()
        met = self.taken if picky else rows["in"]
        if self.met is not None and met != self.met:
            raise ConfigError(f"{self.met} rows at the first look and {met} at the second; give a list")

    def _one(self, raw: Any, item: Record | Reject, fixed: str | None) -> None:
        """One raw row to its end."""
        try:
            if isinstance(item, Record):
                self._row(raw, item, fixed)
            else:
                self.reject(item)
        except RowError as fault:
            self.reject(fault.reject(item.source, raw))
        except UnicodeEncodeError as error:
            self.reject(unencodable(item.source, raw, error))

    def _chosen(self, raw: Any, chosen: Container[int] | None) -> bool:
        """Whether a row fulfils the conditions and is among the chosen of those."""
        if not self._meant(raw):
            return False
        self.taken += 1
        return chosen is None or self.taken - 1 in chosen

    def _look(self, parts: list[tuple[sources.Part, str | None]]) -> Container[int] | None:
        """The rows to take, where it takes a look at all of them to know; so do the sides."""
        job = self.job
        found = prepass.look(
            self.plan,
            self.schema,
            [part for part, _ in parts],
            lambda part: reader.pairs(part, job.format, job.options, self._media(part)),
            self._meant,
            job.side,
        )
        self.met = found.met
        if self.sita is None:
            self.side = found.side
        return found.chosen

    def _pairs(self, part: sources.Part) -> Iterator[reader.Pair]:
        pairs = reader.pairs(part, self.job.format, self.job.options, self.media)
        return self.watch.decoder.checked(pairs) if self.watch.decoder is not None else pairs

    def _media(self, part: sources.Part) -> MediaResolver:
        return reader.media_for(part, self.job.images, self.folder.partial / output_folder.MEDIA)

    def _meant(self, raw: Any) -> bool:
        """Whether a row fulfils the conditions; one that cannot be read cannot, unless it is no object at
        all."""
        return not isinstance(raw, dict) or all(condition.holds(raw) for condition in self.job.conditions)

    def reject(self, reject: Reject) -> None:
        """Quarantine a row."""
        self.quarantine.put(reject)
        self.rows["quarantined"] += 1
        self.rejects.add(reject)

    def _row(self, raw: Any, record: Record, fixed: str | None) -> None:
        """One record through checks, deduplication, split and export. Raises `RowError`."""
        self.report.source = record.source
        if record.warnings:
            self.report.warnings(record.warnings)
        if self.schema is not None:
            record = bind_gold(record, self.schema, self.report)
        row = training_row(record, self.schema, nulls=self.nulls)
        files = self._files(record, row) if record.images or record.videos or record.audios else None
        check_conversation(row, self.report)
        if self.watch.busy:
            self.watch.row(row, record, files)
        turns: bytes = self.encode(row["messages"])
        texts.check_control_tokens(
            turns + self.encode(row["tools"]) if "tools" in row else turns, self.report
        )
        digest = reader.turns_digest(turns, row.get("tools"))
        if not record.id:
            row["id"] = digest.hex()
        group = record.group or row["id"] if self.group_by is None else _group(raw, self.group_by)
        row["meta"]["group"] = group
        if not turns.isascii():
            turns, digest = self._normal(row, turns, digest)
        if files:
            digest = sha256(b"".join((digest, *files))).digest()[:8]
        side = fixed or record.split or self._own_split(raw) or self.side(group)
        if self.identity:
            written = row
            written["messages"] = msgspec.Raw(turns)
        else:
            written = self.job.export.row(row)
            self.job.export.check(written)
        if self.sita is not None:
            self.sita.add(record)
        if self.sita is not None or self.written.takes(raw, record, row, digest, side):
            self._write(record, written, digest, side, group)

    def _own_split(self, raw: Any) -> str | None:
        column = self.split_column
        return splits.named(selection.lookup(raw, column), column) if column is not None else None

    def _files(self, record: Record, row: dict[str, Any]) -> list[bytes]:
        """Audit the row's pictures and write all paths as seen from the output; what tells the files
        apart."""
        found = [self.media.picture(path).digest for path in record.images]
        match self.plan.materialize:
            case "link":
                row["images"] = [self.relative(path) for path in record.images]
            case "copy":
                copies = (copied(path, self.folder.partial / output_folder.MEDIA) for path in record.images)
                row["images"] = [self.relative(path) for path in copies]
            case "embed":
                row["images"] = [embedded(path) for path in record.images]
        for kind, paths in (("videos", record.videos), ("audios", record.audios)):
            if paths:  # these are not opened, so their names stand for them
                row[kind] = [self.relative(path) for path in paths]
                found += [name.encode() for name in row[kind]]
        return found

    def _normal(self, row: dict[str, Any], turns: bytes, digest: bytes) -> tuple[bytes, bytes]:
        """The turns in Unicode normal form C and their digest; the row changes with them."""
        text = texts.normalised(turns.decode(), self.report)
        if text is None:
            return turns, digest
        row["messages"] = msgspec.json.decode(text)
        row["meta"] = msgspec.json.decode(texts.nfc(self.encode(row["meta"]).decode()))
        return text.encode(), reader.turns_digest(text.encode(), row.get("tools"))

    def _write(self, record: Record, row: dict[str, Any], digest: bytes, side: str, group: str) -> None:
        self.written.put(row, digest, side)
        if record.gold is not None:
            self.labels.add(record, side)
        if self.across is not None:
            self.across.row(CODE[side], record, group, digest[0])
        if record.images:
            self._count_images(record)

    def write_plain(
        self,
        rows: Sequence[PlainRow],
        questions: Sequence[str],
        groups: Sequence[str],
        digests: Sequence[bytes],
        sides: Sequence[int],
    ) -> None:
        """Write rows of plain text, as `_write` does with one row."""
        self.written.put_all(rows, digests, sides)
        if self.across is not None:
            self.across.texts(sides, questions, groups, digests)

    def _count_images(self, record: Record) -> None:
        decoder = self.watch.decoder
        for path in record.images:
            digest = self.media.picture(path).digest
            self.image_count += 1
            self.image_hash.update(digest)
            if self.across is not None and decoder is None:
                self.across.picture(path, digest, record.source)
        if self.across is not None and decoder is not None:
            self.across.looks(decoder.looks)

    def _close(self) -> dict[str, Any]:
        left = self.written.close()
        self.quarantine.close()
        if left and self.across is not None:
            self.across.left(left)
        files = self.written.files
        if self.sita is not None:
            self.rows["left_out"] += self.sita.divide(self.folder, files)
            if self.across is not None:
                self.across.divided(self.sita.sides)
            self.rows["out"] = files["train"].rows + files["validation"].rows
        self.written.duplicates.close()
        self._write_extra()
        wanted = self.plan.test > 0 or any(side == "test" for _, side in self.job.inputs)
        if not wanted and not files["test"].rows:
            files.pop("test").path.unlink()
        return self._facts()

    def _write_extra(self) -> None:
        """Files that the layout wants beside its rows."""
        make = getattr(self.job.export, "extra_files", None)
        if make is not None:
            for name, data in make([side for side, file in self.written.files.items() if file.rows]).items():
                (self.folder.partial / name).write_bytes(data)

    def _facts(self) -> dict[str, Any]:
        files = self.written.files
        written = {name: file.rows for name, file in files.items()}
        self.watch.whole(written, self.rows["out"], {side for _, side in self.job.inputs})
        images = (
            {"count": self.image_count, "sha256": self.image_hash.hexdigest()} if self.image_count else {}
        )
        outputs = (*files.values(), self.quarantine, self.written.duplicates)
        more: dict[str, Any] = {"weights": self.labels.weights("train")} if self.plan.balance else {}
        if self.across is not None:
            more["overlap"] = self.across.tell()
        return more | {
            "rows": dict(self.rows),
            "codes": self.rejects.facts(),
            "warnings": self.warnings.facts(),
            "labels": self.labels.facts(),
            "images": images,
            "outputs": sorted((file.facts for file in outputs), key=lambda facts: str(facts["path"])),
        }


def copied(path: str, store: Path) -> str:
    """A copy of the picture in `store`, named by its content."""
    return str(store_picture(Path(path).read_bytes(), store))


def embedded(path: str) -> str:
    """The picture as a `data:` URI."""
    data = Path(path).read_bytes()
    return f"data:image/{inspect(data).kind};base64,{b64encode(data).decode()}"


def _group(raw: Any, path: str) -> str:
    """The value to group by. Raises `RowError` where there is none."""
    group = selection.text(raw, path)
    if group is None:
        hint, value = "give each row a value to group by", selection.lookup(raw, path)
        raise RowError("GROUP_MISSING", f"{path} holds no value", path=path, value=value, hint=hint)
    return group
