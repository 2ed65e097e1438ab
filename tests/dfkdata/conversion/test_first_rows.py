"""The first row of a post is found however many rows lie between."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from dfkdata import convert
from dfkdata.conversion import first_rows
from dfkdata.conversion.first_rows import FirstRows
from tests.helpers.rows import rows_of


@pytest.mark.parametrize("block", [1, 3, 64, 65_536])
def test_it_finds_what_a_dict_finds(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_rows, "BLOCK", block)
    chooser, rows, expected = random.Random(block), FirstRows(), dict[int, str]()
    places = ["a.csv:7", "b:c.csv:0", "b:c.csv:12", "memory", "x:007", "hub:1:é", ":3", "2", "a.csv:-1"]
    for at in range(300):
        key = chooser.choice([0, 1, 5, 2**64 - 1, chooser.getrandbits(64), *range(20, 60)])
        place = chooser.choice([*places, f"rows.jsonl:{at}"])
        expected.setdefault(key, place)
        rows.add(place, key)
        assert rows.find(key) == expected[key]
    assert all(rows.find(key) == place for key, place in expected.items())
    assert rows.find(77) == ""


def test_a_partner_behind_many_rows_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_rows, "BLOCK", 16)
    labels = ["Fitnah"] * 200 + ["Netral"] * 2
    numbers = [*range(200), 3, 150]
    rows = [
        {
            "input": f"klaim nomor {n}",
            "output": f"Label: **{label}.** penjelasan: sebab {at}",
            "_label": label,
        }
        for at, (n, label) in enumerate(zip(numbers, labels, strict=True))
    ]
    convert(rows, tmp_path / "out", format="dfk_text", validation=0)
    warned = [row for row in rows_of(tmp_path / "out", "warnings") if row["code"] == "TWO_LABELS"]
    assert [row["partner"] for row in warned] == ["memory:4", "memory:151"]
