"""A column counts as read however a format asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert
from dfkdata.conversion.unread_columns import unread
from dfkdata.rows.record import Record

ROW = {"a": "x", "b": ["y"], "blank": " ", "none": None, "empty": []}
WAYS: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "nothing": (lambda row: None, ["a", "b"]),
    "index": (lambda row: row["a"], ["b"]),
    "get": (lambda row: row.get("b"), ["a"]),
    "its names": (lambda row: (list(row), "a" in row, row.keys() & {"a"}, len(row)), ["a", "b"]),
    "items": (lambda row: list(row.items()), []),
    "values": (lambda row: list(row.values()), []),
    "dict": (lambda row: dict(row), []),
    "star": (lambda row: {**row}, []),
    "copy": (lambda row: row.copy(), []),
    "or": (lambda row: (row | {"c": 1})["a"], ["b"]),
    "match": (lambda row: [row[name] for name in row if name == "b"], ["a"]),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_a_format_asks_for_is_read(way: str) -> None:
    ask, left = WAYS[way]

    def make(row: Any) -> Record:
        ask(row)
        return Record(id="1", group="", source="")

    assert unread(dict(ROW), make) == left


def test_columns_are_told_once_and_those_of_files_for_each_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        {"caption": f"satu {n}", "gold": {"subjects": []}, "video": "v.mp4" if n % 2 else "", "catatan": n}
        for n in range(6)
    ]
    done = convert(rows, "out", format="captions", validation=0)
    assert done.unread == ("catatan", "video")
    assert done.warnings["MEDIA_UNREAD"]["count"] == 3 and done.rows["out"] == 6
    rules: Any = {"MEDIA_UNREAD": "quarantine"}
    done = convert(rows, "strict", format="captions", validation=0, rules=rules)
    assert (done.rows["out"], done.rows["quarantined"]) == (3, 3)
