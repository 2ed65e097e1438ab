"""What a conversion counts: rows, broken rules with the first example of each, labels, and pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from dfkdata.conversion.splits import SPLITS
from dfkdata.media.probe import Picture
from dfkdata.rows.record import Record, Reject
from dfkdata.schemas import Label, Schema

RARE_SHARE = 0.05
#: The label fields of one row: name, class, and spelling of the source.
Labels = tuple[tuple[str, str, str], ...]
_SHOWN = ("source", "reason", "path", "excerpt", "hint")


@dataclass
class _RuleCount:
    count: int = 0
    first: dict[str, Any] = field(default_factory=dict)


class RuleCounts:
    """Count how often each rule was broken, and keep the first example of each."""

    def __init__(self) -> None:
        self._counts: dict[str, _RuleCount] = {}

    def add(self, reject: Reject, rows: int = 1) -> None:
        """Count a rule that `rows` rows broke."""
        entry = self._counts.setdefault(reject.code, _RuleCount())
        entry.count += rows
        if not entry.first:
            entry.first = {key: getattr(reject, key) for key in _SHOWN if getattr(reject, key)}

    def facts(self) -> dict[str, Any]:
        """Return the manifest's part: code -> {"count", "first"}, sorted."""
        return {code: {"count": one.count, "first": one.first} for code, one in sorted(self._counts.items())}


def label_fields(schema: Schema | None) -> tuple[str, ...]:
    """Return the fields of a schema that hold labels; none without a schema."""
    return tuple(name for name, role in schema.roles.items() if isinstance(role, Label)) if schema else ()


class LabelCounts:
    """Count the classes of every label field, in each split and as they were spelt.

    The manifest's part is field -> {"raw": spellings of all written rows, "train": classes, ...}."""

    def __init__(self, names: Iterable[str]) -> None:
        """Take the names of the label fields."""
        self.names = names = tuple(names)
        self._counts = {name: {split: Counter[str]() for split in ("raw", *SPLITS)} for name in names}

    def of(self, record: Record) -> Labels:
        """Return what `add` counts of a record."""
        gold = record.gold or {}
        return tuple(
            (name, str(gold[name]), str(record.meta.get(f"raw_{name}", gold[name])))
            for name in self.names
            if name in gold
        )

    def add(self, labels: Labels, split: str) -> None:
        """Count the labels of a record that was written to `split`."""
        for name, label, spelling in labels:
            self._counts[name][split][label] += 1
            self._counts[name]["raw"][spelling] += 1

    def remove(self, meta: dict[str, Any], split: str) -> None:
        """Take back a row that left `split` again; `meta` is the written row's."""
        gold = meta.get("gold", {})
        for name, counts in self._counts.items():
            if name in gold:
                counts[split][str(gold[name])] -= 1
                counts["raw"][str(meta.get(f"raw_{name}", gold[name]))] -= 1

    def rare(self) -> list[str]:
        """Return a sentence for each class with less than 5 % of the rows."""
        sentences = []
        for counts in self._counts.values():
            total = sum((number for split, number in counts.items() if split != "raw"), Counter[str]())
            small = [name for name, number in sorted(total.items()) if number < RARE_SHARE * total.total()]
            sentences += [f"{name!r} has {total[name]} of {total.total()} rows" for name in small]
        return sentences

    def weights(self, split: str) -> dict[str, dict[str, float]]:
        """Return field -> class -> weight with which every class is drawn equally often from `split`.

        The mean weight over all rows is 1."""
        weights = {}
        for name, counts in self._counts.items():
            rows = {key: n for key, n in sorted(counts[split].items()) if n}
            weights[name] = {key: round(sum(rows.values()) / (len(rows) * n), 6) for key, n in rows.items()}
        return weights

    def facts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return the manifest's part: field -> split -> class -> rows, sorted."""
        return {
            name: {
                split: {key: n for key, n in sorted(counter.items()) if n}
                for split, counter in counts.items()
            }
            for name, counts in self._counts.items()
        }


class ImageCounts:
    """Count the pictures of written rows, hash their digests in order, and count what opening them changes."""

    def __init__(self) -> None:
        self._count, self._hash, self._changes = 0, sha256(), Counter[str]()

    def add(self, picture: Picture) -> None:
        """Count one picture."""
        self._count += 1
        self._hash.update(picture.digest)
        if picture.changes:
            self._changes.update(picture.changes)

    def facts(self) -> dict[str, Any]:
        """Return the manifest's part: {"count", "sha256", "changed"?}, empty without pictures.

        "changed" has names of `dfkdata.media.images.CHANGES` -> number of pictures."""
        if not self._count:
            return {}
        changed = {"changed": dict(sorted(self._changes.items()))} if self._changes else {}
        return {"count": self._count, "sha256": self._hash.hexdigest()} | changed


class RunCounts:
    """Hold all counts of one conversion.

    Attributes:
        rows: in, out, quarantined, duplicates, left_out.
        rejects: Broken rules of rejected rows.
        warnings: Broken rules that let a row through.
        labels: Classes.
        images: Pictures.
        tables: CSV file -> how it was read, and what was ignored in it.
        unread: Columns of the input that nothing reads.
    """

    def __init__(self, schema: Schema | None) -> None:
        self.rows = {"in": 0, "out": 0, "quarantined": 0, "duplicates": 0, "left_out": 0}
        self.rejects, self.warnings = RuleCounts(), RuleCounts()
        self.labels, self.images = LabelCounts(label_fields(schema)), ImageCounts()
        self.tables: dict[str, dict[str, Any]] = {}
        self.unread: dict[str, None] = {}

    def facts(self) -> dict[str, Any]:
        """Return the manifest's part."""
        more = {"tables": self.tables, "columns_unread": [*self.unread]}
        return {
            "rows": dict(self.rows),
            "codes": self.rejects.facts(),
            "warnings": self.warnings.facts(),
            "labels": self.labels.facts(),
            "images": self.images.facts(),
        } | {name: facts for name, facts in more.items() if facts}
