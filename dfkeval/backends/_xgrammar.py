"""The library that compiles constraints."""

from __future__ import annotations

import importlib
from typing import Any

from dfkdata.common.errors import missing_package


def load_xgrammar() -> Any:
    """Import xgrammar. Raises the error that names the extra if it is not installed."""
    try:
        return importlib.import_module("xgrammar")
    except ModuleNotFoundError as error:
        if error.name != "xgrammar":
            raise
        raise missing_package("constrained decoding", "xgrammar", "constrained") from error
