"""Find rows that are copies of earlier ones, and rows that share a key.

How it works: 8 bytes over its turns and media identify a row (`row_builder`, `fast_path`). `DigestSet` stores 62
bits of them, with two bits that say where the row went, in at most 16 bytes a row: a dict while it is small,
since nothing in Python is faster; beyond `SMALL` entries, 64 open-addressing arrays that grow one at a time, so
that growing never doubles the memory. An entry's place is proportional to its digest, so a table is nearly
sorted and is laid out anew in one pass.

Among n rows, two different ones share a digest with a probability of n² / 2**63, about one in a million for
three million rows. The row that is taken for a duplicate is still written, whole, to duplicates.jsonl."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import sha256
from struct import unpack

from dfkdata.conversion.splits import CODE, SPLITS
from dfkdata.rows.record import Record, RowError

SMALL = 250_000
_SHARDS = 64
_SPARE = 64  # slots behind the last home, for the cluster at the end
KEY_BITS = (1 << 64) - 4  # the digest's bits; the low two carry the payload

NEW = "new"
"""No earlier row is the same."""

EVICTS = "evicts"
"""The row is held out and takes the place of a training row."""

_TRAIN = CODE["train"]
_NOWHERE = 3
"""In the place of a split: the row was seen, but is written nowhere."""


class DuplicateCheck:
    """Say of each row whether an earlier one is the same, and which of the two stays.

    The earlier row stays, unless it is a training row and the copy is held out.

    Attributes:
        evicted: Digests of training rows that leave their file because a held-out row is the same.
    """

    def __init__(self) -> None:
        self._rows, self._keys, self._keyed_rows = DigestSet(), DigestSet(), DigestSet()
        self.evicted: set[int] = set()

    def check(self, record: Record, digest: bytes, split: str) -> str:
        """Say what becomes of a row.

        Args:
            record: The row's record, for its key.
            digest: 8 bytes that identify the row.
            split: Where it is to be written.

        Returns:
            `NEW`, `EVICTS`, or the split of the earlier row that is the same and stays.

        Raises:
            RowError: An earlier row has the same key of the source.
        """
        number = int.from_bytes(digest)
        before = self._rows.put(number, CODE[split])
        if before is None or before == _NOWHERE:
            if record.keyed:  # a copy of a row whose key is taken is no copy of a written one
                self._rows.change(number, _NOWHERE)
                self._check_key(record.id, digest)
            self._rows.change(number, CODE[split])
            return NEW
        if before != _TRAIN or split == "train":
            return SPLITS[before]
        if record.keyed:
            self._check_key(record.id, digest, evicts=True)
        self.evicted.add(number)
        self._rows.change(number, CODE[split])
        return EVICTS

    def all_new(self, digests: Sequence[bytes], codes: Sequence[int]) -> bool:
        """Return whether no row was like any of these and they differ; then they count as seen.

        Args:
            digests: 8 bytes a row.
            codes: `CODE` of each row's split.
        """
        return self._rows.put_new(unpack(f">{len(digests)}Q", b"".join(digests)), codes)

    def _check_key(self, name: str, digest: bytes, *, evicts: bool = False) -> None:
        """Raise `RowError` for a key that was there before, unless it belongs to the very copy that goes."""
        key, row = (sha256(one).digest()[:8] for one in (name.encode(), digest + name.encode()))
        known = self._keyed_rows.put(int.from_bytes(row), 0) is not None
        if not (evicts and known) and self._keys.put(int.from_bytes(key), 0) is not None:
            hint = "give each row a key of its own, or leave the key out"
            raise RowError("ID_TWICE", f"another row has the id {name!r}", path="id", value=name, hint=hint)


class DigestSet:
    """Map digests (64 bits, of which the low two are ignored) to payloads from 0 to 3."""

    def __init__(self, small: int = SMALL) -> None:
        """Take how many entries stay in a dict."""
        self._small: dict[int, int] | None = {}
        self._limit = small
        self._tables: list[_Table] = []

    def put(self, digest: int, payload: int) -> int | None:
        """Return the payload of a known digest; store a new one and return None."""
        digest &= KEY_BITS
        small = self._small
        if small is None:
            return self._tables[digest >> 58].put(digest, payload)
        before = small.get(digest)
        if before is None:
            small[digest] = payload
            if len(small) > self._limit:
                self._spread(small)
        return before

    def put_new(self, digests: Sequence[int], payloads: Sequence[int]) -> bool:
        """Store all digests and return True if each is new and they differ; else store none."""
        keys = [digest & KEY_BITS for digest in digests]
        if len(set(keys)) < len(keys) or not self._holds_none(keys):
            return False
        if self._small is None:
            for key, payload in zip(keys, payloads, strict=True):
                self._tables[key >> 58].put(key, payload)
            return True
        self._small.update(zip(keys, payloads, strict=True))
        if len(self._small) > self._limit:
            self._spread(self._small)
        return True

    def _holds_none(self, keys: list[int]) -> bool:
        """Return whether the set holds none of these."""
        if self._small is not None:
            return self._small.keys().isdisjoint(keys)
        return not any(self._tables[key >> 58].holds(key) for key in keys)

    def change(self, digest: int, payload: int) -> None:
        """Store another payload for a digest that is in the set."""
        digest &= KEY_BITS
        if self._small is None:
            self._tables[digest >> 58].change(digest, payload)
        else:
            self._small[digest] = payload

    def __len__(self) -> int:
        return len(self._small) if self._small is not None else sum(table.count for table in self._tables)

    def _spread(self, small: dict[int, int]) -> None:
        """Move the entries from the dict into the tables."""
        self._small = None
        self._tables = [_Table() for _ in range(_SHARDS)]
        while small:
            digest, payload = small.popitem()
            self._tables[digest >> 58].put(digest, payload)


class _Table:
    """Hold one shard: entries are `digest | payload`, 0 is an empty slot, clusters run to the right."""

    def __init__(self) -> None:
        self.count = 0
        self._lay_out([], 4096)

    def put(self, digest: int, payload: int) -> int | None:
        at = self._slot(digest)
        entry = self._slots[at]
        if entry:
            return entry & 3
        self._slots[at] = digest | payload
        self.count += 1
        if self.count * 4 > self._homes * 3 or at + 2 > len(self._slots):
            self._lay_out(sorted(entry for entry in self._slots if entry), self._homes * 3 // 2)
        return None

    def holds(self, digest: int) -> bool:
        return self._slots[self._slot(digest)] != 0

    def change(self, digest: int, payload: int) -> None:
        self._slots[self._slot(digest)] = digest | payload

    def _slot(self, digest: int) -> int:
        """Return the slot of `digest`, or the empty slot where it belongs."""
        slots = self._slots
        at = (digest & (1 << 58) - 1) * self._homes >> 58
        while (entry := slots[at]) and entry & KEY_BITS != digest:
            at += 1
        return at

    def _lay_out(self, entries: list[int], homes: int) -> None:
        """Lay the sorted `entries` out in a table of `homes` home slots."""
        while True:
            self._homes, at = homes, -1
            self._slots = array("Q", bytes(8 * (homes + _SPARE)))
            for entry in entries:
                at = max(at + 1, (entry & (1 << 58) - 1) * homes >> 58)
                if at + 1 >= len(self._slots):
                    break
                self._slots[at] = entry
            else:
                return
            homes = homes * 3 // 2
