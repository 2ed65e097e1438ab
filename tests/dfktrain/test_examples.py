"""The examples of public names run."""

from __future__ import annotations

import doctest
from typing import Any

import pytest

import dfktrain
from dfktrain import tiny

DOCUMENTED = {
    **{name: getattr(dfktrain, name) for name in dfktrain.__all__},
    "tiny.load": tiny.load,
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_example_runs(name: str) -> None:
    documented: Any = DOCUMENTED[name]
    tests = doctest.DocTestFinder(recurse=False).find(documented, name)
    assert any(test.examples for test in tests), "no example"
    assert all(doctest.DocTestRunner().run(test).failed == 0 for test in tests)
