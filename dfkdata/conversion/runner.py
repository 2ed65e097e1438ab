"""Run one conversion over all rows: read, build, deduplicate, split, write and count.

How it works: one row is in memory at a time, of plain text a few hundred (`dfkdata.conversion.fast_path`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dfkdata import sources
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.conversion import detection, prepass, reader, splits
from dfkdata.conversion.decode_pool import ImageDecodePool
from dfkdata.conversion.job import ConversionJob
from dfkdata.conversion.label_map import unsettled
from dfkdata.conversion.post_labels import Contradictions, PostKeys
from dfkdata.conversion.row_builder import BuiltRow
from dfkdata.conversion.row_run import FinishedRow, RowRun, compared
from dfkdata.conversion.selection import RowFilter
from dfkdata.conversion.sita_split import SitaSplit
from dfkdata.conversion.split_writer import SplitWriter
from dfkdata.rows.messages import PlainRow
from dfkdata.rows.record import Record, Reject, RowError
from dfkdata.validation.leakage import LeakageCheck
from dfkdata.validation.rules import RuleReporter, RuleWarning
from dfkdata.validation.written_rows import WrittenRows


class ConversionRun(RowRun):
    """Take every row of a job to its file, and return the manifest's part about rows and outputs.

    Attributes:
        writer: The files of the splits.
        splitter: The split of a group.
        writes_extra: Whether the layout has files of its own beside the rows.
        columns: Split -> keys of its rows, if it has.
    """

    writer: SplitWriter

    def __init__(self, job: ConversionJob) -> None:
        self._parts = job.parts()
        super().__init__(job.with_own_splits(part for part, _ in self._parts))
        job = self.job
        self.writer = SplitWriter(job.folder, self.counts)
        self.sita = SitaSplit(job.options) if job.options.split == "sita" else None
        self.rows = WrittenRows()
        found = compared(job, self.rules)
        self.leakage = LeakageCheck(job.folder.partial, self.rules, self.rows, found) if found else None
        self.writes_extra = hasattr(job.export, "extra_files")
        self.columns: dict[str, set[str]] = {split: set() for split in splits.SPLITS}
        self.moved = False  # whether rows that `columns` knows are not where they were put
        self.rejected: list[Any] = []  # the first raw rows that were rejected

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
        parts, chooser = self._parts, RowFilter(self.job.conditions)
        expected, batcher = self._look(parts, chooser), self.batcher()
        for part, fixed in parts:
            media = self.media(part)
            pairs = reader.pairs(part, self.job.format, self.job.format_options, media)
            self.convert_pairs(pairs, fixed, media, chooser, batcher, pool)
            self.note(part)
        matching = self.counts.rows["in"] if chooser.takes_all else chooser.matching
        if expected is not None and matching != expected:
            raise ConfigError(f"{expected} rows in the first pass and {matching} in the second; give a list")

    def note(self, part: sources.Part) -> None:
        """Keep how a table was read and which columns are lost, and warn if something was guessed."""
        self.counts.unread |= dict.fromkeys(name for name in part.lost if name not in self.job.named_columns)
        facts = dict(part.facts)
        guess = facts.pop("guessed", None)
        if guess is not None:
            hint = "if texts look wrong, name it with --encoding or --delimiter; that ends this warning, too"
            self.rules.report(RowError("CSV_GUESSED", f"the file was read {guess}", hint=hint), part.name)
        if facts:
            self.counts.tables[part.name] = facts

    def _look(self, parts: list[tuple[sources.Part, str | None]], chooser: RowFilter) -> int | None:
        """Choose rows and strata if that needs a first pass over all rows; return how many rows it met."""
        job = self.job
        result = prepass.look(
            job.options,
            job.schema,
            [part for part, _ in parts],
            lambda part: reader.pairs(part, job.format, job.format_options, self.media(part)),
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
        media = {id(part): self.media(part) for part in parts}

        def post_of(part: sources.Part, raw: Any, record: Record) -> PostKeys | None:
            report = silent.for_row(record.source, unsettled(record, job.schema))
            built = self.builder.build(raw, record, report, media[id(part)])
            self.builder.export(built)
            return built.post

        def pairs(part: sources.Part) -> Iterator[reader.Pair]:
            return reader.pairs(part, job.format, job.format_options, media[id(part)])

        return prepass.contradictions(parts, pairs, chooser.takes, post_of)

    def warn(self, warning: RuleWarning) -> None:
        """Count a broken rule that let its row through, and write a line about it."""
        self.writer.warn(warning)

    def reject(self, reject: Reject) -> None:
        """Quarantine a row."""
        if len(self.rejected) < detection.ROWS:
            self.rejected.append(reject.raw)
        self.writer.reject(reject)

    def split_of(self, raw: Any, built: BuiltRow, fixed: str | None) -> str:
        """Return the split that a row belongs to; SITA's training file is divided at the end."""
        return super().split_of(raw, built, fixed) if self.sita is None else "train"

    def take(self, row: FinishedRow) -> int | None:
        """Write a finished row to its split; return its number, None for a copy. Raises `RowError`."""
        built, record, split = row.built, row.built.record, row.split
        if self.sita is not None:
            self.sita.add(record, row.labels, row.fixed)
        else:
            if not self.writer.takes(row.raw, record, built.row, built.digest, split):
                return None
            self.counts.labels.add(row.labels, split)
        self.writer.put(row.written, built.digest, split)
        if self.writes_extra:
            self.columns[split].update(row.written)
        for picture in built.pictures:
            self.counts.images.add(picture)
        if self.leakage is not None:
            pictures = [*zip(record.images, built.pictures, strict=True)] if built.pictures else ()
            self.leakage.add(
                splits.CODE[split],
                record,
                built.group,
                built.digest[0],
                pictures,
                row.hashes,
                keeps_source="meta" in row.written,
            )
        self.checks.add_row(len(self.rows), record.source, built.post)
        self.rows.add(splits.CODE[split])
        return len(self.rows) - 1

    def write_plain(
        self,
        rows: Sequence[PlainRow],
        questions: Sequence[str],
        groups: Sequence[str],
        digests: Sequence[bytes],
        codes: Sequence[int],
    ) -> None:
        """Write rows of plain text, as `take` does with one row."""
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
            self._write_extra(moved=bool(places) or self.moved or self.sita is not None)
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
        if not self.rejected or rows["quarantined"] < 0.9 * (rows["in"] - rows["left_out"]):
            return
        other = detection.other_format(
            self.rejected, self.job.options.format, [one for one, _ in self.job.inputs]
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
