"""What `model:` names: a folder, a Hub name, or the built-in model."""

from __future__ import annotations

from pathlib import Path

from dfkdata.common.errors import ConfigError
from dfkeval.models import tiny

TINY = "tiny"


def model_source(model: str | Path) -> str:
    """Return what transformers is asked to load.

    Args:
        model: A model folder, a Hub name `owner/name`, or "tiny" for the built-in model.

    Returns:
        The folder's path, or the Hub name.

    Raises:
        ConfigError: `model` is a path and there is no such folder.
    """
    if str(model) == TINY:
        return str(tiny.path())
    path = Path(model)
    if path.is_dir():
        return str(path)
    if path.is_absolute() or str(model).startswith((".", "~")) or str(model).count("/") != 1:
        raise ConfigError(
            f"model {str(model)!r}: no such folder; give a model folder, a hub name owner/name, or {TINY!r}"
        )
    return str(model)
