"""The examples in the docstrings of public names run as they stand."""

from __future__ import annotations

import doctest

import pytest

import dfkdata


@pytest.mark.parametrize("name", dfkdata.__all__)
def test_the_example_of_a_public_name_runs(name: str) -> None:
    tests = doctest.DocTestFinder(recurse=False).find(getattr(dfkdata, name), name)
    assert sum(len(test.examples) for test in tests) > 1
    assert all(doctest.DocTestRunner().run(test).failed == 0 for test in tests)
