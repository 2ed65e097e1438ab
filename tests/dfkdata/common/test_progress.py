"""The progress line says what was done in this process, and times as people say them."""

from __future__ import annotations

import io

import pytest

from dfkdata.common.progress import Progress, span


def test_what_was_done_before_the_first_report_is_no_part_of_the_rate() -> None:
    """A model was loaded for a minute, and 900 steps were done by an earlier process."""
    now = [0.0]
    stream = io.StringIO()
    bar = Progress("steps", stream=stream, clock=lambda: now[0])
    for at, done in ((60.0, 900), (70.0, 910), (90.0, 950), (95.0, 1000)):
        now[0] = at
        bar(done, 1000, "sft")
    assert stream.getvalue().splitlines() == [
        "  900/1000 steps  sft",
        "  910/1000 steps  1.0/s  90 s left  sft",
        "  950/1000 steps  1.7/s  30 s left  sft",
        "  1000/1000 steps  2.9/s  sft",
    ]


def test_slow_work_shows_the_time_of_one() -> None:
    now = [0.0]
    stream = io.StringIO()
    bar = Progress("json_mode answers", stream=stream, clock=lambda: now[0])
    for at, done in ((30.0, 1), (55.0, 3)):
        now[0] = at
        bar(done, 4)
    assert stream.getvalue().splitlines()[-1] == "  3/4 json_mode answers  12.5 s/answer  12 s left"


@pytest.mark.parametrize(("seconds", "said"), [(90, "90 s"), (720, "12 min"), (12600, "3.5 h")])
def test_a_time_is_said_in_its_own_unit(seconds: float, said: str) -> None:
    assert span(seconds) == said


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_work_without_a_total_shows_rows_and_rate_and_ends_its_line() -> None:
    now, stream = [0.0], Terminal()
    with Progress("rows", stream=stream, clock=lambda: now[0]) as bar:
        for at, done in ((1.0, 500), (4.0, 2000), (4.1, 2050), (5.0, 2500)):
            now[0] = at
            bar(done)
    lines = [line.rstrip() for line in stream.getvalue().split("\r")[1:]]
    assert lines == [
        "  500 rows",
        "  2000 rows  500.0/s",
        "  2500 rows  500.0/s",
    ] and stream.getvalue().endswith("\n")


def test_work_that_is_done_at_once_writes_nothing() -> None:
    stream = Terminal()
    with Progress("rows", stream=stream, clock=lambda: 0.0) as bar:
        bar(10)
    assert stream.getvalue() == ""
