"""Fixtures that tests of several rooms share: the built-in model, and one thread for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dfkeval.models.loader import Loaded


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """A model this small is slower on several threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny() -> Loaded:
    """The built-in model in float32, one for each file."""
    from dfkeval.models import loader

    return loader.load("tiny", dtype="float32", device="cpu")
