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


def import_generation() -> None:
    """Import transformers' generation without scikit-learn, which only assisted generation asks for and which
    takes a fifth of the time until a model can be loaded."""
    utils = require_package("transformers").utils
    known = utils.is_sklearn_available
    utils.is_sklearn_available = lambda: False
    try:
        require_package("transformers.generation.candidate_generator")
    finally:
        utils.is_sklearn_available = known
