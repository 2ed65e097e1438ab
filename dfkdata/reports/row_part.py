"""Lay out rows for the template `rows.html`, which pages and filters them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

from dfkdata.reports.row_text import RowTexts

PAGE = 12
"""Rows that are seen at once."""

Row = dict[str, Any]


def script() -> str:
    """Return the script that pages and filters rows."""
    return resources.files("dfkdata.reports").joinpath("rows.js").read_text(encoding="utf-8")


def rows_part(rows: Sequence[tuple[str, Row]], texts: RowTexts, fields: Sequence[str] = ()) -> dict[str, Any]:
    """Return what the template of rows reads.

    Args:
        rows: (split, row) of each row.
        texts: Their texts.
        fields: Fields of the gold that are labels.
    """
    entries = [
        {
            "id": str(row["id"]),
            "split": split,
            "label": ", ".join(_label(row, fields)),
            "pictures": row["images"],
            "blocks": [] if isinstance(blocks, str) else blocks,
            "fault": blocks if isinstance(blocks, str) else "",
        }
        for (split, row), blocks in zip(rows, texts.rows, strict=True)
    ]
    return {
        "shared": texts.shared,
        "rows": entries,
        "splits": list(dict.fromkeys(entry["split"] for entry in entries)),
        "labels": sorted({entry["label"] for entry in entries if entry["label"]}),
    }


def _label(row: Row, fields: Sequence[str]) -> list[str]:
    gold = row.get("meta", {}).get("gold") or {}
    return [gold[name] for name in fields if isinstance(gold.get(name), str)]
