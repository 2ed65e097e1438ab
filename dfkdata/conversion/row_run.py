"""Take raw rows to finished rows: what becomes of a row as far as the row alone decides it.

How it works: `RowRun` reads a part, builds each row and finds its split. Whoever derives from it decides what
becomes of a finished row: one conversion writes it (`dfkdata.conversion.runner`), a shard keeps it for later
(`dfkdata.conversion.shard_run`).

Guarantee: nothing here remembers a row, so a row comes out the same whatever came before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

from dfkdata import sources
from dfkdata.conversion import output_folder, reader, splits
from dfkdata.conversion.counts import Labels, RunCounts
from dfkdata.conversion.dataset_checks import DatasetChecks
from dfkdata.conversion.decode_pool import DecodedPair, ImageDecodePool
from dfkdata.conversion.fast_path import PlainTextBatcher, RowWriter
from dfkdata.conversion.job import ConversionJob
from dfkdata.conversion.label_map import unsettled
from dfkdata.conversion.row_builder import BuiltRow, RowBuilder
from dfkdata.conversion.selection import RowFilter, lookup
from dfkdata.media.resolver import MediaResolver
from dfkdata.rows.messages import PlainRow
from dfkdata.rows.record import Record, Reject, RowError
from dfkdata.sources import unencodable
from dfkdata.validation.leakage import Compared
from dfkdata.validation.rules import RuleReporter, RuleWarning


class FinishedRow(NamedTuple):
    """Hold a row that can be written.

    Attributes:
        raw: The raw row.
        built: The row in the messages layout, and what is known about it.
        written: The row in the training layout.
        labels: What is counted of its labels.
        fixed: The split that its input or the row itself fixes; None if neither does.
        split: The split that it belongs to.
        hashes: Perceptual hashes of its pictures if they were decoded on the way.
    """

    raw: Any
    built: BuiltRow
    written: dict[str, Any]
    labels: Labels
    fixed: str | None
    split: str
    hashes: Sequence[int] | None


class RowRun(ABC):
    """Take the rows of a job's parts to finished rows.

    Attributes:
        job: The job, with the splits that its input names.
        counts: What is counted.
        rules: The policies; warnings go to `warn`.
        checks: The rules that look at finished rows.
        builder: Builds rows.
        splitter: The split of a group.
        progress: Hears of the number of rows, from time to time.
        writer: Hears of rows that the batcher takes.
    """

    writer: RowWriter
    splitter: splits.Splitter

    def __init__(self, job: ConversionJob) -> None:
        self.job, self.counts = job, RunCounts(job.schema)
        self.rules = RuleReporter(job.options.rules, self.warn)
        self.checks = DatasetChecks(job.options, self.counts.labels, self.rules, job.schema)
        self.builder = RowBuilder(job, self.checks)
        self.splitter, self.progress = job.splitter, job.options.progress

    @abstractmethod
    def warn(self, warning: RuleWarning) -> None:
        """Hear of a broken rule that let its row through."""

    @abstractmethod
    def reject(self, reject: Reject) -> None:
        """Set a row aside."""

    @abstractmethod
    def take(self, row: FinishedRow) -> int | None:
        """Take a finished row; return its number among those that are written (-1 if that is not known yet).

        None for a copy of an earlier row. Raises `RowError`."""

    @abstractmethod
    def write_plain(
        self,
        rows: Sequence[PlainRow],
        questions: Sequence[str],
        groups: Sequence[str],
        digests: Sequence[bytes],
        codes: Sequence[int],
    ) -> None:
        """Take rows of plain text, column by column; see `RowSink`."""

    def batcher(self) -> PlainTextBatcher | None:
        """Return what takes plain rows many at once; None if this conversion asks more of them than it does."""
        options = self.job.options
        simple = options.to == "messages" and self.job.schema is None and options.split != "sita"
        batches = simple and options.split_column is None and not self.checks.needs_rows
        return PlainTextBatcher(self, options.group_by) if batches else None

    def media(self, part: sources.Part) -> MediaResolver:
        """Return what finds the media of a part."""
        return reader.media_for(part, self.job.options.images, self.job.folder.partial / output_folder.MEDIA)

    def convert_pairs(
        self,
        pairs: Iterable[reader.Pair],
        fixed: str | None,
        media: MediaResolver,
        chooser: RowFilter,
        batcher: PlainTextBatcher | None,
        pool: ImageDecodePool | None = None,
    ) -> None:
        """Take all rows of a part.

        Args:
            pairs: Each raw row, and what became of it.
            fixed: The split that its input fixes.
            media: Finds its media.
            chooser: Says which rows take part.
            batcher: Takes plain rows.
            pool: Decodes every picture.
        """
        rows, progress, takes_all = self.counts.rows, self.progress, chooser.takes_all
        for (raw, item), hashes in _decoded(pairs, pool):
            rows["in"] += 1
            if progress is not None and not rows["in"] & 1023:
                progress(rows["in"])
            if not takes_all and not chooser.takes(raw):
                rows["left_out"] += 1
                continue
            if batcher is not None:
                if batcher.takes(raw, item, fixed):
                    continue
                batcher.write()
            self._one(raw, item, fixed, media, hashes)
        if batcher is not None:
            batcher.write()

    def _one(
        self,
        raw: Any,
        item: Record | Reject,
        fixed: str | None,
        media: MediaResolver,
        hashes: Sequence[int] | None,
    ) -> None:
        """Take one raw row to its end."""
        try:
            if isinstance(item, Record):
                report = self.rules.for_row(item.source, unsettled(item, self.job.schema))
                built = self.builder.build(raw, item, report, media)
                number = self.take(self._finished(raw, built, fixed, hashes))
                if number is not None:
                    report.settle(number)
            else:
                self.reject(item)
        except RowError as error:
            self.reject(error.reject(item.source, raw))
        except UnicodeEncodeError as error:
            self.reject(unencodable(item.source, raw, error))

    def _finished(
        self, raw: Any, built: BuiltRow, fixed: str | None, hashes: Sequence[int] | None
    ) -> FinishedRow:
        """Return a finished row in the training layout, with its split. Raises `RowError`."""
        written, labels = self.builder.export(built), self.counts.labels.of(built.record)
        named = fixed or built.record.split
        return FinishedRow(raw, built, written, labels, named, self.split_of(raw, built, named), hashes)

    def split_of(self, raw: Any, built: BuiltRow, fixed: str | None) -> str:
        """Return the split that a row belongs to. Raises `RowError`."""
        return fixed or self._own_split(raw) or self.splitter(built.group)

    def _own_split(self, raw: Any) -> str | None:
        column = self.job.options.split_column
        return splits.named(lookup(raw, column), column) if column is not None else None


def _decoded(
    pairs: Iterable[reader.Pair], pool: ImageDecodePool | None
) -> Iterator[tuple[reader.Pair, Sequence[int] | None]] | Iterator[DecodedPair]:
    return zip(pairs, repeat(None), strict=False) if pool is None else pool.decode(pairs)


def compared(job: ConversionJob, rules: RuleReporter) -> Compared | None:
    """Return what is compared between the splits; None if every row is a training row."""
    options = job.options
    fixed = options.split_column is not None or bool(job.fixed_splits)
    if not (fixed or options.validation or options.test):
        return None
    return Compared.of(rules, groups=fixed or options.split == "sita", deep=options.deep)
