"""Read one side of a comparison into a table of numbers, and find single rows of it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from dfkdata import schemas
from dfkdata.common.errors import ConfigError
from dfkdata.common.hashing import number_of
from dfkdata.conversion.counts import label_fields
from dfkdata.conversion.folders.media_hashes import MediaHashes
from dfkdata.conversion.folders.reading import WHOLE, RowFolder
from dfkdata.conversion.folders.row_table import RowNumbers, RowTable, place_of, split_and_line
from dfkdata.conversion.splits import SPLITS
from dfkdata.rows.messages import before_answer
from dfkdata.rows.record import Record

NAMES = (*SPLITS, WHOLE)
"""Splits of a comparison; a split's number is its place."""

Labels = tuple[tuple[str, str], ...]
"""The label fields of a row with their values."""

_encode = msgspec.json.Encoder().encode
_sorted = msgspec.json.Encoder(order="sorted").encode
_COLUMNS = frozenset(
    (
        "id",
        "messages",
        "images",
        "videos",
        "audios",
        "tools",
        "chat_template_kwargs",
        "meta",
        "prompt",
        "completion",
    )
)


class LabelNames:
    """Number the labels that rows have; 0 is a row without labels."""

    def __init__(self, fields: Collection[str]) -> None:
        self._fields = frozenset(fields)
        self._numbers: dict[Labels, int] = {(): 0}

    def number(self, record: Record) -> int:
        """Return the number of a row's labels."""
        return self._numbers.setdefault(self.of(record), len(self._numbers))

    def of(self, record: Record) -> Labels:
        """Return the labels of a row."""
        gold = record.gold or {}
        fields = self._fields or _label_fields(record)
        return tuple((name, str(gold[name])) for name in sorted(fields) if name in gold)

    def labels(self) -> list[Labels]:
        """Return the labels in the order of their numbers."""
        return [*self._numbers]


def _label_fields(record: Record) -> frozenset[str]:
    """Return the label fields of the schema that a row names; none for one that does not ship with this package."""
    name, variant = record.meta.get("schema"), record.meta.get("variant")
    if not isinstance(name, str) or "." in name:
        return frozenset()
    return _fields_of(name, variant if isinstance(variant, str) else None)


_known: dict[tuple[str, str | None], frozenset[str]] = {}


def _fields_of(name: str, variant: str | None) -> frozenset[str]:
    if (name, variant) not in _known:
        if len(_known) > 64:
            _known.clear()
        try:
            schema = schemas.load(name, variant)
        except ConfigError:
            schema = None
        _known[name, variant] = frozenset(label_fields(schema))
    return _known[name, variant]


class CompareOptions(NamedTuple):
    """How rows of both sides are read.

    Attributes:
        by_id: Whether rows go by their ids; else by what they ask and show, and facts are not compared.
        by_split: Whether splits are compared.
        labels: The labels of both sides.
        progress: Called with the number of rows read.
    """

    by_id: bool
    by_split: bool
    labels: LabelNames
    progress: Callable[[int], None] | None


class Side:
    """One side of a comparison.

    Attributes:
        folder: What is compared.
        table: The numbers of its rows.
        splits: The number of the split of each of its files.
        rows: Split -> rows.
        labels: (split, number of labels) -> rows.
        missing: Number of its media that cannot be read.
        first_missing: The first of them.
    """

    def __init__(self, folder: RowFolder, parts: int, reading: CompareOptions) -> None:
        self.folder, self.table, self._reading = folder, RowTable(parts), reading
        self._files = [*folder.files.items()]
        self.splits = [
            NAMES.index(split) if reading.by_split else NAMES.index(WHOLE) for split, _ in self._files
        ]
        self.rows, self.labels = Counter[str](), Counter[tuple[str, int]]()
        self.missing, self.first_missing = 0, ""

    def read(self, before: int = 0) -> int:
        """Read all rows; return how many rows were read, those `before` included.

        Raises:
            DataError: A file cannot be read, or a line is not a row.
        """
        for number, (split, file) in enumerate(self._files):
            media, name = MediaHashes(file), NAMES[self.splits[number]]
            for line, row, record in self.folder.rows(split):
                labels = self._reading.labels.number(record)
                self.table.add(
                    self._numbers(row, record, media.of(record, line), labels, place_of(number, line))
                )
                self.rows[name] += 1
                self.labels[name, labels] += 1
                before += 1
                if self._reading.progress is not None and not before & 1023:
                    self._reading.progress(before)
            self.missing += media.missing
            self.first_missing = self.first_missing or media.first_missing
        return before

    def _numbers(
        self, row: dict[str, Any], record: Record, media: bytes, labels: int, place: int
    ) -> RowNumbers:
        turns = record.messages or []
        asked = before_answer(turns)
        prompt = number_of(_encode([asked, record.tools or None, record.chat_template_kwargs]))
        answer = number_of(_encode(turns[len(asked) :]))
        shown = number_of(media) if media else 0
        if not self._reading.by_id:
            return RowNumbers(number_of(f"{prompt}-{shown}"), prompt, answer, shown, 0, place, 0)
        return RowNumbers(
            number_of(record.id), prompt, answer, shown, number_of(_facts(row, record)), place, labels
        )

    def where(self, place: int) -> str:
        """Return a place for people: "train.jsonl:7"."""
        number, line = split_and_line(place)
        return f"{self._files[number][1].name}:{line}"

    def split_of(self, place: int) -> str:
        """Return the split of a place."""
        return NAMES[self.splits[split_and_line(place)[0]]]

    def records(self, places: Collection[int]) -> dict[int, Record]:
        """Return place -> record of some rows, which are read again."""
        found: dict[int, Record] = {}
        for number, (split, _) in enumerate(self._files):
            lines = {line for at, line in map(split_and_line, places) if at == number}
            records = self.folder.records_at(split, lines)
            found |= {place_of(number, line): record for line, record in records.items()}
        return found

    @property
    def label_counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """What the manifest says of labels, for layouts that keep none: field -> split -> label -> rows."""
        return self.folder.manifest.labels if self.folder.manifest is not None else {}

    @property
    def path(self) -> Path:
        """The path as the user named it."""
        return self.folder.path


def _facts(row: dict[str, Any], record: Record) -> bytes:
    """Return what else a row says, but where it came from: its group, facts, and columns of its own."""
    columns = {name: value for name, value in row.items() if name not in _COLUMNS}
    return _sorted([record.group, record.gold, record.meta, columns])
