"""Run one conversion over all rows: read, build, deduplicate, split, write and count.

How it works: one row is in memory at a time, of plain text a few hundred (`dfkdata.conversion.fast_path`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import msgspec

from dfkdata import sources
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.conversion import detection, output_folder, prepass, reader, splits
from dfkdata.conversion.counts import RunCounts
from dfkdata.conversion.dataset_checks import DatasetChecks
from dfkdata.conversion.decode_pool import DecodedPair, ImageDecodePool
from dfkdata.conversion.fast_path import PlainTextBatcher
from dfkdata.conversion.job import ConversionJob
from dfkdata.conversion.label_map import unsettled
from dfkdata.conversion.output_folder import SplitWriter
from dfkdata.conversion.post_labels import Contradictions, PostKeys
from dfkdata.conversion.row_builder import BuiltRow, RowBuilder
from dfkdata.conversion.selection import RowFilter, lookup
from dfkdata.conversion.sita_split import SitaSplit
from dfkdata.media.resolver import MediaResolver
from dfkdata.rows.messages import PlainRow
from dfkdata.rows.record import Record, Reject, RowError
from dfkdata.sources import unencodable
from dfkdata.validation.leakage import LeakageCheck
from dfkdata.validation.rules import RuleReporter
from dfkdata.validation.written_rows import WrittenRows


class ConversionRun:
    """Take every row of a job to its file, and return the manifest's part about rows and outputs.

    Attributes:
        writer: The files of the splits.
        splitter: The split of a group.
        writes_extra: Whether the layout has files of its own beside the rows.
        columns: Split -> keys of its rows, if it has.
    """

    def __init__(self, job: ConversionJob) -> None:
        self._parts = job.parts()
        self.job = job = job.with_own_splits(part for part, _ in self._parts)
        self.counts = RunCounts(job.schema)
        self.writer = SplitWriter(job.folder, self.counts)
        self.rules = RuleReporter(job.options.rules, self.writer.warn)
        self.checks = DatasetChecks(job.options, self.counts.labels, self.rules, job.schema)
        self.builder = RowBuilder(job, self.checks)
        self.sita = SitaSplit(job.options) if job.options.split == "sita" else None
        self.splitter: splits.Splitter = (
            job.splitter if self.sita is None else splits.HashSplit(job.options.seed, 0.0, 0.0)
        )
        self.rows = WrittenRows()
        self.leakage = _leakage_check(job, self.rules, self.rows)
        self.writes_extra = hasattr(job.export, "extra_files")
        self.columns: dict[str, set[str]] = {split: set() for split in splits.SPLITS}
        self._rejected: list[Any] = []  # the first raw rows that were rejected

    def run(self) -> dict[str, Any]:
        """Convert all rows of all inputs.

        Returns:
            The manifest's part about rows and outputs.

        Raises:
            ConfigError: The rows changed between the two passes, or a picture cannot be decoded by the pool.
        """
        pool = ImageDecodePool() if self.job.options.deep else None
        inputs = [source for source, _ in self.job.inputs]
        try:
            with detection.advising(inputs, self.job.options.format, DataError):
                self._convert(pool)
            if self.leakage is not None:
                self.leakage.finish()
        finally:
            if pool is not None:
                pool.close()
            if self.leakage is not None:
                self.leakage.close()
        return self._close()

    def _convert(self, pool: ImageDecodePool | None) -> None:
        parts = self._parts
        chooser = RowFilter(self.job.conditions)
        expected = self._look(parts, chooser)
        batcher = PlainTextBatcher(self, self.job.options.group_by) if self._batches() else None
        rows, progress, takes_all = self.counts.rows, self.job.options.progress, chooser.takes_all
        for part, fixed in parts:
            media = self._media(part)
            pairs = reader.pairs(part, self.job.format, self.job.format_options, media)
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
            self._note(part)
        matching = rows["in"] if takes_all else chooser.matching
        if expected is not None and matching != expected:
            raise ConfigError(f"{expected} rows in the first pass and {matching} in the second; give a list")

    def _note(self, part: sources.Part) -> None:
        """Keep how a table was read and which columns are lost, and warn if something was guessed."""
        self.counts.unread |= dict.fromkeys(name for name in part.lost if name not in self.job.named_columns)
        facts = dict(part.facts)
        guess = facts.pop("guessed", None)
        if guess is not None:
            hint = "if texts look wrong, name it with --encoding or --delimiter; that ends this warning, too"
            self.rules.report(RowError("CSV_GUESSED", f"the file was read {guess}", hint=hint), part.name)
        if facts:
            self.counts.tables[part.name] = facts

    def _batches(self) -> bool:
        """Return whether this conversion asks nothing of plain rows that `PlainTextBatcher` does not do."""
        options = self.job.options
        simple = options.to == "messages" and self.job.schema is None and self.sita is None
        return simple and options.split_column is None and not self.checks.needs_rows

    def _look(self, parts: list[tuple[sources.Part, str | None]], chooser: RowFilter) -> int | None:
        """Choose rows and strata if that needs a first pass over all rows; return how many rows it met."""
        job = self.job
        result = prepass.look(
            job.options,
            job.schema,
            [part for part, _ in parts],
            lambda part: reader.pairs(part, job.format, job.format_options, self._media(part)),
            chooser.matches,
            job.splitter,
        )
        chooser.chosen = result.chosen
        if self.sita is None:
            self.splitter = result.splitter
        if self.checks.rejects_two_labels:
            look = RowFilter(self.job.conditions)
            look.chosen = chooser.chosen
            self.checks.contradictions = self._contradictions([part for part, _ in parts], look)
            return look.matching
        return result.matching

    def _contradictions(self, parts: list[sources.Part], chooser: RowFilter) -> Contradictions:
        """Return the posts with two labels, after a pass over all rows that writes and reports nothing."""
        job, silent = self.job, RuleReporter(self.job.options.rules)
        media = {id(part): self._media(part) for part in parts}

        def post_of(part: sources.Part, raw: Any, record: Record) -> PostKeys | None:
            report = silent.for_row(record.source, unsettled(record, job.schema))
            built = self.builder.build(raw, record, report, media[id(part)])
            self.builder.export(built)
            return built.post

        def pairs(part: sources.Part) -> Iterator[reader.Pair]:
            return reader.pairs(part, job.format, job.format_options, media[id(part)])

        return prepass.contradictions(parts, pairs, chooser.takes, post_of)

    def _media(self, part: sources.Part) -> MediaResolver:
        return reader.media_for(part, self.job.options.images, self.job.folder.partial / output_folder.MEDIA)

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
                if self._write(raw, built, fixed, hashes):
                    report.settle(len(self.rows) - 1)
            else:
                self.reject(item)
        except RowError as error:
            self.reject(error.reject(item.source, raw))
        except UnicodeEncodeError as error:
            self.reject(unencodable(item.source, raw, error))

    def reject(self, reject: Reject) -> None:
        """Quarantine a row."""
        if len(self._rejected) < detection.ROWS:
            self._rejected.append(reject.raw)
        self.writer.reject(reject)

    def _write(self, raw: Any, built: BuiltRow, fixed: str | None, hashes: Sequence[int] | None) -> bool:
        """Write a finished row to its split, unless it is a copy, and return whether it was. Raises `RowError`."""
        record, digest = built.record, built.digest
        written, labels = self.builder.export(built), self.counts.labels.of(record)
        if self.sita is not None:
            split = "train"  # that file is divided at the end
            self.sita.add(record, labels, fixed or record.split)
        else:
            split = fixed or record.split or self._own_split(raw) or self.splitter(built.group)
            if not self.writer.takes(raw, record, built.row, digest, split):
                return False
            self.counts.labels.add(labels, split)
        self.writer.put(written, digest, split)
        if self.writes_extra:
            self.columns[split].update(written)
        for picture in built.pictures:
            self.counts.images.add(picture)
        if self.leakage is not None:
            pictures = [*zip(record.images, built.pictures, strict=True)] if built.pictures else ()
            self.leakage.add(
                splits.CODE[split],
                record,
                built.group,
                digest[0],
                pictures,
                hashes,
                keeps_source="meta" in written,
            )
        self.checks.add_row(len(self.rows), record, built.post)
        self.rows.add(splits.CODE[split])
        return True

    def _own_split(self, raw: Any) -> str | None:
        column = self.job.options.split_column
        return splits.named(lookup(raw, column), column) if column is not None else None

    def write_plain(
        self,
        rows: Sequence[PlainRow],
        questions: Sequence[str],
        groups: Sequence[str],
        digests: Sequence[bytes],
        codes: Sequence[int],
    ) -> None:
        """Write rows of plain text, as `_write` does with one row."""
        self.writer.put_all(rows, digests, codes)
        if self.leakage is not None:
            self.leakage.add_texts(codes, questions, groups, digests)
        self.rows.extend(codes)

    def _close(self) -> dict[str, Any]:
        places = self.writer.close()
        if places:
            self.rows.remove(places)
        files, rows = self.writer.files, self.counts.rows
        if self.sita is not None:
            rows["left_out"] += self.sita.divide(self.job.folder, files, self.counts.labels)
            self.rows.reorder(self.sita.order)
            rows["out"] = files["train"].rows + files["validation"].rows
        gone = self.rows.gone()
        if gone is not None:
            self.writer.drop_warnings(gone)
        self.writer.duplicates.close()
        if self.writes_extra:
            self._write_extra(moved=bool(places) or self.sita is not None)
        wants_test = self.job.options.test > 0 or "test" in self.job.fixed_splits
        if not wants_test and not files["test"].rows:
            files.pop("test").path.unlink()
        return self._facts()

    def _write_extra(self, *, moved: bool) -> None:
        """Write the files that the layout wants beside its rows; `moved` tells whether rows changed files."""
        files = {split: file for split, file in self.writer.files.items() if file.rows}
        columns = {split: _keys(file.path) if moved else self.columns[split] for split, file in files.items()}
        for name, data in self.job.export.extra_files(columns).items():
            (self.job.folder.partial / name).write_bytes(data)

    def _facts(self) -> dict[str, Any]:
        files = self.writer.files
        written = {name: file.rows for name, file in files.items()}
        self.job.folder.drop_unnamed_media(file.path for file in files.values())
        self._check_format()
        self.checks.check_posts(self.rows.gone())
        self.checks.check_all(written, self.counts.rows["out"], self.job.fixed_splits)
        facts: dict[str, Any] = {}
        if self.job.options.balance:
            facts["weights"] = self.counts.labels.weights("train")
        if self.leakage is not None:
            facts["overlap"] = self.leakage.compare()
        self.writer.warnings.close()
        outputs = (*files.values(), self.writer.quarantine, self.writer.duplicates, self.writer.warnings)
        facts |= self.counts.facts()
        if folders := self.job.folder.media_folders():
            facts["media_folders"] = folders
        facts["outputs"] = sorted((file.facts for file in outputs), key=lambda entry: str(entry["path"]))
        return facts

    def _check_format(self) -> None:
        """Warn if nearly all rows were rejected and look like another format."""
        rows = self.counts.rows
        if not self._rejected or rows["quarantined"] < 0.9 * (rows["in"] - rows["left_out"]):
            return
        other = detection.other_format(
            self._rejected, self.job.options.format, [one for one, _ in self.job.inputs]
        )
        if other is not None:
            named, looked = (
                f"{rows['quarantined']} of {rows['in']} rows were rejected",
                f"{other.name!r} ({other.why})",
            )
            reason, hint = (
                f"{named}; they look like the format {looked}",
                f"read them with --from {other.name}",
            )
            self.rules.report(RowError("FORMAT_UNLIKELY", reason, hint=hint), "all rows")


def _keys(path: Path) -> set[str]:
    """Return the keys of the rows in a file."""
    decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    with path.open("rb") as lines:
        return {key for line in lines for key in decode(line)}


def _decoded(
    pairs: Iterable[reader.Pair], pool: ImageDecodePool | None
) -> Iterator[tuple[reader.Pair, Sequence[int] | None]] | Iterator[DecodedPair]:
    return zip(pairs, repeat(None), strict=False) if pool is None else pool.decode(pairs)


def _leakage_check(job: ConversionJob, rules: RuleReporter, rows: WrittenRows) -> LeakageCheck | None:
    """Return None if every row is a training row."""
    options = job.options
    fixed = options.split_column is not None or bool(job.fixed_splits)
    if not (fixed or options.validation or options.test):
        return None
    by_row = fixed or options.split == "sita"
    return LeakageCheck(job.folder.partial, rules, rows, compares_groups=by_row, deep=options.deep)
