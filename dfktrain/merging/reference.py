"""The model that a merge is compared with: the base with its adapter attached, as PEFT computes it.

Guarantees:
    - An adapter whose keys are spelled for another class of the same model is attached through a copy with the
      names of this class.
    - Nothing in the adapter's own folder is changed."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from dfkdata.common.errors import ConfigError
from dfkeval.models import adapters
from dfktrain.merging.probes import is_vision_model
from dfktrain.weights import lora


def load_network(folder: Path, dtype: str, device: str) -> Any:
    """Load the model of a folder for inference.

    Args:
        folder: The model's folder.
        dtype: Name of a torch type in which it computes, such as "float32".
        device: "cpu" or "cuda".

    Raises:
        ConfigError: The model cannot be loaded.
    """
    import transformers

    from dfkeval.models.loading import foreign_files
    from dfkeval.models.quiet import quiet_loading

    vision = is_vision_model(folder)
    auto = transformers.AutoModelForImageTextToText if vision else transformers.AutoModelForCausalLM
    kind = getattr(torch, dtype)
    with foreign_files(f"base model {folder.name} cannot be loaded", ConfigError), quiet_loading():
        net = auto.from_pretrained(
            str(folder), dtype=kind, attn_implementation="sdpa", trust_remote_code=False
        )
    return net.to(device).eval()


def load_reference(base: Path, adapter: lora.Adapter, processor: Any, dtype: str, device: str) -> Any:
    """Load the base with its adapter attached and not merged; arguments as of `load_network`.

    Raises:
        ConfigError: The model cannot be loaded, or the adapter does not fit it.
    """
    net = load_network(base, dtype, device)
    holder = SimpleNamespace(tokenizer=getattr(processor, "tokenizer", processor))
    with tempfile.TemporaryDirectory() as scratch:
        return adapters.attach(net, _loadable(adapter, net, Path(scratch)), holder)


def _loadable(adapter: lora.Adapter, net: Any, scratch: Path) -> Path:
    """Return the adapter's folder, or a copy in `scratch` if this model class spells the keys otherwise."""
    modules = {adapters.plain_name(name): name for name, _ in net.named_modules()}
    file_keys = {entry.name for entry in adapter.file.entries}
    keys = {**_factor_keys(adapter, modules), **_whole_keys(adapter, modules)}
    if {*keys.values()} == file_keys and all(new == old for new, old in keys.items()):
        return adapter.folder
    from safetensors.torch import save_file

    save_file({new: adapter.tensor(old) for new, old in keys.items()}, str(scratch / adapters.WEIGHTS_FILE))
    names = {module: modules[module] for module in adapter.factors}
    layers = {re.escape(names[module]): factors for module, factors in adapter.factors.items()}
    config = adapter.config | {
        "target_modules": sorted(names.values()),
        "exclude_modules": None,
        "layers_to_transform": None,
        "rank_pattern": {pattern: factors.rank for pattern, factors in layers.items()},
        "alpha_pattern": {pattern: _alpha(adapter, factors) for pattern, factors in layers.items()},
    }
    (scratch / adapters.CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    return scratch


def _alpha(adapter: lora.Adapter, factors: lora.Factors) -> float:
    return factors.scale * (factors.rank**0.5 if adapter.config.get("use_rslora") else factors.rank)


def _factor_keys(adapter: lora.Adapter, modules: dict[str, str]) -> dict[str, str]:
    """Return key as this class spells it -> key of the file."""
    keys: dict[str, str] = {}
    for name, factors in adapter.factors.items():
        prefix = f"base_model.model.{modules[name]}"
        keys |= {f"{prefix}.lora_A.weight": factors.a, f"{prefix}.lora_B.weight": factors.b}
        if factors.magnitude is not None:
            keys[f"{prefix}.lora_magnitude_vector"] = factors.magnitude
        if factors.bias is not None:
            keys[f"{prefix}.lora_B.bias"] = factors.bias
    return keys


def _whole_keys(adapter: lora.Adapter, modules: dict[str, str]) -> dict[str, str]:
    """Return key as this class spells it -> key of the file, of tensors that are saved whole."""
    keys = {}
    for name, key in (adapter.replaced | adapter.copies).items():
        module, _, kind = name.rpartition(".")
        inside = module in adapter.factors and (kind == "bias" or name in adapter.copies)
        layer = ".base_layer" if inside else ""
        keys[f"base_model.model.{modules[module]}{layer}.{kind}"] = key
    return keys
