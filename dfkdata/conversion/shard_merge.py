"""Put the shards of a conversion together, in the order of their rows.

How it works: first the digests and the keys of all rows are compared, a range of them at a time. A row whose
digest and key stand alone is new whatever else there is, and nearly all rows are like that: their lines are copied,
many at once. The others are decided one by one, in order, by the code that decides them in a conversion of one
process, and so is all that looks at several rows: posts with two labels, near copies, groups in two splits.

Guarantee: the output is that of one process, byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import IO, Any

import msgspec

from dfkdata.conversion import detection, splits
from dfkdata.conversion.decode_pool import ImageDecodePool
from dfkdata.conversion.job import ConversionJob
from dfkdata.conversion.runner import ConversionRun
from dfkdata.conversion.shard_files import Copy, RowEvent, Shard, ToldRow
from dfkdata.conversion.shard_plan import Shards, check_parts, prepare
from dfkdata.conversion.shard_pool import ShardPool
from dfkdata.conversion.unread_columns import lost_columns
from dfkdata.rows.record import Record, RowError

_TOGETHER = 4096
_RANGE = 1 << 22  # numbers that are compared at once
_COUNTS = ("blank_rows", "blank_cells", "unnamed_columns")


def run(job: ConversionJob, head: dict[str, Any]) -> dict[str, Any]:
    """Convert a job shard by shard, and go on where a run that was stopped ended.

    Args:
        job: The conversion.
        head: Its options and inputs, as the manifest names them.

    Returns:
        The manifest's part about rows and outputs.

    Raises:
        ConfigError: An input cannot be divided, or a worker died.
        DataError: A file is not of the format.
    """
    parts = job.parts()
    check_parts(parts)
    return ShardedRun(job, prepare(job, parts, head)).run()


class ShardedRun(ConversionRun):
    """Convert a job shard by shard, in as many processes as its options say, and put the shards together."""

    def __init__(self, job: ConversionJob, shards: Shards) -> None:
        super().__init__(job)
        self._shards = shards
        self._rare: tuple[Any, Any] = (None, None)

    def _convert(self, pool: ImageDecodePool | None) -> None:  # noqa: ARG002  # each shard decodes its own pictures
        with ShardPool(self.job, self._parts, self._shards) as workers:
            workers.convert_all()
            self._agree(workers)
        found = [Shard(self._shards.folder(number)) for number in range(len(self._shards.plan.pieces))]
        self._rare = (recurring(found, "digests"), recurring(found, "keys"))
        for place, (part, _) in enumerate(self._parts):
            pieces = self._shards.plan.pieces
            of_part = [shard for shard, piece in zip(found, pieces, strict=True) if piece.part == place]
            for shard in of_part:
                self._add(shard)
            part.facts.update(_table([shard.facts.table for shard in of_part]))
            part.lost[:] = lost_columns(look for shard in of_part for look in shard.facts.looks)
            self.note(part)

    def _agree(self, workers: ShardPool) -> None:
        """Convert a shard again if its rows were judged by another first row than the first of their part.

        Which columns a format reads is looked up once a part for each set of filled ones (`unread_columns`)."""
        known: dict[tuple[str, ...], list[str]] = {}
        for number, piece in enumerate(self._shards.plan.pieces):
            if number and piece.part != self._shards.plan.pieces[number - 1].part:
                known = {}
            found = dict(Shard(self._shards.folder(number)).facts.files)
            if any(known.get(columns, lost) != lost for columns, lost in found.items()):
                workers.convert(number, known)
                found = dict(Shard(self._shards.folder(number)).facts.files)
            known = found | known

    def _add(self, shard: Shard) -> None:
        """Take all rows of a shard."""
        facts = shard.facts
        self.counts.rows["in"] += facts.rows
        self.counts.rows["left_out"] += facts.left_out
        for split, names in facts.columns.items():
            self.columns[split].update(names)
        self.job.folder.adopt(facts.named)
        with _Rows(shard, self._rare, has_texts=self.leakage is not None) as rows:
            for event in shard.events():
                self._add_plain(rows, event.at)
                if event.reject is not None:
                    self._add_reject(event)
                elif event.row is not None:
                    self._add_told(rows, event.row)
            self._add_plain(rows, len(rows.codes))

    def _add_reject(self, event: RowEvent) -> None:
        if event.reject is None:
            return
        if len(self.rejected) < detection.ROWS:
            self.rejected.append(msgspec.json.decode(event.line)["raw"])
        self.writer.reject_line(event.reject, event.line)

    def _add_plain(self, rows: _Rows, stop: int) -> None:
        """Take rows that have no story of their own, up to the row number `stop` of their shard."""
        while rows.at < stop:
            count = rows.alone(min(stop, rows.at + _TOGETHER))
            if count:
                self._write(rows, count, *rows.texts(count))
                continue
            texts, groups = rows.texts(1)
            if self._is_taken(rows, None):
                self._write(rows, 1, texts, groups)
            else:
                rows.drop()

    def _add_told(self, rows: _Rows, row: ToldRow) -> None:
        """Take a row of which a shard tells more, as `take` does."""
        if not rows.alone(rows.at + 1) and not self._is_taken(rows, row):
            rows.drop()
            return
        split = rows.codes[rows.at]
        self.counts.labels.add(row.labels, splits.SPLITS[split])
        for shown in row.pictures:
            self.counts.images.add(shown.picture)
        if self.leakage is not None and not row.keeps_source:
            self.leakage.add_source(row.source)
        number = len(self.rows)
        self._write(rows, 1, [row.text], [row.group])
        if self.leakage is not None:
            decoded = [shown.decoded for shown in row.pictures if shown.decoded is not None]
            pictures = [(shown.path, shown.picture) for shown in row.pictures]
            if decoded:
                self.leakage.add_pictures(number, row.source, pictures, decoded)
        self.checks.add_row(number, row.source, row.post)
        for warning in row.warnings:
            self.rules.warn(warning, number)

    def _is_taken(self, rows: _Rows, row: ToldRow | None) -> bool:
        """Return whether the next row, which may be a copy, is to be written; else it is set aside."""
        copy = rows.copy()
        split, digest = splits.SPLITS[rows.codes[rows.at]], rows.digest()
        meta: dict[str, Any] = {"gold": {}}
        for name, label, spelling in row.labels if row is not None else ():
            meta["gold"][name] = label
            meta[f"raw_{name}"] = spelling
        record = Record(id=copy.key, group="", source=copy.source, keyed=bool(copy.key))
        try:
            taken = self.writer.takes(copy.raw, record, {"id": copy.id, "meta": meta}, digest, split)
        except RowError as error:
            self.reject(error.reject(copy.source, msgspec.json.decode(copy.raw)))
            taken = False
        self.moved = self.moved or not taken
        return taken

    def _write(self, rows: _Rows, count: int, texts: Sequence[str], groups: Sequence[int]) -> None:
        """Write the next `count` rows of a shard."""
        codes, digests = rows.codes[rows.at : rows.at + count], rows.digests(count)
        if self.leakage is not None:
            self.leakage.add_known(codes, texts, groups, digests[::8])
        for code, split in enumerate(splits.SPLITS):
            if number := codes.count(code):
                self.writer.put_lines(split, rows.lines(code, number), _chosen(digests, codes, code))
        self.rows.extend(codes)
        rows.at += count


class _Rows:
    """The rows of one shard, from the first to the last.

    Attributes:
        codes: The place of the split of each.
        at: The number of the next.
    """

    def __init__(self, shard: Shard, rare: tuple[Any, Any], *, has_texts: bool) -> None:
        import numpy

        self.codes, self.at = shard.codes(), 0
        self._digests = shard.digests()
        digests, keys = shard.numbers("digests"), shard.numbers("keys")
        self._shared = numpy.flatnonzero(numpy.isin(digests, rare[0]) | numpy.isin(keys, rare[1])).tolist()
        self._shared.append(len(self.codes))
        self._next_shared = 0
        self._files: list[IO[bytes]] = [shard.open(f"{split}.jsonl") for split in splits.SPLITS]
        self._raw, self._raw_at = shard.open("raw.jsonl"), 0
        self._decode = msgspec.json.Decoder(Copy).decode
        self._frames = shard.texts() if has_texts else iter(())
        self._texts: list[str] = []
        self._groups: list[int] = []

    def __enter__(self) -> _Rows:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (*self._files, self._raw):
            file.close()

    def alone(self, stop: int) -> int:
        """Return how many of the rows from the next one to `stop` come before one that shares digest or key."""
        while self._shared[self._next_shared] < self.at:
            self._next_shared += 1
        return min(stop, self._shared[self._next_shared]) - self.at

    def texts(self, count: int) -> tuple[list[str], list[int]]:
        """Take texts and groups of the next `count` plain rows; those that no shard kept are empty."""
        while len(self._texts) < count:
            texts, groups = next(self._frames, (None, None))
            if texts is None or groups is None:
                return [""] * count, [0] * count
            self._texts += texts
            self._groups += groups
        taken = self._texts[:count], self._groups[:count]
        del self._texts[:count], self._groups[:count]
        return taken

    def digest(self) -> bytes:
        """Return the digest of the next row."""
        return self._digests[8 * self.at : 8 * self.at + 8]

    def digests(self, count: int) -> bytes:
        """Return the digests of the next `count` rows."""
        return self._digests[8 * self.at : 8 * (self.at + count)]

    def lines(self, code: int, count: int) -> list[bytes]:
        """Take the next `count` lines of a split."""
        return [*islice(self._files[code], count)]

    def copy(self) -> Copy:
        """Return what is written of the next row if it is a copy."""
        for _ in islice(self._raw, self.at - self._raw_at):
            pass
        self._raw_at = self.at + 1
        return self._decode(self._raw.readline())

    def drop(self) -> None:
        """Pass over the next row."""
        self._files[self.codes[self.at]].readline()
        self.at += 1


def _chosen(digests: bytes, codes: bytes, code: int) -> bytes:
    """Return the digests of the rows of one split."""
    import numpy

    chosen = numpy.frombuffer(codes, numpy.uint8) == code
    return bytes(numpy.frombuffer(digests, numpy.uint64)[chosen].tobytes())


def recurring(shards: Sequence[Shard], name: str) -> Any:
    """Return the numbers, sorted, that several rows of all shards have as "digests" or "keys", but for 0."""
    import numpy

    rows = sum(shard.facts.sizes[name] for shard in shards) // 8
    ranges = -(-rows // _RANGE)
    bounds = [(at << 64) // max(1, ranges) for at in range(ranges + 1)]
    found = []
    for low, high in pairwise(bounds):
        numbers = numpy.concatenate([*_between(shards, name, low, high)])
        distinct, counts = numpy.unique(numbers, return_counts=True)
        found.append(distinct[(counts > 1) & (distinct != 0)])
    return numpy.concatenate(found) if found else numpy.zeros(0, numpy.uint64)


def _between(shards: Iterable[Shard], name: str, low: int, high: int) -> Iterator[Any]:
    import numpy

    for shard in shards:
        numbers = shard.numbers(name)
        yield numbers[(numbers >= numpy.uint64(low)) & (numbers <= numpy.uint64(high - 1))]


def _table(tables: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how a file was read, from how its spans were read."""
    whole: dict[str, Any] = {}
    for table in tables:
        for name, value in table.items():
            whole[name] = whole.get(name, 0) + value if name in _COUNTS else value
    return whole
