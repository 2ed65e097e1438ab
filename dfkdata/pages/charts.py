"""Draw inline SVG charts whose colours come from classes, with hover values and a table for readers without them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from dfkdata.pages.axes import short, ticks

Point = tuple[float, float]

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 68, 18, 34, 50
SERIES = 6
"""Number of ways in which `style.css` draws a series: colour, dash and marker together."""
MOST_POINTS = 400
"""Points of one series that are drawn; of more, each stretch keeps its least and its greatest."""
MOST_ROWS = 40


@dataclass(frozen=True)
class LineChart:
    """A line chart.

    Attributes:
        title: Its title.
        series: Name -> (x, y) points in order of x.
        x: Title of the x axis.
        y: Title of the y axis.
        shares: Whether both axes run from 0 to 1.
        guide: Name of the series that the others are compared with; it is drawn dashed, without points.
        counts: Number of samples behind each point of the first series, drawn as dots of that area.
        marked: Names of series whose points are marked, such as validation.
        log_x: Whether the x axis is logarithmic; only if all x are above 0.
        log_y: Whether the y axis is logarithmic; only if all y are above 0.
        intervals: (low, high) of each point of the first series.
        names: Names of the points of the first series, which then need no line between them.
        categories: Names of the places 0, 1, 2 and so on of the x axis, which then has no numbers.
        note: A place on the x axis that is marked with a line, as (x, text).

    Example:
        >>> from dfkdata.pages import LineChart, line_chart
        >>> chart = LineChart("Loss", {"training": [(0, 2.5), (10, 1.0)]})
        >>> "<svg" in line_chart(chart)
        True
    """

    title: str
    series: Mapping[str, Sequence[Point]]
    x: str = "step"
    y: str = "loss"
    shares: bool = False
    guide: str = ""
    counts: Sequence[int] = ()
    marked: tuple[str, ...] = ()
    log_x: bool = False
    log_y: bool = False
    intervals: Sequence[Point] = ()
    names: Sequence[str] = ()
    categories: Sequence[str] = ()
    note: tuple[float, str] | None = None


@dataclass(frozen=True)
class Axis:
    """One axis: its range, and how values become places on the page."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        low, high, value = (
            (math.log10(self.low), math.log10(self.high), math.log10(value))
            if self.log
            else (self.low, self.high, value)
        )
        return self.start + (value - low) / ((high - low) or 1.0) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        return ticks(self.low, self.high, 5 if self.log else 7, log=self.log)


def line_chart(chart: LineChart, values: str = "Values") -> Markup:
    """Return the chart as a `<figure>` with a folded table of its values; empty if there are no points.

    Args:
        chart: What to draw.
        values: Title of the table.
    """
    series = {name: _finite(points) for name, points in chart.series.items()}
    points = [point for line in series.values() for point in line]
    if not points:
        return Markup("")
    x_axis, y_axis = _axes(chart, points)
    parts = [grid(x_axis, y_axis, chart), _note(chart, x_axis)]
    for at, (name, line) in enumerate(series.items()):
        parts.append(_line(chart, at, name, _thinned(line), x_axis, y_axis))
    return Markup(
        '<figure class="plot"><figcaption><span>{title}</span>{legend}</figcaption>'
        '<svg class="chart" role="img" aria-label="{label}" viewBox="0 0 {width} {height}">{parts}</svg>'
        "{table}</figure>"
    ).format(
        title=chart.title, legend=_legend(chart), label=f"{chart.title}: {chart.y} by {chart.x}", width=WIDTH,
        height=HEIGHT, parts=Markup("").join(parts), table=_table(chart, series, values),
    )  # fmt: skip


def _finite(points: Sequence[Point]) -> list[Point]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _axes(chart: LineChart, points: Sequence[Point]) -> tuple[Axis, Axis]:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    ys += [end for pair in chart.intervals for end in pair if math.isfinite(end)]
    if chart.shares:
        return Axis(0, 1, LEFT, WIDTH - RIGHT, False), Axis(0, 1, HEIGHT - BOTTOM, TOP, False)
    log_x, log_y = chart.log_x and min(xs) > 0, chart.log_y and min(ys) > 0
    low, high = (min(ys), max(ys)) if log_y else around(min(ys), max(ys))
    x_low, x_high = min(xs), max(xs)
    if chart.names or chart.categories:  # single points stand apart from the edges
        room = (x_high / x_low) ** 0.08 if log_x else (x_high - x_low) * 0.08 or 0.5
        x_low, x_high = (x_low / room, x_high * room) if log_x else (x_low - room, x_high + room)
    return Axis(x_low, x_high, LEFT, WIDTH - RIGHT, log_x), Axis(low, high, HEIGHT - BOTTOM, TOP, log_y)


def around(low: float, high: float) -> Point:
    """Return a range that ends at round values; it begins at 0 if the values come near it."""
    if low >= 0 and low < 0.5 * high:
        low = 0.0
    marks = ticks(low, high)
    step = marks[1] - marks[0] if len(marks) > 1 else (high - low) or abs(high) * 0.1 or 1.0
    return math.floor(round(low / step, 6)) * step, math.ceil(round(high / step, 6)) * step


def grid(x_axis: Axis, y_axis: Axis, chart: LineChart) -> Markup:
    lines = [
        Markup('<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>'
               '<text class="tick end" x="{}" y="{:.1f}">{}</text>')
        .format(LEFT, WIDTH - RIGHT, LEFT - 8, y_axis(value) + 4, short(value), y=y_axis(value))
        for value in y_axis.ticks
    ]  # fmt: skip
    floor = HEIGHT - BOTTOM
    lines += [
        Markup('<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{}" y2="{}"/>'
               '<text class="tick mid" x="{x:.1f}" y="{}">{}</text>')
        .format(floor, floor + 5, floor + 20, text, x=x_axis(value))
        for value, text in _x_ticks(chart, x_axis)
    ]  # fmt: skip
    lines.append(
        Markup('<text class="axis mid" x="{}" y="{}">{}</text><text class="axis" x="4" y="14">{}</text>')
        .format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, _titled(chart.x, x_axis), _titled(chart.y, y_axis))
    )  # fmt: skip
    return Markup("").join(lines)


def _x_ticks(chart: LineChart, x_axis: Axis) -> list[tuple[float, str]]:
    if chart.categories:
        return [(float(at), name) for at, name in enumerate(chart.categories)]
    return [(value, short(value)) for value in x_axis.ticks]


def _titled(title: str, axis: Axis) -> str:
    return f"{title} (log)" if axis.log else title


def _note(chart: LineChart, x_axis: Axis) -> Markup:
    if chart.note is None:
        return Markup("")
    at, text = chart.note
    x = x_axis(at)
    side, dx = ("end", -6) if x > WIDTH / 2 else ("", 6)
    return Markup(
        '<line class="noted" x1="{x:.1f}" x2="{x:.1f}" y1="{}" y2="{}"/>'
        '<text class="tick {}" x="{:.1f}" y="{}">{}</text>'
    ).format(TOP, HEIGHT - BOTTOM, side, x + dx, TOP + 10, text, x=x)


def _kind(chart: LineChart, at: int, name: str) -> str:
    return "guide" if name == chart.guide else f"s{at % SERIES}"


def _line(chart: LineChart, at: int, name: str, line: Sequence[Point], x_axis: Axis, y_axis: Axis) -> Markup:
    kind = _kind(chart, at, name)
    places = [(x_axis(x), y_axis(y)) for x, y in line]
    named = bool(chart.names) and at == 0
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    drawn = [] if named else [Markup('<polyline class="line {}" points="{}"/>').format(kind, path)]
    if kind == "guide":
        return drawn[0]
    if at == 0 and chart.intervals:
        drawn += [
            _whisker(place[0], ends, y_axis) for place, ends in zip(places, chart.intervals, strict=False)
        ]
    marked = named or name in chart.marked or len(line) == 1
    most = max(chart.counts, default=1)
    for index, ((x, y), (value, height)) in enumerate(zip(places, line, strict=True)):
        count = chart.counts[index] if at == 0 and index < len(chart.counts) else None
        size = 2 + 7 * (count / most) ** 0.5 if count is not None else 4.0 if marked else 3.0
        says = f"{name}: " if len(chart.series) > 1 else ""
        says += (
            f"{chart.names[index]}: " if named and index < len(chart.names) else f"{chart.x} {short(value)}: "
        )
        says += short(height) + (f", n = {count}" if count is not None else "") + _interval(chart, at, index)
        shape = "count" if count is not None else "point" if marked else "hover"
        drawn.append(
            Markup('<circle class="{} {}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>')
            .format(shape, kind, x, y, size, says)
        )  # fmt: skip
        if named and index < len(chart.names):
            side, dx = ("end", -9) if x > WIDTH * 0.85 else ("", 9)
            drawn.append(
                Markup('<text class="tick {}" x="{:.1f}" y="{:.1f}">{}</text>')
                .format(side, x + dx, y + 4, chart.names[index])
            )  # fmt: skip
    return Markup("").join(drawn)


def _interval(chart: LineChart, at: int, index: int) -> str:
    if at or index >= len(chart.intervals):
        return ""
    low, high = chart.intervals[index]
    return f" [{short(low)}, {short(high)}]"


def _whisker(x: float, ends: Point, y_axis: Axis) -> Markup:
    low, high = map(y_axis, ends)
    return Markup(
        '<path class="interval" d="M{x:.1f} {low:.1f}V{high:.1f}M{a:.1f} {low:.1f}h10M{a:.1f} {high:.1f}h10"/>'
    ).format(x=x, a=x - 5, low=low, high=high)


def _thinned(line: list[Point]) -> list[Point]:
    """Return at most `MOST_POINTS` points that keep peaks: of each stretch the least and the greatest."""
    if len(line) <= MOST_POINTS:
        return line
    edges = [round(at * len(line) / (MOST_POINTS // 2)) for at in range(MOST_POINTS // 2 + 1)]
    kept: list[Point] = [line[0]]
    for start, end in pairwise(edges):
        stretch = line[start:end]
        kept += sorted({min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])})
    return kept if kept[-1] == line[-1] else [*kept, line[-1]]


def _legend(chart: LineChart) -> Markup:
    if len(chart.series) < 2:
        return Markup("")
    keys = [
        Markup('<span class="key"><svg width="22" height="10" aria-hidden="true">'
               '<line class="line {kind}" x1="0" y1="5" x2="22" y2="5"/>{dot}</svg>{name}</span>')
        .format(kind=_kind(chart, at, name), name=name, dot=_key_dot(chart, at, name))
        for at, name in enumerate(chart.series)
    ]  # fmt: skip
    return Markup('<span class="legend">{}</span>').format(Markup("").join(keys))


def _key_dot(chart: LineChart, at: int, name: str) -> Markup:
    dot = Markup('<circle class="point {}" cx="11" cy="5" r="3.5"/>').format(_kind(chart, at, name))
    return dot if name in chart.marked else Markup("")


def _table(chart: LineChart, series: Mapping[str, Sequence[Point]], title: str) -> Markup:
    """Return the values as a folded table with at most `MOST_ROWS` rows."""
    columns = {name: dict(line) for name, line in series.items() if name != chart.guide}
    places = sorted({x for line in columns.values() for x in line})
    if len(places) > MOST_ROWS:
        step = (len(places) - 1) / (MOST_ROWS - 1)
        places = [places[round(at * step)] for at in range(MOST_ROWS)]
    head = Markup("").join(Markup('<th scope="col" class="num">{}</th>').format(name) for name in columns)
    first = series[next(iter(series))]
    names = dict(zip([x for x, _ in first], chart.names, strict=False))
    rows = Markup("").join(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            names.get(x, short(x)),
            Markup("").join(
                Markup('<td class="num">{}</td>').format(short(line[x]) if x in line else "")
                for line in columns.values()
            ),
        )
        for x in places
    )
    return Markup(
        '<details class="values"><summary>{}</summary><div class="scroll" tabindex="0" role="region" '
        'aria-label="{}"><table><thead><tr><th scope="col">{}</th>{}</tr></thead><tbody>{}</tbody>'
        "</table></div></details>"
    ).format(title, chart.title, chart.x, head, rows)
