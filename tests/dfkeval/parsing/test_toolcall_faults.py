"""Faults planted on purpose: each must make a row of the conformance table or a round trip fail."""

from __future__ import annotations

import random

import pytest

from dfkeval.parsing import coercion
from dfkeval.parsing.toolcall import ToolCallParser, _tags, _validate, write_tool_call
from dfkeval.parsing.toolcall._endings import Ending
from dfkeval.parsing.toolcall._fast_path import Canonical
from dfkeval.parsing.toolcall._frame import Parameter
from dfkeval.parsing.toolcall._machine import Machine
from dfkeval.testing.conformance import cases, drive, explain
from dfkeval.testing.roundtrip import TOOLS, random_calls, verdict

CASES = [case for case in cases() if len(case.text) < 20_000]


def caught() -> bool:
    """Whether the table or the round trip sees something wrong."""
    for case in CASES:
        for mode in ("lenient", "strict"):
            if explain(case, drive(case, mode), mode) is not None:
                return True
    rng = random.Random(1)
    parser = ToolCallParser(TOOLS, dialect="qwen3.5")
    for level in (0, 1, 2):
        for _ in range(150):
            calls = random_calls(rng, level)
            text = "\n".join(write_tool_call(name, arguments) for name, arguments in calls)
            seen = verdict(calls, parser.parse(text))
            if seen == "wrong" or (level == 0 and seen == "flagged"):
                return True
    return False


def _ends_anywhere(self, frame, parameter, i):
    return Ending(self.tags.ends[i], i + 1)


def _strips(self, text):
    begin, end = self.begin, self.end
    raw = text[begin:end]
    return begin + len(raw) - len(raw.lstrip()), begin + len(raw.rstrip())


def _any_spelling_of_null(slot, text, dialect="auto", lenient=False):
    return (
        (None, [])
        if text.lower() in ("null", "none") and not slot.plain
        else _READ(slot, text, dialect, lenient)
    )


_READ = coercion.read
FAULTS = {
    "doubts are not reported": (_validate, "_strict", lambda frame, poisoned: []),
    "nothing is validated": (_validate, "_invalid", lambda issue, span: None),
    "values are stripped": (Parameter, "value_span", _strips),
    "every closer ends the call": (Machine, "_ending", _ends_anywhere),
    "text may follow a closer": (_tags.Tags, "blank", lambda self, start, i: True),
    "null in any spelling": (_validate, "read", _any_spelling_of_null),
    "calls in a value are not pushed": (_tags.Tags, "opens_call", lambda self, i: False),
}


def test_without_a_fault_nothing_is_caught():
    assert not caught()


@pytest.mark.parametrize("name", FAULTS)
def test_the_planted_fault_is_caught(name, monkeypatch):
    place, attribute, fault = FAULTS[name]
    monkeypatch.setattr(place, attribute, fault)
    monkeypatch.setattr(Canonical, "call", lambda self, start: None)
    try:
        assert caught()
    except (AttributeError, IndexError, TypeError):
        return  # a fault that makes the parser raise is caught, too
