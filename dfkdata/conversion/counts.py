"""What is counted while rows flow: rules that were broken, with the first example of each, and labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from dfkdata.rows.record import Record, Reject
from dfkdata.schemas import Label, Schema

RARE_SHARE = 0.05
_SHOWN = ("source", "reason", "path", "excerpt", "hint")


@dataclass
class _Found:
    count: int = 0
    first: dict[str, Any] = field(default_factory=dict)


class RuleCounts:
    """Rule -> how often it was broken, and where first."""

    def __init__(self) -> None:
        self._found: dict[str, _Found] = {}

    def add(self, reject: Reject) -> None:
        """Count one; the first of its rule is kept as the example."""
        found = self._found.setdefault(reject.code, _Found())
        found.count += 1
        if found.count == 1:
            found.first = {key: getattr(reject, key) for key in _SHOWN if getattr(reject, key)}

    def facts(self) -> dict[str, Any]:
        """The manifest's part: rule -> {"count", "first"}, sorted."""
        return {code: {"count": one.count, "first": one.first} for code, one in sorted(self._found.items())}


class LabelCounts:
    """Label field -> {"raw": spellings as they came, "train": classes, ...}; "raw" counts every row that was
    written."""

    def __init__(self, schema: Schema | None, sides: tuple[str, ...]) -> None:
        names = [name for name, role in schema.roles.items() if isinstance(role, Label)] if schema else []
        self.names = tuple(names)
        self._counts = {name: {side: Counter[str]() for side in ("raw", *sides)} for name in names}

    def add(self, record: Record, side: str) -> None:
        """Count the labels of a record that was written to `side`."""
        for name, counts in self._counts.items():
            if record.gold is not None and name in record.gold:
                counts[side][str(record.gold[name])] += 1
                counts["raw"][str(record.meta.get(f"raw_{name}", record.gold[name]))] += 1

    def remove(self, meta: dict[str, Any], side: str) -> None:
        """Take back a row that left `side` again; `meta` is the written row's."""
        gold = meta.get("gold", {})
        for name, counts in self._counts.items():
            if name in gold:
                counts[side][str(gold[name])] -= 1
                counts["raw"][str(meta.get(f"raw_{name}", gold[name]))] -= 1

    def rare(self) -> list[str]:
        """A sentence for each class under 5 % of the rows."""
        found = []
        for counts in self._counts.values():
            total = sum((number for side, number in counts.items() if side != "raw"), Counter[str]())
            small = [name for name, number in sorted(total.items()) if number < RARE_SHARE * total.total()]
            found += [f"{name!r} has {total[name]} of {total.total()} rows" for name in small]
        return found

    def weights(self, side: str) -> dict[str, dict[str, float]]:
        """Field -> class -> weight with which each class is drawn equally often from `side`; the mean over
        rows is 1."""
        found = {}
        for name, counts in self._counts.items():
            rows = {key: n for key, n in sorted(counts[side].items()) if n}
            found[name] = {key: round(sum(rows.values()) / (len(rows) * n), 6) for key, n in rows.items()}
        return found

    def facts(self) -> dict[str, dict[str, dict[str, int]]]:
        """The manifest's part: field -> side -> class -> rows, sorted."""
        return {
            name: {side: {key: n for key, n in sorted(found.items()) if n} for side, found in counts.items()}
            for name, counts in self._counts.items()
        }
