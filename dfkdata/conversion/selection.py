"""Which raw rows take part: conditions on their fields, a number of them, the first or a seeded sample.

What is left out is counted, never written. A sample needs a first pass that only counts; stratified, it keeps
the proportions of a field's values."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from dfkdata.common.errors import ConfigError


def lookup(raw: Any, path: str) -> Any:
    """The value at a dotted path of a raw row; None where there is none."""
    for step in path.split("."):
        raw = raw.get(step) if isinstance(raw, dict) else None
    return raw


def text(raw: Any, path: str) -> str | None:
    """The value at a dotted path as text; None where there is none or only blanks, or more than one value."""
    value = lookup(raw, path)
    return None if value is None or isinstance(value, dict | list) else str(value).strip() or None


@dataclass(frozen=True)
class Condition:
    """`path=value` or `path!=value`; a value that is JSON (true, 3, null) also matches as that."""

    path: str
    value: str
    negated: bool

    def holds(self, raw: Any) -> bool:
        """Whether the row's value, as it is or as text, is the condition's."""
        found = lookup(raw, self.path)
        same = _text(found) == self.value or (isinstance(found, str) and found == self.value)
        return same is not self.negated


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def condition(text: str) -> Condition:
    """ "meta.grounded=true" -> Condition. Raises `ConfigError` where there is no "="."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip("!"):
        raise ConfigError(
            f"--where {text!r}: write it as FIELD=VALUE or FIELD!=VALUE, for example meta.grounded=true"
        )
    return Condition(path.removesuffix("!"), value, path.endswith("!"))


def sample(strata: Iterable[str], count: int, seed: int) -> set[int]:
    """Places of `count` rows out of as many as there are strata; each stratum gives its share, the largest
    remainders give the rest. Equal input and seed give the equal set."""
    places: dict[str, list[int]] = {}
    for at, name in enumerate(strata):
        places.setdefault(name, []).append(at)
    total = sum(map(len, places.values()))
    if count >= total:
        return set(range(total))
    shares = {name: count * len(found) / total for name, found in places.items()}
    sizes = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: (sizes[name] - shares[name], name))
    for name in by_remainder[: count - sum(sizes.values())]:
        sizes[name] += 1
    pick = random.Random(seed)
    return {at for name in sorted(places) for at in pick.sample(places[name], sizes[name])}
