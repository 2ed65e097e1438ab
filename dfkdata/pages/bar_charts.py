"""Draw bars: grouped bars as a table, histograms, and the small bars of values and differences in tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from dfkdata.pages.axes import short, ticks
from dfkdata.pages.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    SERIES,
    TOP,
    WIDTH,
    Axis,
    LineChart,
    around,
    grid,
)


def bars(title: str, names: Sequence[str], series: Mapping[str, Sequence[float]], unit: str = "") -> Markup:
    """Return grouped horizontal bars, one group a name and one bar a series; it is a table, so anyone can read it.

    Args:
        title: The caption.
        names: The name of each group.
        series: Name of a series -> its value in each group, 0 or more.
        unit: What is counted.
    """
    most = max((value for values in series.values() for value in values), default=0) or 1
    rows = []
    for at, name in enumerate(names):
        for kind, (label, values) in enumerate(series.items()):
            head = (
                Markup('<th scope="rowgroup" rowspan="{}">{}</th>').format(len(series), name)
                if kind == 0
                else ""
            )
            rows.append(
                Markup('<tr{first}>{head}{label}<td class="bar">{bar}</td><td class="num">{value}</td></tr>').format(
                    first=Markup(' class="first"') if kind == 0 else "", head=head,
                    label=Markup('<th scope="row" class="series">{}</th>').format(label) if len(series) > 1 else "",
                    bar=_bar(values[at] / most, f"s{kind % SERIES}"), value=short(values[at]),
                )
            )  # fmt: skip
    return Markup('<div class="scroll" tabindex="0" role="region" aria-label="{title}"><table class="bars">'
                  '<caption>{title} <span class="quiet">{unit}</span></caption><tbody>{rows}</tbody>'
        "</table></div>").format(
        title=title, unit=unit, rows=Markup("").join(rows)
    )  # fmt: skip


def _bar(share: float, kind: str) -> Markup:
    return Markup(
        '<svg class="hbar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="fill {}" width="{:.2f}" height="10"/></svg>'
    ).format(kind, max(0.0, min(1.0, share)) * 100)


def histogram(title: str, values: Sequence[float], unit: str, bins: int = 24) -> Markup:
    """Return a histogram with round bin edges as a figure; empty without values.

    Args:
        title: The caption.
        values: What is counted.
        unit: Title of the x axis.
        bins: About how many bins.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Markup("")
    low, high = min(finite), max(finite)
    edges = ticks(low, high, bins)
    step = edges[1] - edges[0] if len(edges) > 1 else 1.0
    start = math.floor(round(low / step, 9)) * step
    count = max(1, math.floor(round((high - start) / step, 9)) + 1)
    counts = [0] * count
    for value in finite:
        counts[min(count - 1, int(round((value - start) / step, 9)))] += 1
    x_axis = Axis(start, start + count * step, LEFT, WIDTH - RIGHT, False)
    y_axis = Axis(0, around(0, max(counts))[1], HEIGHT - BOTTOM, TOP, False)
    blank = LineChart(title, {}, x=unit, y="n")
    parts: list[Any] = [grid(x_axis, y_axis, blank)]
    for at, number in enumerate(counts):
        left, right = x_axis(start + at * step), x_axis(start + (at + 1) * step)
        says = f"{short(start + at * step)} – {short(start + (at + 1) * step)}: {number}"
        parts.append(
            Markup('<rect class="fill s0 hover-bar" x="{:.1f}" width="{:.1f}" y="{:.1f}" height="{:.1f}">'
                   "<title>{}</title></rect>")
            .format(left + 0.5, max(0.5, right - left - 1), y_axis(number), y_axis(0) - y_axis(number), says)
        )  # fmt: skip
    middle = sorted(finite)[len(finite) // 2]
    says = f"{title}: {len(finite)}, {short(low)} – {short(high)}, median {short(middle)}"
    return Markup(
        '<figure class="plot"><figcaption><span>{}</span><span class="legend">n = {}, median {}</span></figcaption>'
        '<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {} {}">{}</svg></figure>'
    ).format(title, len(finite), short(middle), says, WIDTH, HEIGHT, Markup("").join(parts))


_TRACK = Markup(
    '<svg class="meter" width="160" height="16" aria-hidden="true">'
    '<rect class="track" width="160" height="8" y="4" rx="2"/>'
)


def interval_bar(value: float | None, low: float | None, high: float | None) -> Markup:
    """Return a value in [0, 1] as a bar with its interval as a whisker; empty for a value outside."""
    if value is None or not 0 <= value <= 1 or (high is not None and high > 1):
        return Markup("")
    ends = [min(1.0, max(0.0, value if end is None else end)) * 160 for end in (value, low, high)]
    whisker = (
        Markup('<path class="whisker" d="M{a:.1f} 8H{b:.1f}M{a:.1f} 4v8M{b:.1f} 4v8"/>').format(
            a=ends[1], b=ends[2]
        )
        if low is not None
        else ""
    )
    return Markup('{}<rect class="fill s0" width="{:.1f}" height="8" y="4" rx="2"/>{}</svg>').format(
        _TRACK, ends[0], whisker
    )


def difference_bar(
    value: float | None,
    low: float | None,
    high: float | None,
    lower_is_better: bool = False,
    *,
    shown: bool = True,
) -> Markup:
    """Return a difference in [-1, 1] as a whisker around the zero line; empty for a difference outside.

    A difference whose interval holds 0, or that is not `shown`, has a hollow ring in ink; a better one a green dot, a
    worse one a red square.
    """
    if value is None or low is None or high is None or max(abs(low), abs(high)) > 1:
        return Markup("")
    at = [80 + min(1.0, max(-1.0, end)) * 76 for end in (value, low, high)]
    kind = "even" if low <= 0 <= high or not shown else "good" if (low > 0) != lower_is_better else "bad"
    point = (
        Markup('<rect class="dot bad" x="{:.1f}" y="4" width="8" height="8"/>').format(at[0] - 4)
        if kind == "bad"
        else Markup('<circle class="dot {}" cx="{:.1f}" cy="8" r="4"/>').format(kind, at[0])
    )
    return Markup(
        '{}<line class="zero" x1="80" x2="80" y1="0" y2="16"/>'
        '<line class="whisker {}" x1="{:.1f}" x2="{:.1f}" y1="8" y2="8"/>{}</svg>'
    ).format(_TRACK, kind, at[1], at[2], point)
