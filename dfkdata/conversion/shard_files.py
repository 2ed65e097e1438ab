"""What one shard leaves on disk, for the one process that puts all shards together.

How it works: a shard writes the lines of its rows, by split, and beside them what only the whole data set decides
about: 8 bytes of digest a row for copies, 8 of its key, its text for near copies. Rows with a story of their own
(pictures, labels, warnings) and rejects are events, in the order of the rows. Every file is read from its start to
its end, so a shard of any size costs no memory.

Guarantee: a shard is there whole, under its own name, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import compress, repeat
from pathlib import Path
from typing import IO, Any, Self

import msgspec

from dfkdata.common.errors import DataError
from dfkdata.common.faults import naming
from dfkdata.conversion.counts import Labels
from dfkdata.conversion.duplicates import KEY_BITS
from dfkdata.conversion.post_labels import PostKeys
from dfkdata.conversion.splits import CODE, SPLITS
from dfkdata.conversion.unread_columns import ColumnLook
from dfkdata.media.perceptual_hash import DecodedPicture
from dfkdata.media.probe import Picture
from dfkdata.rows.chat_turns import without_bytes
from dfkdata.rows.messages import PlainRow
from dfkdata.rows.record import Record, Reject
from dfkdata.sources import writable
from dfkdata.validation.rules import RuleWarning

_FACTS = "facts.json"
_FILES = ("digests", "codes", "keys", "raw.jsonl", "events", "texts", *(f"{split}.jsonl" for split in SPLITS))
_BUFFER = 1 << 18
_TOGETHER = 64
_SIZE = 4  # bytes before a frame that say how long it is


class ShownPicture(msgspec.Struct, array_like=True):
    """A picture of a row.

    Attributes:
        path: Its file.
        picture: What it is.
        decoded: How it looks; None if nobody asked.
    """

    path: str
    picture: Picture
    decoded: DecodedPicture | None


class ToldRow(msgspec.Struct, array_like=True):
    """What is to be known of a written row beside its line.

    Attributes:
        source: "file:line" of its raw row.
        keeps_source: Whether the line says so.
        text: What tells it from others, shortened; empty if nobody asked.
        group: The number of its group.
        post: What tells its post and its labels.
        labels: What is counted of its labels.
        pictures: Its pictures.
        warnings: Rules that it broke.
    """

    source: str
    keeps_source: bool
    text: str
    group: int
    post: PostKeys | None
    labels: Labels
    pictures: list[ShownPicture]
    warnings: list[RuleWarning]


class RowEvent(msgspec.Struct, array_like=True):
    """A row with a story of its own.

    Attributes:
        at: How many rows of the shard were written before it.
        row: What is to be known, if it was written.
        reject: Why it was not, without the raw row.
        line: The line of the quarantine.
    """

    at: int
    row: ToldRow | None = None
    reject: Reject | None = None
    line: bytes = b""


class Copy(msgspec.Struct, array_like=True):
    """What is written of a row that turns out to be a copy, or whose key is another row's.

    Attributes:
        source: "file:line" of the raw row.
        id: The id of the row.
        key: The source's own key; empty for a row without one.
        raw: The raw row.
    """

    source: str
    id: str
    key: str
    raw: msgspec.Raw


class ShardFacts(msgspec.Struct):
    """What a shard says about all of its rows.

    Attributes:
        rows: How many raw rows it has.
        left_out: How many were left out by request.
        columns: Split -> keys of its rows.
        table: How its file was read.
        looks: What its first rows show about columns.
        files: Filled columns that may name files, and those of them that the format does not read.
        named: Folders of media that its rows name -> how they name them.
        sizes: Bytes of each of its files.
    """

    rows: int
    left_out: int
    columns: dict[str, list[str]]
    table: dict[str, Any]
    looks: list[ColumnLook]
    files: list[tuple[tuple[str, ...], list[str]]]
    named: dict[str, str]
    sizes: dict[str, int] = {}


class ShardWriter:
    """Write one shard; every row is taken, since only the whole data set tells which are copies."""

    def __init__(self, final: Path, *, holds_bytes: bool) -> None:
        """Begin a shard.

        Args:
            final: Its folder when it is whole.
            holds_bytes: Whether raw rows may hold bytes, which JSON has not.
        """
        self._final, self._folder = final, final.with_name(f"{final.name}.{os.getpid()}.part")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._files = {name: (self._folder / name).open("wb", buffering=_BUFFER) for name in _FILES}
        self._holds_bytes = holds_bytes
        encoder = msgspec.json.Encoder()
        self._encode, self._encode_lines = encoder.encode, encoder.encode_lines
        self._pack = msgspec.msgpack.Encoder().encode
        self._raw: list[tuple[str, str, str, Any]] = []
        self._event: RowEvent | None = None
        self.rows = 0

    def takes(self, raw: Any, record: Record, row: dict[str, Any], digest: bytes, split: str) -> bool:
        """Note a row that is to be written."""
        key = record.id if record.keyed else ""
        return self.takes_all([raw], [record.source], [row["id"]], [key], [digest], [CODE[split]])

    def takes_all(
        self,
        raws: Sequence[Any],
        sources: Sequence[str],
        names: Sequence[str],
        keys: Sequence[str] | None,
        digests: Sequence[bytes],
        codes: Sequence[int],
    ) -> bool:
        """Note rows that are to be written."""
        held = map(without_bytes, raws) if self._holds_bytes else raws
        self._raw += zip(sources, names, keys or repeat(""), held, strict=False)
        if len(self._raw) >= _TOGETHER:
            self._write_raw()
        count = len(digests)
        self._files["digests"].write(b"".join(digests))
        self._files["codes"].write(bytes(codes))
        self._files["keys"].write(bytes(8 * count) if keys is None else b"".join(map(_key_number, keys)))
        self.rows += count
        return True

    def encode(self, row: Any) -> bytes:
        """Return a row as a line. Raises `UnicodeEncodeError`."""
        return bytes(self._encode(row)) + b"\n"

    def put(self, line: bytes, split: str) -> None:
        """Write the line of a row that was taken."""
        self._files[f"{split}.jsonl"].write(line)

    def put_all(self, rows: Sequence[PlainRow], codes: Sequence[int]) -> None:
        """Write rows that were taken; `codes` are the places of their splits."""
        for code in set(codes):
            lines = self._encode_lines([*compress(rows, [other == code for other in codes])])
            self._files[f"{SPLITS[code]}.jsonl"].write(lines)

    def put_texts(self, texts: Sequence[str], groups: Sequence[int]) -> None:
        """Write the texts and the groups of plain rows."""
        self._frame("texts", (texts, groups))

    def tell(self, event: RowEvent) -> None:
        """Write an event, when the next comes: until then warnings may be added to it."""
        self._settle()
        self._event = event

    def warn(self, warning: RuleWarning) -> None:
        """Add a warning to the row that was told last."""
        if self._event is not None and self._event.row is not None:
            self._event.row.warnings.append(warning)

    def close(self, facts: ShardFacts) -> None:
        """Finish the shard: now it is there."""
        self._settle()
        self._write_raw()
        for file in self._files.values():
            with naming(file.name):
                file.close()
        facts.sizes = {name: (self._folder / name).stat().st_size for name in _FILES}
        (self._folder / _FACTS).write_bytes(msgspec.json.encode(facts))
        if self._final.exists():  # a second look at the shard, or a process that outlived its run
            shutil.rmtree(self._final)
        self._folder.rename(self._final)

    def discard(self) -> None:
        """Remove what was written of a shard that is not whole."""
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _settle(self) -> None:
        if self._event is not None:
            self._frame("events", self._event)
            self._event = None

    def _frame(self, name: str, value: Any) -> None:
        data = self._pack(value)
        self._files[name].write(len(data).to_bytes(_SIZE) + data)

    def _write_raw(self) -> None:
        try:
            lines = self._encode_lines(self._raw)
        except UnicodeEncodeError:
            lines = self._encode_lines(writable([list(entry) for entry in self._raw]))
        self._files["raw.jsonl"].write(lines)
        self._raw.clear()


def _key_number(key: str) -> bytes:
    """Return 8 bytes for a key, as `DuplicateCheck` compares it; zeros for none."""
    return sha256(key.encode()).digest()[:8] if key else bytes(8)


class Shard:
    """A finished shard.

    Attributes:
        folder: Its folder.
        facts: What it says about all of its rows.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = msgspec.json.decode((folder / _FACTS).read_bytes(), type=ShardFacts)

    @classmethod
    def found(cls, folder: Path) -> Self | None:
        """Return the shard in a folder; None if it is not whole, as after a power cut."""
        try:
            shard = cls(folder)
            sizes = {name: (folder / name).stat().st_size for name in _FILES}
        except (OSError, msgspec.MsgspecError):
            return None
        return shard if sizes == shard.facts.sizes else None

    def open(self, name: str) -> IO[bytes]:
        """Open one of its files."""
        return (self.folder / name).open("rb", buffering=1 << 20)

    def digests(self) -> bytes:
        """Return the digests of all rows."""
        return (self.folder / "digests").read_bytes()

    def codes(self) -> bytes:
        """Return the place of the split of each row."""
        return (self.folder / "codes").read_bytes()

    def numbers(self, name: str) -> Any:
        """Return "digests" or "keys" as numbers, as `DigestSet` compares them; a row without key has 0."""
        import numpy

        return numpy.fromfile(self.folder / name, ">u8").astype(numpy.uint64) & numpy.uint64(KEY_BITS)

    def events(self) -> Iterator[RowEvent]:
        """Yield the rows with a story of their own."""
        yield from self._frames("events", msgspec.msgpack.Decoder(RowEvent))

    def texts(self) -> Iterator[tuple[list[str], list[int]]]:
        """Yield texts and groups of plain rows, many at once."""
        yield from self._frames("texts", msgspec.msgpack.Decoder(tuple[list[str], list[int]]))

    def _frames(self, name: str, decoder: msgspec.msgpack.Decoder[Any]) -> Iterator[Any]:
        with self.open(name) as file:
            while size := file.read(_SIZE):
                data = file.read(int.from_bytes(size))
                try:
                    yield decoder.decode(data)
                except msgspec.MsgspecError as error:
                    hint = "remove that folder; the same command converts it again"
                    raise DataError(f"{self.folder / name}: is damaged ({error}); {hint}") from error
