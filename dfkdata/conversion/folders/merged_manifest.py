"""Put the manifests of several conversions together.

Guarantees: rows in = rows out + quarantined + duplicates + left out, as in each of them; and a merge of merges writes
what one merge of all folders writes, but for `parents`, which says what was merged."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dfkdata.conversion.folders.parents import Parent, RuleFacts
from dfkdata.conversion.folders.same_settings import common


def head(
    parents: Sequence[Parent], out: Path, policies: tuple[str, str], paths: str, materialize: str
) -> dict[str, Any]:
    """Return what makes a merge the same as another: settings, inputs, policies and parents."""
    config = common([parent.manifest.config for parent in parents])
    config = {name: value for name, value in config.items() if name not in ("paths", "materialize")}
    own = {"paths": paths, "materialize": materialize}
    config |= {name: value for name, value in own.items() if value not in ("relative", "link")}
    return {
        "manifest": 1,
        "config": config,
        "inputs": _once(entry for parent in parents for entry in parent.manifest.inputs),
        "parents": [
            {
                "path": os.path.relpath(os.path.realpath(parent.path), os.path.realpath(out)).replace(
                    os.sep, "/"
                ),
                "manifest": parent.sha256,
                "rows": parent.manifest.rows.get("out", 0),
            }
            | ({"parents": parent.manifest.parents} if parent.manifest.parents else {})
            for parent in parents
        ],
        "merge": {"on_conflict": policies[0], "on_overlap": policies[1]},
    }


def _once(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def row_counts(parents: Sequence[Parent], out: int, left_out: Mapping[str, int]) -> dict[str, int]:
    """Return the manifest's `rows`.

    Args:
        parents: The folders.
        out: Rows in the files of the splits.
        left_out: Reason -> rows that this merge left out; copies count as duplicates.
    """
    rows = Counter({"in": 0, "out": 0, "quarantined": 0, "duplicates": 0, "left_out": 0})
    for parent in parents:
        before = parent.manifest.merge.left_out if parent.manifest.merge is not None else {}
        rows.update({name: number for name, number in parent.manifest.rows.items() if name in rows})
        rows["duplicates"] -= before.get("copy", 0)
        rows["left_out"] -= sum(before.values()) - before.get("copy", 0)
    rows["out"] = out
    rows["duplicates"] += left_out.get("copy", 0)
    rows["left_out"] += sum(left_out.values()) - left_out.get("copy", 0)
    return dict(rows)


def rules(of_parents: Iterable[Mapping[str, RuleFacts]]) -> dict[str, dict[str, Any]]:
    """Return how often each rule was broken in all folders, with the example of the first."""
    merged: dict[str, dict[str, Any]] = {}
    for codes in of_parents:
        for code, facts in codes.items():
            entry = merged.setdefault(code, {"count": 0, "first": facts.first})
            entry["count"] += facts.count
    return dict(sorted(merged.items()))


def label_sums(parents: Sequence[Parent]) -> dict[str, dict[str, dict[str, int]]]:
    """Return the label counts of all folders together."""
    sums: dict[str, dict[str, Counter[str]]] = {}
    for parent in parents:
        for field, splits in parent.manifest.labels.items():
            for split, labels in splits.items():
                sums.setdefault(field, {}).setdefault(split, Counter()).update(labels)
    return {
        field: {split: dict(sorted(labels.items())) for split, labels in splits.items()}
        for field, splits in sorted(sums.items())
    }


def reading_facts(parents: Sequence[Parent]) -> dict[str, Any]:
    """Return how tables were read and which columns nothing read, where a folder says so."""
    tables: dict[str, Any] = {}
    for parent in parents:
        tables = {**parent.manifest.tables, **tables}
    unread = dict.fromkeys(name for parent in parents for name in parent.manifest.columns_unread)
    facts = {"tables": dict(sorted(tables.items())), "columns_unread": [*unread]}
    return {name: value for name, value in facts.items() if value}
