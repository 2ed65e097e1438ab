"""Format numbers, names and answers in the same way in every report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dfkdata.pages import Words
from dfkeval.analysis.comparison import HEADLINES, Comparison
from dfkeval.types import NOT_ANSWERED, Sample

#: Values of a metric without a headline value that are shown first.
OWN = 3


def number(value: float | None, digits: int = 3) -> str:
    """Return 0.8333 as "0.833"; None as "n/a"."""
    return "n/a" if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """Return 0.25 as "+0.250"."""
    return "n/a" if value is None else f"{value:+.{digits}f}"


def interval(low: float | None, high: float | None, sign: bool = False, digits: int = 3) -> str:
    """Return an interval as "[0.700, 0.900]"; empty without one."""
    if low is None or high is None:
        return ""
    write = signed if sign else number
    return f"[{write(low, digits)}, {write(high, digits)}]"


def p_value(p: float | None) -> str:
    """Return 0.00002 as "< 0.001"; None as empty."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def split(names: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the headline values among `names`, and the others."""
    first = [name for name in HEADLINES if name in names]
    return first, [name for name in names if name not in first]


def leading(names: Mapping[str, Any]) -> list[str]:
    """Return the values that are shown first: the headline values, and some of each metric that has none of them.

    A metric of the user's own has no headline value, and is what the user asked for.
    """
    first, rest = split(names)
    led = {name.partition(".")[0] for name in first}
    own: dict[str, list[str]] = {}
    for name in rest:
        own.setdefault(name.partition(".")[0], []).append(name)
    return first + [name for metric, values in own.items() if metric not in led for name in values[:OWN]]


def shown(value: Any) -> str:
    """Return a dict as indented JSON, with letters of every script as they are."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False, indent=2)


def verdict_line(comparison: Comparison, w: Words | None = None) -> str:
    """Return "60 common rows" and what was left out, in one line; in English if no words are given."""
    w = w or Words()
    lost = (
        "; " + w("rows_left_out", n=count, reason=_reason(reason, w))
        for reason, count in comparison.left_out.items()
    )
    return w("common_rows", n=comparison.n) + "".join(lost)


def _reason(reason: str, w: Words) -> str:
    """Return why rows were left out of a comparison; a reason that names a run or a fact keeps that name."""
    before, _, name = reason.partition("only in ")
    if name and not before:
        return w("only_in", name=name)
    return w.known(f"left_out.{reason}", reason)


def compared(sample: Sample) -> list[str]:
    """Return the gold's fields that can be right or wrong as a whole, which prose cannot."""
    return [key for key, gold in (sample.gold or {}).items() if _short(gold)]


def agrees(sample: Sample) -> bool | None:
    """Return whether the answer equals the gold in every field of `compared`.

    None without gold, without answer, or if all of the gold is prose.
    """
    names = compared(sample)
    if sample.gold is None or not names or sample.outcome in NOT_ANSWERED:
        return None
    if sample.value is None:
        return False
    return all(sample.value.get(key) == sample.gold[key] for key in names)


def _short(value: Any) -> bool:
    """Return whether a value is a list, or a text short enough to be a class."""
    return not isinstance(value, str) or len(value) <= 40
