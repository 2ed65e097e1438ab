"""Import transformers without scikit-learn, SciPy and pandas, of which it uses five functions.

How it works: where these are installed, modules of transformers that every model imports ask for functions of theirs,
and with them come over 900 modules, a fifth of the time until a model can be loaded. Here those modules are imported
once while functions stand in that import the real ones when they are called."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ASKING = (
    "transformers.generation.candidate_generator",
    "transformers.loss.loss_utils",
    "transformers.data.metrics",
)
"""Modules that import what is heavy."""
HEAVY = ("sklearn", "sklearn.metrics", "scipy", "scipy.optimize", "scipy.stats")


def light_transformers() -> None:
    """Import the modules that ask for scikit-learn and SciPy. What they can do stays the same.

    Call it before a model or a trainer is imported; later, or without scikit-learn or SciPy, it does nothing."""
    known = all(importlib.util.find_spec(name) is not None for name in ("sklearn", "scipy", "transformers"))
    if not known or any(name in sys.modules for name in (*HEAVY, *ASKING)):
        return
    importlib.import_module("transformers.utils")  # it looks at packages and remembers which are there
    for package in ("sklearn", "scipy"):
        getattr(sys.modules["transformers.utils"], f"is_{package}_available")()
    with _standing_in():
        for name in ASKING:
            importlib.import_module(name)


@contextmanager
def _standing_in() -> Iterator[None]:
    stands = {name: _stand_in(name) for name in HEAVY}
    sys.modules.update(stands)
    try:
        yield
    finally:
        for name, stand in stands.items():
            if sys.modules.get(name) is stand:
                del sys.modules[name]


def _stand_in(name: str) -> types.ModuleType:
    """Return a module whose every name is a function that imports the real one when it is called."""
    module: Any = types.ModuleType(name)
    module.__path__ = []

    def later(function: str) -> Callable[..., Any]:
        if function.startswith("__"):
            raise AttributeError(function)

        def call(*given: Any, **options: Any) -> Any:
            return getattr(importlib.import_module(name), function)(*given, **options)

        return call

    module.__getattr__ = later
    top = name.partition(".")[0]
    module.__spec__ = importlib.util.find_spec(top) if name == top else None
    made: types.ModuleType = module
    return made
