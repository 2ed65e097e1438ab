"""The members that the packages of families show in their docstrings."""

from __future__ import annotations

import sys
from textwrap import dedent
from types import ModuleType


def shown_member(family: ModuleType) -> ModuleType:
    """Return the complete member in a family's docstring as a module."""
    assert family.__doc__ is not None
    code = dedent(family.__doc__.partition("A complete member:\n\n")[2])
    assert code, family.__name__
    module = ModuleType(f"shown_{family.__name__.rpartition('.')[2]}")
    sys.modules[module.__name__] = module  # annotations are looked up there
    exec(compile(code, f"{family.__name__}.__doc__", "exec"), module.__dict__)
    return module
