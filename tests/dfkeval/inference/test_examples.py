"""The examples in the docstrings of what answers without gold run as they stand."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from dfkeval.inference import batch, predictor


@pytest.mark.parametrize("module", [predictor, batch])
def test_the_examples_of_the_docstrings_are_right(module: ModuleType) -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted and not outcome.failed
