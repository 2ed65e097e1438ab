"""Which side a row belongs to: train, validation or test.

Strategy: the group's name and the seed are hashed to a number in [0, 1); below the test share is test, then
validation, the rest train. Promises: rows of one group are never on two sides; adding, removing or reordering
rows moves no other row; equal seeds give equal splits on every machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from typing import Protocol

from dfkdata.common.errors import ConfigError
from dfkdata.rows.record import RowError

SPLITS = ("train", "validation", "test")
NAMES = {
    **{name: name for name in SPLITS},
    **{name: "train" for name in ("training", "latih")},
    **{name: "validation" for name in ("val", "valid", "dev", "eval", "restval")},
    **{name: "test" for name in ("testing", "uji")},
}
"""What sources call their splits -> our name. Karpathy's caption splits call held-back training rows
`restval`."""


class Splitter(Protocol):
    """Which side a group belongs to."""

    def __call__(self, group: str) -> str: ...

    def many(self, groups: Iterable[str]) -> list[str]: ...


class HashSplit:
    """The split of a group. validation, test: shares in [0, 1), their sum below 1."""

    def __init__(self, seed: int, validation: float, test: float) -> None:
        if not (validation >= 0 and test >= 0 and validation + test < 1):  # so written, NaN is refused
            reason = f"validation={validation} and test={test} leave no training rows"
            raise ConfigError(f"{reason}; give shares from 0 whose sum is below 1")
        self._key = f"{seed}\x1f"
        self._test, self._held = (round(share * 2**64).to_bytes(8) for share in (test, test + validation))

    def place(self, group: str) -> bytes:
        """Where the group lies: 32 bytes, uniform, in the order of places in [0, 1)."""
        return sha256((self._key + group).encode("utf-8", "surrogatepass")).digest()

    def __call__(self, group: str) -> str:
        place = sha256((self._key + group).encode("utf-8", "surrogatepass")).digest()
        if place >= self._held:
            return "train"
        return "test" if place < self._test else "validation"

    def many(self, groups: Iterable[str]) -> list[str]:
        """The sides of many groups, in less time than one by one."""
        key, test, held = self._key, self._test, self._held
        places = [sha256((key + group).encode("utf-8", "surrogatepass")).digest() for group in groups]
        return ["train" if place >= held else "test" if place < test else "validation" for place in places]


class StratifiedSplit:
    """As `HashSplit`, but each stratum gives its share: within it, groups in the order of their hashes fill the
    test share, then validation. Shares are counted over all strata so far: those of few rows get what others
    rounded away. A group that has rows in several strata belongs to the one that most of them
    are in.

    Adding rows can move a group at a border, which `HashSplit` promises not to do."""

    def __init__(
        self, by_hash: HashSplit, rows: Iterable[tuple[str, str]], validation: float, test: float
    ) -> None:
        """rows: (group, stratum) of each row."""
        strata: dict[str, Counter[str]] = {}
        for group, stratum in rows:
            strata.setdefault(group, Counter())[stratum] += 1
        members: dict[str, list[str]] = {}
        for group, counts in strata.items():
            home = min(counts, key=lambda name: (-counts[name], name))
            members.setdefault(home, []).append(group)
        self._held: dict[str, str] = {}
        total, given = 0, [0, 0]
        for _, groups in sorted(members.items()):
            groups.sort(key=by_hash.place)
            sized = [(group, strata[group].total()) for group in groups]
            total += sum(size for _, size in sized)
            # what earlier strata rounded away is owed to this one, so that many small ones give their share
            owed = [share * total - had for share, had in zip((test, validation), given, strict=True)]
            for side, had in enumerate(self._fill(sized, *owed)):
                given[side] += had

    def _fill(self, groups: list[tuple[str, int]], test: float, validation: float) -> tuple[int, int]:
        """Give a stratum's first groups to test, then validation, to about as many rows; how many went
        there."""
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
        """The sides of many groups."""
        return [self._held.get(group, "train") for group in groups]


def named(value: object, column: str) -> str:
    """Our name for the split that a source's column says. Raises `RowError` for any other text."""
    name = NAMES.get(value.strip().lower()) if isinstance(value, str) else None
    if name is None:
        hint = f"write one of {', '.join(sorted(NAMES))}"
        raise RowError("SPLIT_UNKNOWN", f"{column} names no split", path=column, value=value, hint=hint)
    return name
