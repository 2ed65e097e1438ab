"""Where finished rows go: into the file of their side, or to the duplicates.

Strategy: a row is known by 8 bytes over its turns and media. A copy of an earlier row goes to
`duplicates.jsonl`; where the earlier one is a training row and the copy is held out, the copy is written and
the training row leaves its file again at the end.
Promises: no row is written twice and none is lost; files are written in the order in which rows come."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import compress
from struct import unpack
from typing import Any

import msgspec

from dfkdata.conversion import splits
from dfkdata.conversion.counts import LabelCounts
from dfkdata.conversion.digest_set import DigestSet
from dfkdata.conversion.output_folder import Folder
from dfkdata.rows.record import Record, RowError

CODE = {name: code for code, name in enumerate(splits.SPLITS)}
"""Side -> its place in `split.SPLITS`."""

_TRAIN = CODE["train"]
_NOWHERE = 3
"""In the place of a side: the row was seen, but is written nowhere."""

_DIGESTS = "train.digests"


class SplitWriter:
    """The files of one conversion while they are written. rows: "out" and "duplicates" are counted here."""

    def __init__(self, folder: Folder, rows: dict[str, int], labels: LabelCounts) -> None:
        self.folder, self.rows, self.labels = folder, rows, labels
        self.files = {name: folder.lines(f"{name}.jsonl") for name in splits.SPLITS}
        self.duplicates = folder.lines("duplicates.jsonl")
        self._digests = (folder.partial / _DIGESTS).open("wb", buffering=1 << 20)
        self._seen, self._keys, self._pairs = DigestSet(), DigestSet(), DigestSet()
        self._evicted: set[int] = set()

    def takes(self, raw: Any, record: Record, row: dict[str, Any], digest: bytes, side: str) -> bool:
        """Whether a row is to be written; a copy of an earlier one is not, and goes to the duplicates.

        Raises `RowError` for a key of the source that an earlier row has."""
        key = int.from_bytes(digest)
        before = self._seen.put(key, CODE[side])
        if before is None or before == _NOWHERE:
            if record.keyed:  # a copy of a row whose key is taken is no copy of a written one
                self._seen.change(key, _NOWHERE)
                self._key(record.id, digest)
            self._seen.change(key, CODE[side])
            return True
        if before != _TRAIN or side == "train":
            self.rows["duplicates"] += 1
            copy = {"source": record.source, "id": row["id"], "kept": splits.SPLITS[before], "raw": raw}
            self.duplicates.put(copy)
            return False
        if record.keyed:
            self._key(record.id, digest, evicts=True)
        self._evicted.add(key)
        self.rows["out"] -= 1
        self.rows["duplicates"] += 1
        self.labels.remove(row["meta"], "train")  # its turns, and so its labels, are those of this row
        self._seen.change(key, CODE[side])
        return True

    def all_new(self, digests: Sequence[bytes], sides: Sequence[int]) -> bool:
        """Whether no row was like any of these and they differ; then they count as seen. sides: codes."""
        return self._seen.put_new(unpack(f">{len(digests)}Q", b"".join(digests)), sides)

    def put(self, row: Any, digest: bytes, side: str) -> None:
        """Write a row that was taken."""
        self.files[side].put(row)
        if side == "train":
            self._digests.write(digest)
        self.rows["out"] += 1

    def put_all(self, rows: Sequence[Any], digests: Sequence[bytes], sides: Sequence[int]) -> None:
        """Write rows that were taken. sides: codes."""
        for code in set(sides):
            chosen = [side == code for side in sides]
            self.files[splits.SPLITS[code]].put_all(list(compress(rows, chosen)))
            if code == _TRAIN:
                self._digests.write(b"".join(compress(digests, chosen)))
        self.rows["out"] += len(rows)

    def close(self) -> list[int]:
        """Finish the files but the duplicates; the places (from 0) of the rows that left the training file
        again."""
        self._digests.close()
        for file in self.files.values():
            file.close()
        self._seen = self._keys = self._pairs = DigestSet()  # the memory is needed for what is compared next
        left = self._evict() if self._evicted else []
        (self.folder.partial / _DIGESTS).unlink()
        return left

    def _key(self, name: str, digest: bytes, *, evicts: bool = False) -> None:
        """Raises `RowError` for a key that was there before, unless it is that of the very copy that goes."""
        key, pair = (sha256(one).digest()[:8] for one in (name.encode(), digest + name.encode()))
        known = self._pairs.put(int.from_bytes(pair), 0) is not None
        if not (evicts and known) and self._keys.put(int.from_bytes(key), 0) is not None:
            hint = "give each row a key of its own, or leave the key out"
            raise RowError("ID_TWICE", f"another row has the id {name!r}", path="id", value=name, hint=hint)

    def _evict(self) -> list[int]:
        """Take the training copies of held-out rows out of train.jsonl; each goes to duplicates.jsonl."""
        path = self.files["train"].path
        old = path.rename(path.with_suffix(".before"))
        kept, gone = self.folder.lines("train.jsonl"), []
        with old.open("rb") as lines, path.with_name(_DIGESTS).open("rb") as digests:
            for place, line in enumerate(lines):
                if int.from_bytes(digests.read(8)) not in self._evicted:
                    kept.put_line(line)
                    continue
                gone.append(place)
                row = msgspec.json.decode(line)
                source, name = row.get("meta", {}).get("source", ""), row.get("id", "")
                copy = {"source": source, "id": name, "kept": "held out", "raw": row}
                self.duplicates.put(copy)
        kept.close()
        old.unlink()
        self.files["train"] = kept
        return gone
