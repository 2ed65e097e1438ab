"""The examples in the docstrings of the public functions run as they are written."""

from __future__ import annotations

import doctest

import pytest

import dfkeval

NAMES = (
    "Decoded",
    "Failure",
    "ToolCallParser",
    "decode",
    "parse_tool_call",
    "parse_tool_calls",
    "write_tool_call",
)


@pytest.mark.parametrize("name", NAMES)
def test_the_example_gives_what_it_shows(name: str) -> None:
    tests = doctest.DocTestFinder(recurse=False).find(getattr(dfkeval, name), name)
    assert any(test.examples for test in tests)
    assert all(doctest.DocTestRunner().run(test).failed == 0 for test in tests)
