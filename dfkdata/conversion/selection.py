"""Choose the raw rows that take part: conditions on their fields, a number of them, the first or a sample.

Rows that are left out are counted, never written. A sample needs a first pass that only counts; a stratified
sample keeps the proportions of a field's values."""

from __future__ import annotations

import random
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from dfkdata.common.errors import ConfigError


def lookup(raw: Any, path: str) -> Any:
    """Return the value at a dotted path of a raw row, None if there is none."""
    for step in path.split("."):
        raw = raw.get(step) if isinstance(raw, dict) else None
    return raw


def text(raw: Any, path: str) -> str | None:
    """Return the value at a dotted path as text; None if it is missing, blank, a list or an object."""
    value = lookup(raw, path)
    return None if value is None or isinstance(value, dict | list) else str(value).strip() or None


@dataclass(frozen=True)
class Condition:
    """Hold `path=value` or `path!=value`; a value that is JSON (true, 3, null) also matches as that."""

    path: str
    value: str
    negated: bool

    def holds(self, raw: Any) -> bool:
        """Return whether the row's value, as JSON or as text, is the condition's."""
        value = lookup(raw, self.path)
        same = _text(value) == self.value
        return same is not self.negated


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def condition(text: str) -> Condition:
    """Return the condition that "meta.grounded=true" or "lang!=en" says.

    Raises:
        ConfigError: `text` has no "=", or no field before it.
    """
    from dfkdata.common.console import key_value

    form = "FIELD=VALUE or FIELD!=VALUE, for example meta.grounded=true"
    path, value = key_value(text, "--where", form)
    if not path.strip("!"):
        raise ConfigError(f"--where {text!r}: write it as {form}")
    return Condition(path.removesuffix("!"), value, path.endswith("!"))


class RowFilter:
    """Decide which raw rows take part, and count those that fulfil the conditions.

    Attributes:
        conditions: What a raw row has to fulfil.
        chosen: Places (from 0) of the rows to take among those; None for all.
        matching: Number of rows so far that fulfil the conditions.
    """

    def __init__(self, conditions: Sequence[Condition]) -> None:
        self.conditions = conditions
        self.chosen: Container[int] | None = None
        self.matching = 0

    @property
    def takes_all(self) -> bool:
        """Whether every row takes part."""
        return not self.conditions and self.chosen is None

    def matches(self, raw: Any) -> bool:
        """Return whether a row fulfils the conditions; a row that is no object always does."""
        return not isinstance(raw, dict) or all(condition.holds(raw) for condition in self.conditions)

    def takes(self, raw: Any) -> bool:
        """Return whether a row takes part."""
        if not self.matches(raw):
            return False
        self.matching += 1
        return self.chosen is None or self.matching - 1 in self.chosen


def sample(strata: Iterable[str], count: int, seed: int) -> set[int]:
    """Return the places (from 0) of `count` rows, chosen at random with the same share of every stratum.

    Args:
        strata: The stratum of every row.
        count: How many rows to choose.
        seed: Equal input and seed give an equal set.
    """
    places: dict[str, list[int]] = {}
    for at, name in enumerate(strata):
        places.setdefault(name, []).append(at)
    total = sum(map(len, places.values()))
    if count >= total:
        return set(range(total))
    shares = {name: count * len(rows) / total for name, rows in places.items()}
    sizes = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: (sizes[name] - shares[name], name))
    for name in by_remainder[: count - sum(sizes.values())]:
        sizes[name] += 1
    pick = random.Random(seed)
    return {at for name in sorted(places) for at in pick.sample(places[name], sizes[name])}
