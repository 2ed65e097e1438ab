"""Choose round ticks for an axis, and write numbers as short as they can be read."""

from __future__ import annotations

import math

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


def ticks(low: float, high: float, most: int = 7, *, log: bool = False) -> list[float]:
    """Return round values from `low` to `high`, in order.

    Args:
        low: The least value shown.
        high: The greatest value shown.
        most: About how many ticks there may be.
        log: Whether the axis is logarithmic; both ends are above 0 then.

    Example:
        >>> from dfkdata.pages import ticks
        >>> ticks(0, 0.93)
        [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    if log and low > 0:
        return _decades(low, high, most)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        return [low]
    step = _step((high - low) / max(1, most - 1))
    first = math.ceil(round(low / step, 9))
    last = math.floor(round(high / step, 9))
    return [float(f"{at * step:.12g}") for at in range(first, last + 1)]


def _step(rough: float) -> float:
    """Return the next round step that is not below `rough`."""
    size = 10.0 ** math.floor(math.log10(rough))
    return next(step * size for step in _STEPS if step * size >= rough * 0.999999)


def _decades(low: float, high: float, most: int) -> list[float]:
    """Return 1, 2 and 5 of each power of ten, fewer if there are too many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = [
        [lead * 10.0**power for power in range(first, last + 1) for lead in leads]
        for leads in ((1, 2, 5), (1, 3), (1,))
    ]
    inside = [[value for value in row if low * 0.999 <= value <= high * 1.001] for row in every]
    fitting = [row for row in inside if 2 <= len(row) <= most]
    if fitting:
        return fitting[0]
    return inside[2][:: max(1, math.ceil(len(inside[2]) / most))] or [low, high]


def short(value: float) -> str:
    """Return a number with at most four digits: 1200, 0.25, 2.5e-4.

    Example:
        >>> from dfkdata.pages.axes import short
        >>> short(1200.0), short(0.25), short(0.00025)
        ('1200', '0.25', '2.5e-4')
    """
    if value == int(value) and abs(value) < 1e5:
        return str(int(value))
    if abs(value) < 1e-3:
        digits, _, power = f"{value:.3e}".partition("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
    return f"{value:.4g}"
