"""A table that a spreadsheet opens holds no formula."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dfkdata.common.csv_files import cell, write_csv


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", " =1", "\r=1", "＝1", "－a", "＠x", "\n=1"],
)
def test_a_formula_becomes_text(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["a=b", "", "-0.5", "+3", "-1e-4", -0.5, 3, None, "Jakarta", "'=1", "1-2"])
def test_everything_else_stays(value: object) -> None:
    assert cell(value) == value


def test_a_table_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, ["=a", "b"], [["x\r\ny", "-1"], ["=HYPERLINK(1)", "\ud800"]])
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["'=a", "b"], ["x\r\ny", "-1"], ["'=HYPERLINK(1)", "\\ud800"]]
