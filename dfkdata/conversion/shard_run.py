"""Convert one shard: a function of its piece of the input and of nothing before it.

How it works: rows are built as in any conversion (`dfkdata.conversion.row_run`) and kept with what is needed to
decide later which of them are copies. Pictures are opened, hashed and looked at here, since that is where the time
goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import msgspec

from dfkdata.common.faults import naming
from dfkdata.common.hashing import number_of
from dfkdata.conversion import reader
from dfkdata.conversion.job import ConversionJob
from dfkdata.conversion.row_builder import BuiltRow
from dfkdata.conversion.row_run import FinishedRow, RowRun, compared
from dfkdata.conversion.selection import RowFilter
from dfkdata.conversion.shard_files import RowEvent, ShardFacts, ShardWriter, ShownPicture, ToldRow
from dfkdata.conversion.shard_plan import Parts, Shards
from dfkdata.conversion.split_writer import writable_reject
from dfkdata.conversion.splits import SPLITS
from dfkdata.media.perceptual_hash import DecodedPicture, decode
from dfkdata.media.probe import Picture
from dfkdata.media.resolver import MediaResolver
from dfkdata.rows.messages import PlainRow
from dfkdata.rows.record import Reject
from dfkdata.validation.leakage import MAX_CHARS, prompt_text
from dfkdata.validation.rules import RuleWarning

_KNOWN = 65_536

ReadColumns = Mapping[tuple[str, ...], list[str]]
"""Filled columns that may name files, and those of them that the format does not read."""


class ShardRun(RowRun):
    """Convert shards of one conversion, one after another, in whatever order."""

    writer: ShardWriter

    def __init__(self, job: ConversionJob, parts: Parts, shards: Shards) -> None:
        super().__init__(job.with_own_splits(part for part, _ in parts))
        self._parts, self._shards = parts, shards
        self._compared = compared(self.job, self.rules)
        self._writes_extra = hasattr(job.export, "extra_files")
        self._columns: dict[str, set[str]] = {}
        self._resolvers: dict[int, MediaResolver] = {}
        self._decoded: dict[bytes, DecodedPicture] = {}
        self._place = ""
        self.progress = None

    def convert(self, number: int, known: ReadColumns | None = None) -> None:
        """Convert a shard.

        Args:
            number: Its place in the plan.
            known: What earlier rows of its part show about columns that may name files.

        Raises:
            DataError: A file is not of the format.
        """
        piece = self._shards.plan.pieces[number]
        part, fixed = self._parts[piece.part]
        part = replace(part, span=piece.span, facts={}, lost=[])
        media = self._resolvers.setdefault(piece.part, self.media(part))
        watch = reader.watch_of(self.job.format, self.job.format_options)
        watch.files = {columns: [*lost] for columns, lost in (known or {}).items()}
        self._columns = {split: set() for split in SPLITS}
        self.counts.rows |= dict.fromkeys(self.counts.rows, 0)
        self.writer = ShardWriter(self._shards.folder(number), holds_bytes=piece.span is None)
        try:
            with naming(self._shards.folder(number)), _Telling(self, number):
                pairs = reader.pairs(part, self.job.format, self.job.format_options, media, watch)
                chooser = RowFilter(self.job.conditions)
                self.convert_pairs(self._noted(pairs), fixed, media, chooser, self.batcher())
            rows = self.counts.rows
            columns = {split: sorted(names) for split, names in self._columns.items()}
            files, named = [*watch.files.items()], self.job.folder.named
            self.writer.close(
                ShardFacts(rows["in"], rows["left_out"], columns, part.facts, watch.looks, files, named)
            )
        finally:
            self.writer.discard()

    def _noted(self, pairs: Iterator[reader.Pair]) -> Iterator[reader.Pair]:
        """Yield pairs, and remember the place of each for messages."""
        for pair in pairs:
            self._place = pair[1].source
            yield pair

    def where(self, number: int) -> str:
        """Return which row of which shard is being converted."""
        last = f", last row read: {self._place}" if self._place else ""
        return f"{self._shards.name(number, self._parts)}{last}"

    def warn(self, warning: RuleWarning) -> None:
        """Keep a broken rule with the row that it let through."""
        self.writer.warn(warning)

    def reject(self, reject: Reject) -> None:
        """Keep a row that cannot be used."""
        line = self.writer.encode(writable_reject(reject))
        facts = msgspec.structs.replace(reject, raw=None)
        self.writer.tell(RowEvent(self.writer.rows, reject=facts, line=line))

    def take(self, row: FinishedRow) -> int:
        """Keep a finished row; its number is not known before all shards are."""
        built, record = row.built, row.built.record
        line, at, asks = self.writer.encode(row.written), self.writer.rows, self._compared
        self.writer.takes(row.raw, record, built.row, built.digest, row.split)
        self.writer.put(line, row.split)
        if self._writes_extra:
            self._columns[row.split].update(row.written)
        told = ToldRow(
            record.source,
            "meta" in row.written,
            prompt_text(record)[:MAX_CHARS] if asks is not None and asks.prompts else "",
            number_of(built.group) if asks is not None and asks.groups else 0,
            built.post,
            row.labels,
            [*self._shown(built)],
            [],
        )
        self.writer.tell(RowEvent(at, told))
        return -1

    def _shown(self, built: BuiltRow) -> Iterator[ShownPicture]:
        looks = self._compared is not None and self._compared.pictures
        for path, picture in zip(built.record.images, built.pictures, strict=bool(built.pictures)):
            yield ShownPicture(path, picture, self._look(path, picture) if looks else None)

    def _look(self, path: str, picture: Picture) -> DecodedPicture:
        """Return how a picture looks; one that was met before is not decoded again."""
        decoded = self._decoded.get(picture.digest)
        if decoded is None:
            decoded = decode(path, whole=False, as_stored=not picture.changes)
            if len(self._decoded) < _KNOWN:
                self._decoded[picture.digest] = decoded
        return decoded

    def write_plain(
        self,
        rows: Sequence[PlainRow],
        questions: Sequence[str],
        groups: Sequence[str],
        digests: Sequence[bytes],  # noqa: ARG002  # kept row by row
        codes: Sequence[int],
    ) -> None:
        """Keep rows of plain text."""
        self.writer.put_all(rows, codes)
        asks = self._compared
        if asks is not None and (asks.prompts or asks.groups):
            texts = [one[:MAX_CHARS] for one in questions] if asks.prompts else [""] * len(rows)
            self.writer.put_texts(texts, [*map(number_of, groups)] if asks.groups else [0] * len(rows))


class _Telling:
    """Add to an error which row of which shard was being converted."""

    def __init__(self, run: ShardRun, number: int) -> None:
        self._run, self._number = run, number

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"in {self._run.where(self._number)}")
