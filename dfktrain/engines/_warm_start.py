"""Start from a saved adapter instead of a new one."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError
from dfktrain.config.model import AdapterConfig
from dfktrain.engines._base import LoadedBase


def attach_saved(base: LoadedBase, folder: str) -> Any:
    """Return `base.model` with the adapter that is saved in `folder`, ready to train."""
    from dfkeval.models import adapters

    holder = types.SimpleNamespace(tokenizer=getattr(base.processor, "tokenizer", base.processor))
    return adapters.attach(base.model, Path(folder), holder, trainable=True)


def check_saved(model: Any, modules: list[str], config: AdapterConfig) -> None:
    """Check that an attached adapter is the one that the configuration describes.

    Args:
        model: The model with its adapter.
        modules: Full names of the layers that should carry it.
        config: The adapter's section of the configuration.

    Raises:
        ConfigError: Rank, scale or layers differ.
    """
    loaded = model.peft_config["default"]
    pairs = {
        "rank": (config.rank, getattr(loaded, "r", None)),
        "alpha": (config.alpha, getattr(loaded, "lora_alpha", None)),
        "bias": (config.bias, getattr(loaded, "bias", None)),
        "rslora": (config.rslora, getattr(loaded, "use_rslora", None)),
        "dora": (config.dora, getattr(loaded, "use_dora", None)),
    }
    differences = [
        f"{key} is {actual}, written is {written}"
        for key, (written, actual) in pairs.items()
        if written != actual
    ]
    carriers = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}
    unequal = sorted({name.removeprefix("base_model.model.") for name in carriers} ^ set(modules))
    if unequal:
        differences.append(
            f"it sits on {len(carriers)} modules, target_modules names {len(modules)}, e.g. {unequal[0]}"
        )
    if differences and config.kind != "peft":
        raise ConfigError(
            f"adapter.warm_start {config.warm_start} is not the adapter that is written here: "
            f"{'; '.join(differences)}. Write what the adapter has, or start without it"
        )
