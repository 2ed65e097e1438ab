"""Import the heavy packages on demand."""

from __future__ import annotations

import importlib
from typing import Any

from dfkdata.common.errors import missing_package


def require_package(name: str) -> Any:
    """Import a heavy package, or raise the error that names the extra which brings it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise missing_package("loading a model", name, "hf") from error
