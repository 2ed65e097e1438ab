"""Write each row in the file of its split, copies apart.

How it works: a training row of which a held-out copy comes later (`duplicates`) leaves its file again at the end.

Guarantee: no row is written twice and none is lost; files are written in the order in which rows come."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any

import msgspec

from dfkdata.conversion import splits
from dfkdata.conversion.counts import RuleCounts, RunCounts
from dfkdata.conversion.duplicates import EVICTS, NEW, DuplicateCheck
from dfkdata.conversion.output_folder import Folder
from dfkdata.rows.chat_turns import without_bytes
from dfkdata.rows.record import Record, Reject
from dfkdata.validation.rules import RuleWarning

if TYPE_CHECKING:
    from numpy.typing import NDArray


def writable_reject(reject: Reject) -> Reject:
    """Return a reject as the quarantine holds it: its raw row without bytes, which JSON has not."""
    return msgspec.structs.replace(reject, raw=without_bytes(reject.raw))


_DIGESTS = "train.digests"


class SplitWriter:
    """Hold the files of one conversion while they are written, and count the rows in `out` and `duplicates`.

    Attributes:
        files: Split -> its file.
        duplicates: Copies of earlier rows.
        quarantine: Rejected rows.
        warnings: Broken rules that let a row through, one line a row.
    """

    def __init__(self, folder: Folder, counts: RunCounts) -> None:
        self._folder, self._counts = folder, counts
        self.files = {name: folder.lines(f"{name}.jsonl") for name in splits.SPLITS}
        self.duplicates = folder.lines("duplicates.jsonl")
        self.quarantine = folder.lines("quarantine.jsonl")
        self.warnings = folder.lines("warnings.jsonl")
        self._digests = (folder.partial / _DIGESTS).open("wb", buffering=1 << 20)
        self._warned = array("q")
        self._copies = DuplicateCheck()

    def reject(self, reject: Reject) -> None:
        """Write a row to the quarantine."""
        self.quarantine.put(writable_reject(reject))
        self._count(reject)

    def reject_line(self, reject: Reject, line: bytes) -> None:
        """Write a row to the quarantine of which the line is encoded already; the reject may lack its raw row."""
        self.quarantine.put_line(line)
        self._count(reject)

    def _count(self, reject: Reject) -> None:
        self._counts.rows["quarantined"] += 1
        self._counts.rejects.add(reject)

    def warn(self, warning: RuleWarning) -> None:
        """Count a broken rule that let its rows through, and write a line for each."""
        lines = warning.lines()
        self._counts.warnings.add(warning, len(lines))
        for line in lines:
            self.warnings.put(line)
            self._warned.append(warning.number)

    def drop_warnings(self, gone: NDArray[Any]) -> None:
        """Take back the warnings about rows that left their file again.

        Args:
            gone: Of each row that was written, whether it left.
        """
        if not any(number >= 0 and gone[number] for number in self._warned):
            return
        self.warnings.close()
        old = self.warnings.path.rename(self.warnings.path.with_suffix(".before"))
        self.warnings, self._counts.warnings = self._folder.lines("warnings.jsonl"), RuleCounts()
        with old.open("rb") as lines:
            for line, number in zip(lines, self._warned, strict=True):
                if number < 0 or not gone[number]:
                    self.warnings.put_line(line)
                    self._counts.warnings.add(msgspec.json.decode(line, type=Reject))
        old.unlink()
        self._warned = array("q", (number for number in self._warned if number < 0 or not gone[number]))

    def takes(self, raw: Any, record: Record, row: dict[str, Any], digest: bytes, split: str) -> bool:
        """Return whether a row is to be written; a copy of an earlier one goes to the duplicates instead.

        Raises:
            RowError: An earlier row has the same key of the source.
        """
        found = self._copies.check(record, digest, split)
        if found == NEW:
            return True
        self._counts.rows["duplicates"] += 1
        if found != EVICTS:
            self.duplicates.put(
                {"source": record.source, "id": row["id"], "kept": found, "raw": without_bytes(raw)}
            )
            return False
        self._counts.rows["out"] -= 1
        self._counts.labels.remove(
            row["meta"], "train"
        )  # its turns, and so its labels, are those of this row
        return True

    def takes_all(
        self,
        raws: Sequence[Any],  # noqa: ARG002  # a copy is asked for alone
        sources: Sequence[str],  # noqa: ARG002
        names: Sequence[str],  # noqa: ARG002
        keys: Sequence[str] | None,
        digests: Sequence[bytes],
        codes: Sequence[int],
    ) -> bool:
        """Return whether no row was like any of these, they differ, and none has a key that others could have."""
        return keys is None and self._copies.all_new(digests, codes)

    def put(self, row: Any, digest: bytes, split: str) -> None:
        """Write a row that was taken."""
        self.files[split].put(row)
        if split == "train":
            self._digests.write(digest)
        self._counts.rows["out"] += 1

    def put_lines(self, split: str, lines: Sequence[bytes], digests: bytes) -> None:
        """Write rows that were taken and are encoded already, with the digests of all of them."""
        self.files[split].put_lines(lines)
        if split == "train":
            self._digests.write(digests)
        self._counts.rows["out"] += len(lines)

    def put_all(self, rows: Sequence[Any], digests: Sequence[bytes], codes: Sequence[int]) -> None:
        """Write rows that were taken; arguments as in `takes_all`."""
        for code in set(codes):
            chosen = [other == code for other in codes]
            self.files[splits.SPLITS[code]].put_all(list(compress(rows, chosen)))
            if code == splits.CODE["train"]:
                self._digests.write(b"".join(compress(digests, chosen)))
        self._counts.rows["out"] += len(rows)

    def close(self) -> list[int]:
        """Finish all files but the duplicates; return the places (from 0) of rows that left train.jsonl."""
        self._digests.close()
        for file in self.files.values():
            file.close()
        self.quarantine.close()
        evicted, self._copies = (
            self._copies.evicted,
            DuplicateCheck(),
        )  # what is compared next needs the memory
        places = self._evict(evicted) if evicted else []
        (self._folder.partial / _DIGESTS).unlink()
        return places

    def _evict(self, evicted: set[int]) -> list[int]:
        """Move training copies of held-out rows from train.jsonl to duplicates.jsonl; return their places."""
        path = self.files["train"].path
        old = path.rename(path.with_suffix(".before"))
        train, places = self._folder.lines("train.jsonl"), []
        with old.open("rb") as lines, path.with_name(_DIGESTS).open("rb") as digests:
            for place, line in enumerate(lines):
                if int.from_bytes(digests.read(8)) not in evicted:
                    train.put_line(line)
                    continue
                places.append(place)
                row = msgspec.json.decode(line)
                source, name = row.get("meta", {}).get("source", ""), row.get("id", "")
                copy = {"source": source, "id": name, "kept": "held out", "raw": row}
                self.duplicates.put(copy)
        train.close()
        old.unlink()
        self.files["train"] = train
        return places
