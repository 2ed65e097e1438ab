"""Rank the points of a sweep, and plot a score over each value that was varied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from dfkdata.pages import LineChart, Look, line_chart
from dfkeval.analysis.comparison import HEADLINES, Comparison
from dfkeval.analysis.pooling import Pool
from dfkeval.reports.formatting import interval, number, signed
from dfkeval.reports.headline import LEADING, metric_name
from dfkeval.reports.page import page
from dfkeval.runs.run import Run

_WIDE = 20
"""Ratio of the largest to the least value from which an axis is logarithmic."""


@dataclass(frozen=True)
class LeaderboardEntry:
    """One point of a sweep.

    Attributes:
        name: Its name.
        values: Place -> the value that it was given; empty for the base.
        pool: Its runs as one result.
    """

    name: str
    values: Mapping[str, str]
    pool: Pool


def sweep_page(
    title: str,
    entries: Sequence[LeaderboardEntry],
    runs: Sequence[Run],
    comparisons: Sequence[Comparison],
    failed: Mapping[str, str],
    *,
    lang: str | None = None,
    redact: bool | None = None,
) -> str:
    """Return the page of a sweep: its points ranked and plotted, then comparisons and runs as in `page`.

    Args:
        title: Title of the page.
        entries: The points; the first is what the others are compared with.
        runs: All runs.
        comparisons: The first entry with each of the others, in their order.
        failed: Name of a point that failed -> why.
        lang: As in `page`.
        redact: As in `page`.
    """
    look = Look(lang or runs[-1].config.lang)
    banners = [
        look.ui.banner(look.w("failed_point", name=name, reason=why), "bad") for name, why in failed.items()
    ]
    inner = Markup("").join([*banners, leaderboard(entries, comparisons, runs[-1], look)])
    return page(
        title,
        runs,
        comparisons,
        lang=lang,
        redact=redact,
        extra={"leaderboard": (look.w("leaderboard"), inner)},
    )


def leaderboard(
    entries: Sequence[LeaderboardEntry], comparisons: Sequence[Comparison], run: Run, look: Look
) -> Markup:
    """Return the points, the best first, and a plot for each place that was varied.

    Args:
        entries: The points; the first is what the others are compared with.
        comparisons: The first entry with each of the others, in their order.
        run: A run of the sweep, whose schema names the values.
        look: The look of the page.
    """
    code = next((name for name in LEADING if name in entries[0].pool.values), "")
    if not code:
        return Markup("")
    lower = {code} <= set(run.summary.get("lower_is_better", ()))
    changes = dict(zip([entry.name for entry in entries[1:]], comparisons, strict=True))
    ranked = sorted(entries, key=lambda entry: _worth(entry, code, lower), reverse=True)
    places = list(dict.fromkeys(place for entry in entries for place in entry.values))
    others = [name for name in HEADLINES if name != code and name in entries[0].pool.values]
    w = look.w
    columns = ["##", w("point"), *(f"#{_last(place)}" for place in places), f"#{metric_name(code, run, w)}"]
    columns += [w("interval"), f"#{w('against', name=entries[0].name)}", w("verdict")]
    columns += [f"#{metric_name(name, run, w)}" for name in others]
    rows = [
        _row(at, entry, places, code, changes.get(entry.name), others, look)
        for at, entry in enumerate(ranked, start=1)
    ]
    plots = [
        line_chart(chart, w("values"))
        for place in places
        if (chart := _plot(place, places, entries, code, metric_name(code, run, w))) is not None
    ]
    table = look.ui.table(columns, rows, kind="leaderboard", label=w("leaderboard"))
    return look.render("dfkeval.reports", "leaderboard.html", table=table, plots=plots)


def _worth(entry: LeaderboardEntry, code: str, lower: bool) -> float:
    found = entry.pool.values.get(code)
    if found is None or found.value is None:
        return float("-inf")
    return -found.value if lower else found.value


def _last(place: str) -> str:
    return place.rpartition(".")[2]


def _row(
    at: int,
    entry: LeaderboardEntry,
    places: Sequence[str],
    code: str,
    change: Comparison | None,
    others: Sequence[str],
    look: Look,
) -> list[Any]:
    found = entry.pool.values.get(code)
    value, low, high = (found.value, found.low, found.high) if found else (None, None, None)
    score: Any = Markup("<strong>{}</strong>").format(number(value))
    difference = change.differences.get(code) if change else None
    told: list[Any] = ["", ""]
    if difference is not None:
        verdict = difference.verdict
        told = [signed(difference.value), look.ui.mark(verdict, look.w.known(f"verdict.{verdict}", verdict))]
    rest = [number(entry.pool.values[name].value) if name in entry.pool.values else "" for name in others]
    seeds = f" · {look.w('n_runs', n=len(entry.pool.runs))}" if len(entry.pool.runs) > 1 else ""
    name = Markup("{}{}").format(entry.name, Markup('<span class="quiet">{}</span>').format(seeds))
    given = [entry.values.get(place, "–") for place in places]
    return [f"{at}{' ★' if at == 1 else ''}", name, *given, score, interval(low, high), *told, *rest]


def _plot(
    place: str, places: Sequence[str], entries: Sequence[LeaderboardEntry], code: str, title: str
) -> LineChart | None:
    """Return the score over the values of one place; None if it has one value."""
    points = [entry for entry in entries if place in entry.values and _score(entry, code) is not None]
    texts = list(dict.fromkeys(entry.values[place] for entry in points))
    if len(texts) < 2:
        return None
    at = {text: _number(text) for text in texts}
    named = not all(value is not None for value in at.values())
    spots = {text: float(texts.index(text)) if named else float(at[text] or 0) for text in texts}
    series: dict[str, list[tuple[float, float]]] = {}
    for entry in sorted(points, key=lambda entry: spots[entry.values[place]]):
        rest = [f"{_last(other)} {entry.values[other]}" for other in places if other != place]
        series.setdefault(", ".join(rest) or title, []).append(
            (spots[entry.values[place]], _score(entry, code) or 0.0)
        )
    alone = len(series) == 1
    order = sorted(points, key=lambda entry: spots[entry.values[place]])
    ends = [(found.low, found.high) for entry in order for found in [entry.pool.values[code]]]
    base = next((entry for entry in entries if not entry.values), None)
    level = _score(base, code) if base else None
    xs = sorted(spots.values())
    lines: dict[str, Any] = dict(series)
    if base is not None and level is not None:
        lines[base.name] = [(xs[0], level), (xs[-1], level)]
    return LineChart(
        f"{title} · {_last(place)}",
        lines,
        x=place,
        y=title,
        guide=base.name if base else "",
        marked=tuple(series),
        log_x=not named and xs[0] > 0 and xs[-1] / xs[0] >= _WIDE,
        intervals=[(low, high) for low, high in ends if low is not None and high is not None]
        if alone
        else (),
        names=[entry.values[place] for entry in order] if alone else (),
        categories=texts if named else (),
    )


def _score(entry: LeaderboardEntry, code: str) -> float | None:
    found = entry.pool.values.get(code)
    return None if found is None else found.value


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
