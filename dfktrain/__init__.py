"""Fine-tuning that is right by construction: rows of the messages layout -> an adapter that the evaluation
loads.

The public names load when first used: `import dfktrain` imports no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfktrain.config.run import TrainConfig
    from dfktrain.data.collator import Collator
    from dfktrain.merging.merge import merge_adapter
    from dfktrain.training.run import TrainResult, train

_HOMES = {
    "TrainConfig": "dfktrain.config.run",
    "train": "dfktrain.training.run",
    "TrainResult": "dfktrain.training.run",
    "Collator": "dfktrain.data.collator",
    "merge_adapter": "dfktrain.merging.merge",
}

__all__ = ["Collator", "TrainConfig", "TrainResult", "merge_adapter", "train"]


def __getattr__(name: str) -> Any:
    """A public name from its home module, imported on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dfktrain' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
