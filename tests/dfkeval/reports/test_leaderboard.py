"""The page of a sweep ranks its points, plots them over what was varied, and names them by their value."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dfkeval import compare
from dfkeval.analysis.pooling import pool
from dfkeval.reports import LeaderboardEntry, sweep_page
from dfkeval.reports.leaderboard import _plot
from dfkeval.runs.run import Run
from tests.helpers.html import parsed
from tests.helpers.runs import evaluated


@pytest.fixture
def points(tmp_path: Path) -> dict[str, Run]:
    """A base and three points; the middle one is the best."""
    wrong = {"base": 10, "1e-5": 6, "1e-4": 0, "1e-3": 4}
    return {
        name: evaluated(tmp_path, name, {f"r{at:03d}": "?" for at in range(n)}) for name, n in wrong.items()
    }


def entries_of(points: dict[str, Run], place: str = "stages.0.learning_rate") -> list[LeaderboardEntry]:
    return [
        LeaderboardEntry(name, {} if name == "base" else {place: name}, pool(run))
        for name, run in points.items()
    ]


def test_points_are_ranked_and_named_by_their_value(points: dict[str, Run]) -> None:
    base, *others = points.values()
    pairs = [replace(compare(base, other), b=other.name) for other in others]
    html = sweep_page(
        "Sweep", entries_of(points), list(points.values()), pairs, {"1e-2/seed-1": "loss is <nan>"}
    )
    tags = parsed(html)
    section = html[html.index('id="leaderboard"') :].split("</section>")[0]
    ranks = re.findall(r'<th scope="row" class="num">([^<]*)</th><td>([^<]*)', section)
    assert [name for _, name in ranks][:4] == ["1e-4", "1e-3", "1e-5", "base"]
    assert ranks[0][0] == "1 ★"
    assert "1e-2/seed-1 failed: loss is <nan>" in tags.text
    assert re.findall(r"<title>Accuracy: ([\w.-]+): [\d.]+ \[", section) == ["1e-5", "1e-4", "1e-3"]
    assert "stages.0.learning_rate (log)" in tags.text and "against base" in tags.text
    assert html.index('id="leaderboard"') < html.index('id="comparisons"')


def test_values_that_are_no_numbers_have_places_of_their_own(points: dict[str, Run]) -> None:
    runs = list(points.values())
    entries = [
        LeaderboardEntry(name, {"adapter.kind": name}, pool(run))
        for name, run in zip(("lora", "full", "dora"), runs[1:], strict=True)
    ]
    chart = _plot("adapter.kind", ["adapter.kind"], entries, "labels.accuracy", "Accuracy")
    assert chart is not None
    assert chart.categories == ["lora", "full", "dora"] and chart.guide == ""
    assert [x for x, _ in chart.series["Accuracy"]] == [0.0, 1.0, 2.0]


def test_two_varied_places_give_a_line_for_each_value_of_the_other(points: dict[str, Run]) -> None:
    pooled = [pool(run) for run in points.values()]
    places = ["rank", "rate"]
    grid = [("8", "1e-4"), ("8", "2e-4"), ("16", "1e-4"), ("16", "2e-4")]
    entries = [
        LeaderboardEntry(f"{rank}-{rate}", {"rank": rank, "rate": rate}, one)
        for (rank, rate), one in zip(grid, pooled, strict=True)
    ]
    chart = _plot("rank", places, entries, "labels.accuracy", "Accuracy")
    assert chart is not None and list(chart.series) == ["rate 1e-4", "rate 2e-4"]
    assert [[x for x, _ in line] for line in chart.series.values()] == [[8.0, 16.0], [8.0, 16.0]]
    assert chart.intervals == () and not chart.log_x
    assert _plot("rank", ["rank"], entries[:2], "labels.accuracy", "Accuracy") is None
