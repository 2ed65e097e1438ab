"""Charts show every value, keep peaks, escape names, and can be read as a table."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from dfkdata.pages.charts import MOST_POINTS, LineChart, line_chart
from tests.helpers.html import parsed

EVIL = "<script>alert(1)</script>\"'&"


def cells(html: str) -> list[str]:
    """The texts of table cells."""
    found: list[str] = []

    class Cells(HTMLParser):
        inside = False

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.inside = tag in ("td", "th")
            if self.inside:
                found.append("")

        def handle_data(self, data: str) -> None:
            if self.inside:
                found[-1] += data

    Cells().feed(html)
    return found


def test_the_table_holds_the_values_of_every_series_and_none_of_the_guide() -> None:
    lines = {"training": [(1, 2.0), (2, 1.5)], "validation": [(2, 1.75)], "ideal": [(0, 0), (9, 9)]}
    chart = line_chart(LineChart("Loss", lines, guide="ideal"))
    assert cells(chart) == ["step", "training", "validation", "1", "2", "", "2", "1.5", "1.75"]


def test_of_many_points_the_peaks_stay() -> None:
    line = [(float(at), 9.0 if at == 4321 else 1.0) for at in range(20_000)]
    html = line_chart(LineChart("Loss", {"loss": line}))
    assert html.count("<circle") <= MOST_POINTS + 2
    assert "step 4321: 9<" in html


def test_a_point_says_its_value_its_count_and_its_interval() -> None:
    chart = LineChart(
        "Sweep", {"f1": [(1e-4, 0.5), (1e-3, 0.75)]}, x="rate", log_x=True, intervals=[(0.4, 0.6), (0.7, 0.8)],
        names=["1e-4", "1e-3"], counts=[],
    )  # fmt: skip
    titles = re.findall(r"<title>(.*?)</title>", line_chart(chart))
    assert titles == ["1e-4: 0.5 [0.4, 0.6]", "1e-3: 0.75 [0.7, 0.8]"]
    counted = line_chart(
        LineChart("Reliability", {"a": [(0.4, 0.0), (0.9, 0.8)]}, shares=True, counts=[1, 4])
    )
    assert re.findall(r'class="count s0"[^>]* r="([\d.]+)"><title>[^<]*n = (\d)<', counted) == [
        ("5.5", "1"),
        ("9.0", "4"),
    ]


def test_names_stay_text_and_values_that_are_no_numbers_are_left_out() -> None:
    nan = float("nan")
    chart = LineChart(
        EVIL, {EVIL: [(0, 1.0), (1, nan), (2, float("inf")), (3, 2.0)]}, x=EVIL, y=EVIL, names=[EVIL]
    )
    html = line_chart(chart)
    tags = parsed(html)
    assert not [tag for tag, _ in tags.tags if tag == "script"]
    assert "nan" not in html and "inf" not in html
    assert tags.text.count(EVIL) >= 4


def test_nothing_is_drawn_without_points() -> None:
    assert line_chart(LineChart("Loss", {"training": []})) == ""
