"""A base with its adapter on it, unmerged, as PEFT computes them: what a merge is compared with.

Promises: an adapter whose keys are spelled for another class of the same model is attached under the names of
this one, through a copy; nothing of the adapter's own folder is changed."""

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
from dfktrain.merging.probes import vision
from dfktrain.weights import lora


def network(folder: Path, dtype: str, device: str) -> Any:
    import transformers

    from dfkeval.models.quiet import quiet_loading

    auto = transformers.AutoModelForImageTextToText if vision(folder) else transformers.AutoModelForCausalLM
    try:
        with quiet_loading():
            net = auto.from_pretrained(str(folder), dtype=getattr(torch, dtype), attn_implementation="sdpa")
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"base model {folder.name} cannot be loaded: {error}") from error
    return net.to(device).eval()


def adapted(base: Path, adapter: lora.Adapter, processor: Any, dtype: str, device: str) -> Any:
    """The base with its adapter on it, unmerged."""
    net = network(base, dtype, device)
    holder = SimpleNamespace(tokenizer=getattr(processor, "tokenizer", processor))
    with tempfile.TemporaryDirectory() as scratch:
        folder = _loadable(adapter, net, Path(scratch))
        return adapters.attach(net, folder, holder)


def _loadable(adapter: lora.Adapter, net: Any, scratch: Path) -> Path:
    """The adapter's folder, or a copy with the key names of this model class where they are spelled
    otherwise."""
    modules = {adapters.plain_name(name): name for name, _ in net.named_modules()}
    own = {entry.name for entry in adapter.file.entries}
    keys = {**_factor_keys(adapter, modules), **_whole_keys(adapter, modules)}
    if {*keys.values()} == own and all(new == old for new, old in keys.items()):
        return adapter.folder
    from safetensors.torch import save_file

    save_file({new: adapter.tensor(old) for new, old in keys.items()}, str(scratch / adapters.WEIGHTS_FILE))
    names = {module: modules[module] for module in adapter.factors}
    ranks = {re.escape(names[name]): found.rank for name, found in adapter.factors.items()}
    alphas = {re.escape(names[name]): _alpha(adapter, found) for name, found in adapter.factors.items()}
    explicit = {
        "target_modules": sorted(names.values()),
        "exclude_modules": None,
        "layers_to_transform": None,
    }
    config = adapter.config | explicit | {"rank_pattern": ranks, "alpha_pattern": alphas}
    (scratch / adapters.CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    return scratch


def _alpha(adapter: lora.Adapter, factors: lora.Factors) -> float:
    return factors.scale * (factors.rank**0.5 if adapter.config.get("use_rslora") else factors.rank)


def _factor_keys(adapter: lora.Adapter, modules: dict[str, str]) -> dict[str, str]:
    """Key as this class spells it -> key of the file."""
    keys: dict[str, str] = {}
    for name, found in adapter.factors.items():
        home = f"base_model.model.{modules[name]}"
        keys |= {f"{home}.lora_A.weight": found.a, f"{home}.lora_B.weight": found.b}
        if found.magnitude is not None:
            keys[f"{home}.lora_magnitude_vector"] = found.magnitude
        if found.bias is not None:
            keys[f"{home}.lora_B.bias"] = found.bias
    return keys


def _whole_keys(adapter: lora.Adapter, modules: dict[str, str]) -> dict[str, str]:
    keys = {}
    for name, key in (adapter.replaced | adapter.copies).items():
        module, _, kind = name.rpartition(".")
        inside = module in adapter.factors and (kind == "bias" or name in adapter.copies)
        layer = ".base_layer" if inside else ""
        keys[f"base_model.model.{modules[module]}{layer}.{kind}"] = key
    return keys
