"""Ticks are round, lie inside the axis, and are as many as can be read."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfkdata.pages.axes import short, ticks

ROUND = {1.0, 2.0, 2.5, 5.0}


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(3, 12))
def test_ticks_are_multiples_of_a_round_step_inside_the_range(low: float, width: float, most: int) -> None:
    high = low + width
    marks = ticks(low, high, most)
    assert len(marks) <= most + 1
    assert all(low - width * 1e-6 <= mark <= high + width * 1e-6 for mark in marks)
    if len(marks) > 1 and width > 1e-4 * abs(low):
        step = marks[1] - marks[0]
        lead = step / 10 ** math.floor(math.log10(step) + 1e-9)
        assert min(abs(lead - good) for good in ROUND) < 1e-3


@given(st.floats(1e-9, 1e3), st.floats(1.5, 1e9))
def test_logarithmic_ticks_lie_inside_and_grow(low: float, factor: float) -> None:
    marks = ticks(low, low * factor, 5, log=True)
    assert marks == sorted(set(marks))
    assert len(marks) <= 6
    assert all(low * 0.998 <= mark <= low * factor * 1.002 for mark in marks)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (12.0, "12"), (0.1 + 0.2, "0.3"), (1e-5, "1e-5"), (123456.0, "1.235e+05")],
)
def test_a_number_is_written_short(value: float, text: str) -> None:
    assert short(value) == text


def test_an_axis_of_one_value_has_one_tick() -> None:
    assert ticks(5, 5) == [5]
