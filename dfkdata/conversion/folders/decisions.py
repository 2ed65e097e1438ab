"""Decide which rows of several folders a merge keeps.

How it works. Rows are taken in one order: the test rows of all folders, then validation, then training. So the held-out
one of two copies stays, and of two equal splits the row of the first folder. Copies are told by the digest that a
conversion uses, ids by `DuplicateCheck`. What is kept by then is compared across training and held-out rows
(`dfkdata.validation.overlap`): groups, prompts that are nearly the same, pictures, and other media.

Guarantees: what becomes of a row depends on rows, order and policies alone, so that a merge of merges, which keeps what
it left out, decides as one merge of all folders does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from dfkdata.common.errors import DataError
from dfkdata.conversion.duplicates import NEW, DuplicateCheck
from dfkdata.conversion.folders.parent_rows import ParentRows
from dfkdata.conversion.folders.parents import ORDER, OnConflict, OnOverlap, ParentRow
from dfkdata.conversion.splits import SPLITS
from dfkdata.rows.record import Record, RowError
from dfkdata.validation.overlap import KINDS, RowFile, RowIndex

HELD = ORDER[:-1]
KEPT, CONFLICT = 0, 1
_COPIES = 2
_KINDS = _COPIES + len(SPLITS)


@dataclass
class Decisions:
    """What becomes of each row.

    Attributes:
        fates: (split, number of the folder) -> a byte for each row.
        likes: (number of the folder, number of its training row) -> place of the held-out row that it is like.
        looked: Whether pictures were compared by their looks, too.
    """

    fates: dict[tuple[str, int], bytearray] = field(default_factory=dict)
    likes: dict[tuple[int, int], str] = field(default_factory=dict)
    looked: bool = True

    def of(self, split: str, folder: int, row: int) -> tuple[str, str] | None:
        """Return the reason for which a row is left out, and what it is like; None if it is kept."""
        fate = self.fates[split, folder][row]
        if fate == KEPT:
            return None
        if fate == CONFLICT:
            return "conflict", ""
        if fate < _KINDS:
            return "copy", SPLITS[fate - _COPIES]
        return KINDS[fate - _KINDS], self.likes[folder, row]


class Decider:
    """Decide about the rows of several folders."""

    def __init__(
        self,
        folders: Sequence[ParentRows],
        on_conflict: OnConflict,
        on_overlap: OnOverlap,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._folders, self._on_conflict, self._on_overlap = folders, on_conflict, on_overlap
        self._progress, self._done = progress, 0
        self._copies = DuplicateCheck()
        self._decisions = Decisions()
        self._across, self._first_across = 0, ""

    def decide(self) -> Decisions:
        """Return what becomes of each row.

        Raises:
            DataError: Rows are in conflict, or training and held-out rows are alike, and the policy is "error"; or a
                row cannot be read.
        """
        for split in ORDER:
            for number, folder in enumerate(self._folders):
                fates = bytearray(self._fate(folder, row, split) for row in folder.parent.rows(split))
                self._decisions.fates[split, number] = fates
        self._copies = DuplicateCheck()  # what is compared next needs the memory
        if self._across and self._on_overlap == "error":
            what = f"{self._across} training rows are copies of held-out rows, such as {self._first_across}"
            raise DataError(f"{what}; {_WAY}")
        self._compare()
        return self._decisions

    def _fate(self, folder: ParentRows, row: ParentRow, split: str) -> int:
        self._done += 1
        if self._progress is not None and not self._done & 1023:
            self._progress(self._done)
        record = folder.record(row, folder.raw(row))
        try:
            found = self._copies.check(record, folder.digest(row, record), split)
        except RowError as error:
            if row.was_left_out or self._on_conflict == "first":
                return CONFLICT
            raise self._conflict(folder, row, record) from error
        if found == NEW:
            return KEPT
        if split not in HELD and found in HELD and not row.was_left_out:
            self._across += 1
            self._first_across = self._first_across or folder.where(row)
        return _COPIES + SPLITS.index(found)

    def _conflict(self, folder: ParentRows, row: ParentRow, record: Record) -> DataError:
        """Return the error about two rows of one id; the first of them is looked for again."""
        first = next(
            (
                other.where(one)
                for split in ORDER
                for other in self._folders
                for one in other.parent.rows(split)
                if other.record(one, other.raw(one)).id == record.id
            ),
            "an earlier row",
        )
        return DataError(
            f"{folder.where(row)}: the id {record.id!r:.100} is that of {first}, too, and their contents differ;"
            " --on-conflict first keeps the first of two such rows, or give each row an id of its own"
        )

    def _kept(self, splits: Sequence[str], folders: Sequence[int]) -> Iterator[tuple[ParentRows, ParentRow]]:
        for split in splits:
            for number in folders:
                fates = self._decisions.fates[split, number]
                rows = self._folders[number].parent.rows(split)
                yield from (
                    (self._folders[number], row)
                    for row, fate in zip(rows, fates, strict=True)
                    if fate == KEPT
                )

    def _file(self, splits: Sequence[str], folders: Sequence[int]) -> RowFile:
        """Return the kept rows of folders as a file to compare."""

        def read() -> Iterator[dict[str, Any]]:
            for number, (folder, row) in enumerate(self._kept(splits, folders)):
                record = folder.record(row, folder.raw(row))
                yield {
                    "id": record.id or f"{folder.parent.path}:{splits[0]}:{number}",
                    "messages": record.messages or [],
                    "images": [*record.images],
                    "videos": [*record.videos],
                    "audios": [*record.audios],
                    "meta": {**record.meta, "group": record.group},
                }

        return RowFile(" ".join(str(self._folders[number].parent.path) for number in folders), read=read)

    def _number_kept(self, splits: Sequence[str]) -> int:
        return sum(
            self._decisions.fates[split, number].count(KEPT)
            for split in splits
            for number in range(len(self._folders))
        )

    def _compare(self) -> None:
        if not self._number_kept(HELD) or not self._number_kept(["train"]):
            return
        if self._on_overlap == "error":
            self._refuse()
        else:
            self._drop()

    def _refuse(self) -> None:
        """Raise `DataError` if training rows of one folder are like held-out rows of another."""
        numbers = range(len(self._folders))
        files = [self._file(splits, [number]) for splits in (HELD, ("train",)) for number in numbers]
        with RowIndex(files) as index:
            for number in numbers:
                others = [other for other in numbers if other != number]
                found = index.compare([len(numbers) + number], others)
                self._decisions.looked &= found.looked
                if not found.counts:
                    continue
                told = []
                for kind, rows in found.counts.items():
                    pair = found.examples[kind]
                    held = f"row {pair.train[1]!r:.60} of {files[pair.train[0]].path}"
                    told.append(f"{rows} by their {kind}, such as row {pair.held[1]!r:.60} and {held}")
                path = self._folders[number].parent.path
                raise DataError(
                    f"training rows of {path} are like held-out rows of others: {'; '.join(told)}; {_WAY}"
                )

    def _drop(self) -> None:
        """Leave out every training row that is like a held-out one, whichever folders they are of."""
        everywhere = range(len(self._folders))
        with RowIndex([self._file(HELD, everywhere), self._file(("train",), everywhere)]) as index:
            pairs, self._decisions.looked = index.pairs([1], [0])
            first_train = index.rows[0]
        tests = self._number_kept(["test"])
        alike: dict[int, tuple[int, int]] = {}
        for code, kind in reversed([*enumerate(KINDS, start=_KINDS)]):
            alike |= {train - first_train: (code, held) for train, held in pairs[kind].items()}
        kept = count()
        for folder in everywhere:
            fates = self._decisions.fates["train", folder]
            for row, fate in enumerate(fates):
                if fate == KEPT and (found := alike.get(next(kept))) is not None:
                    fates[row], held = found
                    place = (
                        f"test.jsonl:{held + 1}" if held < tests else f"validation.jsonl:{held - tests + 1}"
                    )
                    self._decisions.likes[folder, row] = place


_WAY = (
    "scores on them would be too good. --on-overlap drop-train leaves these training rows out; or convert all inputs"
    " together, so that one split holds for all of them"
)
