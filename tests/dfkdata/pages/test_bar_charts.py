"""Bars count everything once, and a difference that is none looks like none."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfkdata.pages.bar_charts import bars, difference_bar, histogram, interval_bar
from tests.helpers.html import parsed


@given(st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=60))
def test_the_bins_of_a_histogram_hold_every_value(values: list[float]) -> None:
    html = histogram("Lengths", values, "tokens")
    counts = [int(count) for count in re.findall(r"<title>[^<]*: (\d+)</title>", html)]
    assert sum(counts) == len(values)
    assert f"n = {len(values)}" in html


def test_a_histogram_of_equal_values_and_of_none() -> None:
    assert "n = 3" in histogram("Lengths", [7, 7, 7], "tokens")
    assert histogram("Lengths", [float("nan")], "tokens") == ""


def test_grouped_bars_are_a_table_with_headers_of_rows() -> None:
    tags = parsed(bars("Labels", ["<b>", "fitnah"], {"train": [4, 1], "test": [2, 0]}, "posts"))
    scopes = [attributes.get("scope") for tag, attributes in tags.tags if tag == "th"]
    assert scopes.count("rowgroup") == 2 and scopes.count("row") == 4
    widths = [attributes["width"] for tag, attributes in tags.tags if tag == "rect"]
    assert widths == ["100.00", "50.00", "25.00", "0.00"]
    assert "<b>" in tags.text


@pytest.mark.parametrize(
    ("ends", "lower", "kind", "shape"),
    [
        ((-0.1, 0.2), False, "even", "circle"),
        ((0.0, 0.2), False, "even", "circle"),
        ((0.1, 0.2), False, "good", "circle"),
        ((0.1, 0.2), True, "bad", "rect"),
        ((-0.2, -0.1), True, "good", "circle"),
    ],
)
def test_the_mark_of_a_difference_has_its_own_shape(
    ends: tuple[float, float], lower: bool, kind: str, shape: str
) -> None:
    html = difference_bar(sum(ends) / 2, *ends, lower)
    assert re.findall(r'<(\w+) class="dot (\w+)"', html) == [(shape, kind)]


def test_values_outside_their_range_have_no_bar() -> None:
    assert interval_bar(1.5, 1.2, 1.8) == interval_bar(None, None, None) == difference_bar(3, 2, 4) == ""
    assert "whisker" not in interval_bar(0.5, None, None)
