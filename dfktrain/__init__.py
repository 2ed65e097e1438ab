"""Fine-tune small vision-language models on chat rows into an adapter that the evaluation loads.

    from dfktrain import Collator, TrainConfig, TrainResult, merge_adapter, train

Names load on first use: `import dfktrain` imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfkdata.common.lazy import lazy_exports

if TYPE_CHECKING:
    from dfktrain.config.run import TrainConfig as TrainConfig
    from dfktrain.data.collator import Collator as Collator
    from dfktrain.merging.merge import merge_adapter as merge_adapter
    from dfktrain.training.run import train as train
    from dfktrain.training.state import TrainResult as TrainResult

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Collator": "data.collator",
        "TrainConfig": "config.run",
        "TrainResult": "training.state",
        "merge_adapter": "merging.merge",
        "train": "training.run",
    },
)
