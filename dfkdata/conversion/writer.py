"""Write finished rows to the file of their split, and copies of earlier rows to duplicates.jsonl.

How it works: 8 bytes over its turns and media identify a row. A copy of an earlier row goes to
`duplicates.jsonl`. If the earlier one is a training row and the copy is held out, the copy is written and the
training row leaves its file again at the end.

Guarantees: no row is written twice and none is lost; files are written in the order in which rows come."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import compress
from struct import unpack
from typing import Any

import msgspec

from dfkdata.conversion import splits
from dfkdata.conversion.counts import RunCounts
from dfkdata.conversion.digest_set import DigestSet
from dfkdata.conversion.output_folder import Folder
from dfkdata.rows.record import Record, Reject, RowError
from dfkdata.validation.rules import RuleWarning

CODE = {name: code for code, name in enumerate(splits.SPLITS)}
"""Split -> its place in `splits.SPLITS`."""

_TRAIN = CODE["train"]
_NOWHERE = 3
"""In the place of a split: the row was seen, but is written nowhere."""

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
        self._seen, self._keys, self._pairs = DigestSet(), DigestSet(), DigestSet()
        self._evicted: set[int] = set()

    def reject(self, reject: Reject) -> None:
        """Write a row to the quarantine."""
        self.quarantine.put(reject)
        self._counts.rows["quarantined"] += 1
        self._counts.rejects.add(reject)

    def warn(self, warning: RuleWarning) -> None:
        """Count a broken rule that let its rows through, and write a line for each."""
        lines = warning.lines()
        self._counts.warnings.add(warning, len(lines))
        for line in lines:
            self.warnings.put(line)

    def takes(self, raw: Any, record: Record, row: dict[str, Any], digest: bytes, split: str) -> bool:
        """Return whether a row is to be written; a copy of an earlier one goes to the duplicates instead.

        Raises:
            RowError: An earlier row has the same key of the source.
        """
        key = int.from_bytes(digest)
        before = self._seen.put(key, CODE[split])
        if before is None or before == _NOWHERE:
            if record.keyed:  # a copy of a row whose key is taken is no copy of a written one
                self._seen.change(key, _NOWHERE)
                self._key(record.id, digest)
            self._seen.change(key, CODE[split])
            return True
        if before != _TRAIN or split == "train":
            self._counts.rows["duplicates"] += 1
            copy = {"source": record.source, "id": row["id"], "kept": splits.SPLITS[before], "raw": raw}
            self.duplicates.put(copy)
            return False
        if record.keyed:
            self._key(record.id, digest, evicts=True)
        self._evicted.add(key)
        self._counts.rows["out"] -= 1
        self._counts.rows["duplicates"] += 1
        self._counts.labels.remove(
            row["meta"], "train"
        )  # its turns, and so its labels, are those of this row
        self._seen.change(key, CODE[split])
        return True

    def all_new(self, digests: Sequence[bytes], codes: Sequence[int]) -> bool:
        """Return whether no row was like any of these and they differ; then they count as seen.

        Args:
            digests: 8 bytes a row.
            codes: `CODE` of each row's split.
        """
        return self._seen.put_new(unpack(f">{len(digests)}Q", b"".join(digests)), codes)

    def put(self, row: Any, digest: bytes, split: str) -> None:
        """Write a row that was taken."""
        self.files[split].put(row)
        if split == "train":
            self._digests.write(digest)
        self._counts.rows["out"] += 1

    def put_all(self, rows: Sequence[Any], digests: Sequence[bytes], codes: Sequence[int]) -> None:
        """Write rows that were taken; arguments as in `all_new`."""
        for code in set(codes):
            chosen = [other == code for other in codes]
            self.files[splits.SPLITS[code]].put_all(list(compress(rows, chosen)))
            if code == _TRAIN:
                self._digests.write(b"".join(compress(digests, chosen)))
        self._counts.rows["out"] += len(rows)

    def close(self) -> list[int]:
        """Finish all files but the duplicates; return the places (from 0) of rows that left train.jsonl."""
        self._digests.close()
        for file in self.files.values():
            file.close()
        self.quarantine.close()
        self._seen = self._keys = self._pairs = DigestSet()  # the memory is needed for what is compared next
        places = self._evict() if self._evicted else []
        (self._folder.partial / _DIGESTS).unlink()
        return places

    def _key(self, name: str, digest: bytes, *, evicts: bool = False) -> None:
        """Raise `RowError` for a key that was there before, unless it belongs to the very copy that goes."""
        key, pair = (sha256(one).digest()[:8] for one in (name.encode(), digest + name.encode()))
        known = self._pairs.put(int.from_bytes(pair), 0) is not None
        if not (evicts and known) and self._keys.put(int.from_bytes(key), 0) is not None:
            hint = "give each row a key of its own, or leave the key out"
            raise RowError("ID_TWICE", f"another row has the id {name!r}", path="id", value=name, hint=hint)

    def _evict(self) -> list[int]:
        """Move training copies of held-out rows from train.jsonl to duplicates.jsonl; return their places."""
        path = self.files["train"].path
        old = path.rename(path.with_suffix(".before"))
        train, places = self._folder.lines("train.jsonl"), []
        with old.open("rb") as lines, path.with_name(_DIGESTS).open("rb") as digests:
            for place, line in enumerate(lines):
                if int.from_bytes(digests.read(8)) not in self._evicted:
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
