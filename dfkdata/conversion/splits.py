"""Assign groups of rows to the splits train, validation and test.

How it works: the group's name and the seed are hashed to a number in [0, 1). Numbers below the test share are
test, the next ones validation, the rest train.

Guarantees: rows of one group are never in two splits; adding, removing or reordering rows moves no other row;
equal seeds give equal splits on every machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from typing import Protocol

from dfkdata.common.errors import ConfigError
from dfkdata.rows.record import RowError
from dfkdata.rows.split_names import NAMES, fold
from dfkdata.rows.split_names import SPLITS as SPLITS

CODE = {name: code for code, name in enumerate(SPLITS)}
"""Split -> its place in `SPLITS`."""


class Splitter(Protocol):
    """Assign groups to splits."""

    def __call__(self, group: str) -> str:
        """Return the split of a group."""

    def many(self, groups: Iterable[str]) -> list[str]:
        """Return the splits of many groups, in less time than one by one."""


class HashSplit:
    """Assign a group by the hash of its name and the seed."""

    def __init__(self, seed: int, validation: float, test: float) -> None:
        """Take the shares of groups in [0, 1), whose sum is below 1.

        Raises:
            ConfigError: The shares leave no training rows.
        """
        if not (validation >= 0 and test >= 0 and validation + test < 1):  # so written, NaN is refused
            reason = f"validation={validation} and test={test} leave no training rows"
            raise ConfigError(f"{reason}; give shares from 0 whose sum is below 1")
        self._key = f"{seed}\x1f"
        self._test, self._held = (round(share * 2**64).to_bytes(8) for share in (test, test + validation))

    def place(self, group: str) -> bytes:
        """Return where the group lies: 32 uniform bytes, in the order of numbers in [0, 1)."""
        return sha256((self._key + group).encode("utf-8", "surrogatepass")).digest()

    def __call__(self, group: str) -> str:
        place = sha256((self._key + group).encode("utf-8", "surrogatepass")).digest()
        if place >= self._held:
            return "train"
        return "test" if place < self._test else "validation"

    def many(self, groups: Iterable[str]) -> list[str]:
        """Return the splits of many groups, in less time than one by one."""
        key, test, held = self._key, self._test, self._held
        places = [sha256((key + group).encode("utf-8", "surrogatepass")).digest() for group in groups]
        return ["train" if place >= held else "test" if place < test else "validation" for place in places]


class StratifiedSplit:
    """Assign groups so that each stratum gives its share to every split.

    Within a stratum, groups in the order of their hashes fill the test share, then validation. Shares are
    counted over all strata so far: small strata get what others rounded away. A group that has rows in
    several strata belongs to the one that most of them are in. Unlike with `HashSplit`, adding rows can move
    a group at a border."""

    def __init__(
        self, by_hash: HashSplit, rows: Iterable[tuple[str, str]], validation: float, test: float
    ) -> None:
        """Divide the groups.

        Args:
            by_hash: Orders the groups of a stratum.
            rows: (group, stratum) of each row.
            validation: Share of rows.
            test: Share of rows.
        """
        strata: dict[str, Counter[str]] = {}
        for group, stratum in rows:
            strata.setdefault(group, Counter())[stratum] += 1
        members: dict[str, list[str]] = {}
        for group, counts in strata.items():
            home = min(counts, key=lambda name: (-counts[name], name))
            members.setdefault(home, []).append(group)
        self._held: dict[str, str] = {}
        total, assigned = 0, [0, 0]
        for _, groups in sorted(members.items()):
            groups.sort(key=by_hash.place)
            sized = [(group, strata[group].total()) for group in groups]
            total += sum(size for _, size in sized)
            # what earlier strata rounded away is owed to this one, so that many small ones give their share
            owed = [share * total - rows for share, rows in zip((test, validation), assigned, strict=True)]
            for split, size in enumerate(self._fill(sized, *owed)):
                assigned[split] += size

    def _fill(self, groups: list[tuple[str, int]], test: float, validation: float) -> tuple[int, int]:
        """Give a stratum's first groups to test and validation, about so many rows; return how many."""
        tested = held = 0
        for group, size in groups:
            if tested + size / 2 <= test:
                self._held[group] = "test"
                tested += size
            elif held + size / 2 <= validation:
                self._held[group] = "validation"
                held += size
        return tested, held

    def __call__(self, group: str) -> str:
        return self._held.get(group, "train")

    def many(self, groups: Iterable[str]) -> list[str]:
        """Return the splits of many groups."""
        return [self._held.get(group, "train") for group in groups]


def named(value: object, column: str) -> str:
    """Return our name for the split that a source's column says.

    Raises:
        RowError: The value names no split.
    """
    name = fold(value) if isinstance(value, str) else None
    if name is None:
        hint = f"write one of {', '.join(sorted(NAMES))}"
        raise RowError("SPLIT_UNKNOWN", f"{column} names no split", path=column, value=value, hint=hint)
    return name
