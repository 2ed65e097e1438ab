"""Draw small inline SVG charts; colours come from classes, so the page's light and dark themes apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 14, 34
_TRACK = (
    '<svg class="bar" width="160" height="14" aria-hidden="true">'
    '<rect class="track" width="160" height="8" y="3" rx="4"/>'
)


@dataclass(frozen=True)
class Curve:
    """A line chart.

    Attributes:
        title: Its title.
        series: Name -> (x, y) points in order of x.
        x: Label of the x axis.
        y: Label of the y axis.
        shares: Whether both axes run from 0 to 1.
        guide: Name of the series that the others are compared with; it is drawn dashed.
        counts: Number of samples behind each point of the first series, drawn as dots of that area.
    """

    title: str
    series: Mapping[str, Sequence[Point]]
    x: str = "step"
    y: str = "loss"
    shares: bool = False
    guide: str = ""
    counts: Sequence[int] = ()


def line_chart(curve: Curve) -> str:
    """Return the chart as a `<figure>`; empty if there are no points."""
    points = [point for line in curve.series.values() for point in line]
    if not points:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_range, y_range = (min(xs), max(xs)), (min(0.0, *ys), max(ys))
    if curve.shares:
        x_range = y_range = (0.0, 1.0)
    body = "".join(_grid(y_range)) + "".join(_x_labels(x_range))
    kinds = {name: "guide" if name == curve.guide else f"s{i % 4}" for i, name in enumerate(curve.series)}
    for name, line in curve.series.items():
        at = [(_x(x, x_range), _y(y, y_range)) for x, y in line]
        dots = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        body += (
            f'<polyline class="line {kinds[name]}" points="{dots}"><title>{escape(name)}</title></polyline>'
        )
    first = [(_x(x, x_range), _y(y, y_range)) for x, y in next(iter(curve.series.values()))]
    body += "".join(_dots(first, curve.counts))
    legend = "".join(
        '<span class="key"><svg width="18" height="8" aria-hidden="true">'
        f'<line class="line {kind}" x1="0" y1="4" x2="18" y2="4"/></svg>{escape(name)}</span>'
        for name, kind in kinds.items()
        if len(kinds) > 1
    )
    label = f"{curve.title}: {curve.y} by {curve.x}"
    return (
        f"<figure><figcaption>{escape(curve.title)} "
        f'<span class="quiet">{escape(curve.y)} by {escape(curve.x)}</span>'
        f'<span class="legend">{legend}</span></figcaption>'
        f'<svg class="chart" role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f"{body}</svg></figure>"
    )


def _dots(points: Sequence[Point], counts: Sequence[int]) -> list[str]:
    """Return a dot at each point, whose area grows with its count."""
    most = max(counts, default=1)
    return [
        f'<circle class="count" cx="{x:.1f}" cy="{y:.1f}" r="{2 + 7 * (count / most) ** 0.5:.1f}">'
        f"<title>n = {count}</title></circle>"
        for (x, y), count in zip(points, counts, strict=False)
    ]


def _x(value: float, limits: Point) -> float:
    span = (limits[1] - limits[0]) or 1.0
    return LEFT + (value - limits[0]) / span * (WIDTH - LEFT - RIGHT)


def _y(value: float, limits: Point) -> float:
    span = (limits[1] - limits[0]) or 1.0
    return HEIGHT - BOTTOM - (value - limits[0]) / span * (HEIGHT - TOP - BOTTOM)


def _grid(limits: Point) -> list[str]:
    values = [limits[0] + (limits[1] - limits[0]) * step / 4 for step in range(5)]
    return [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
        f'y1="{_y(value, limits):.1f}" y2="{_y(value, limits):.1f}"/>'
        f'<text class="tick end" x="{LEFT - 8}" y="{_y(value, limits) + 4:.1f}">{value:.3g}</text>'
        for value in values
    ]


def _x_labels(limits: Point) -> list[str]:
    values = [limits[0] + (limits[1] - limits[0]) * step / 4 for step in range(5)]
    return [
        f'<text class="tick mid" x="{_x(value, limits):.1f}" y="{HEIGHT - 10}">{value:.4g}</text>'
        for value in values
    ]


def interval_bar(value: float | None, low: float | None, high: float | None) -> str:
    """Return a value in [0, 1] as a bar with its interval as a whisker; empty for a value outside."""
    if value is None or not 0 <= value <= 1 or (high is not None and high > 1):
        return ""
    inside = [
        min(1.0, max(0.0, end)) * 160
        for end in (value, value if low is None else low, value if high is None else high)
    ]
    whisker = (
        f'<line class="whisker" x1="{inside[1]:.1f}" x2="{inside[2]:.1f}" y1="7" y2="7"/>'
        if low is not None
        else ""
    )
    return f'{_TRACK}<rect class="fill" width="{inside[0]:.1f}" height="8" y="3" rx="4"/>{whisker}</svg>'


def difference_bar(
    value: float | None, low: float | None, high: float | None, lower_is_better: bool = False
) -> str:
    """Return a difference in [-1, 1] as a whisker around the zero line; empty for a difference outside."""
    if value is None or low is None or high is None or max(abs(low), abs(high)) > 1:
        return ""
    at = [80 + min(1.0, max(-1.0, end)) * 78 for end in (value, low, high)]
    kind = "even" if low <= 0 <= high else "good" if (low > 0) != lower_is_better else "bad"
    return (
        f"{_TRACK}"
        '<line class="zero" x1="80" x2="80" y1="0" y2="14"/>'
        f'<line class="whisker {kind}" x1="{at[1]:.1f}" x2="{at[2]:.1f}" y1="7" y2="7"/>'
        f'<circle class="dot {kind}" cx="{at[0]:.1f}" cy="7" r="4"/></svg>'
    )


def share_bar(parts: Sequence[tuple[str, float]]) -> str:
    """Return shares that sum to 1 as one stacked bar; each part is (CSS class, share)."""
    x = 0.0
    body = ""
    for kind, share in parts:
        body += f'<rect class="part {escape(kind)}" x="{x:.2f}" width="{share * 640:.2f}" height="14"/>'
        x += share * 640
    return (
        f'<svg class="shares" viewBox="0 0 640 14" preserveAspectRatio="none" aria-hidden="true">{body}</svg>'
    )
