"""Plan which tensors of a base become what when an adapter is merged into it.

Guarantees, all checked before anything is written:
    - Every key of the adapter has a place in the base.
    - Every layer that the adapter's configuration names has its keys.
    - Shapes and types fit. What does not fit raises `ConfigError` with its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfkdata.common.errors import ConfigError
from dfkdata.common.json_files import read_json
from dfkeval.models import adapters, families
from dfktrain.weights import lora
from dfktrain.weights.safetensors_io import FLOATS, TensorEntry, TensorFile, read_tensor

Changes = dict[str, Callable[[Tensor], Tensor]]
"""Name of a tensor of the base -> function from its old to its new value."""


def plan_changes(adapter: lora.Adapter, files: list[TensorFile], base: Path) -> Changes:
    """Return how the tensors of a base change.

    Args:
        adapter: The adapter to merge.
        files: Weight files of the base.
        base: Folder of the base.

    Raises:
        ConfigError: A key has no place, a place has no key, a shape or type does not fit, or the adapter
            changes a head that is tied to the embedding.
    """
    places = _places(files, base)
    _check_tied_head(adapter, read_config(base))
    _check_complete(adapter, places, base)
    _check_copies(adapter, files, places)
    changes: Changes = {}
    for name, factors in adapter.factors.items():
        _change_layer(adapter, factors, places[f"{name}.weight"], places.get(f"{name}.bias"), changes)
    for name, key in adapter.replaced.items():
        _replace(adapter, key, places[name], changes)
    return changes


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a model folder.

    Raises:
        ConfigError: There is none.
        DataError: It is not a JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigError(f"base {folder}: config.json is missing; give a model folder")
    return read_json(path, "copy the model again")


def _places(files: list[TensorFile], base: Path) -> dict[str, TensorEntry]:
    """Return plain name -> tensor of the base."""
    places: dict[str, TensorEntry] = {}
    for file in files:
        for entry in file.entries:
            name = adapters.plain_name(entry.name)
            if name in places:
                raise ConfigError(
                    f"base {base}: {places[name].name} and {entry.name} have the same plain name {name}, so "
                    "the adapter does not say which of them it changes"
                )
            places[name] = entry
    return places


def _check_complete(adapter: lora.Adapter, places: dict[str, TensorEntry], base: Path) -> None:
    """Raise for a key without a place, and for a layer without a key."""
    targets = {f"{name}.weight" for name in adapter.factors} | set(adapter.replaced)
    targets |= {f"{name}.bias" for name, factors in adapter.factors.items() if factors.bias}
    if lost := sorted(targets - set(places)):
        raise ConfigError(
            f"adapter {adapter.folder}: {len(lost)} of its keys find no place in {base}, for example "
            f"{lost[0]}; it was trained on another base"
        )
    if missing := _missing(adapter, places):
        raise ConfigError(
            f"adapter {adapter.folder}: {len(missing)} layers that its configuration names got no key, for "
            f"example {missing[0]}; the file is incomplete, save it again"
        )


def _check_tied_head(adapter: lora.Adapter, config: dict[str, Any]) -> None:
    """Raise if the adapter changes one of head and embedding and both are the same tensor."""
    tied = config.get(
        "tie_word_embeddings", (config.get("text_config") or {}).get("tie_word_embeddings", False)
    )
    touched = {"embed_tokens", "lm_head"} & {
        *adapter.factors, *(name.rpartition(".")[0] for name in adapter.replaced)
    }  # fmt: skip
    if not tied or not touched or (touched == {"embed_tokens"} and adapter.config.get("ensure_weight_tying")):
        return
    raise ConfigError(
        f"adapter {adapter.folder}: changes {', '.join(sorted(touched))}, and this model's head is its "
        "embedding: merged, both would change. Train with ensure_weight_tying, or serve base and adapter"
    )


def _check_copies(adapter: lora.Adapter, files: list[TensorFile], places: dict[str, TensorEntry]) -> None:
    """Raise unless PEFT's copies of embedding and head equal the base, or what the adapter puts there."""
    for name, key in adapter.copies.items():
        source = name if name in places else "embed_tokens.weight"  # the head is the embedding
        if source in adapter.replaced:
            expected = adapter.tensor(adapter.replaced[source])
        else:
            file = next(file for file in files if places[source] in file.entries)
            expected = read_tensor(file.path, places[source].name).float()
        if not torch.equal(adapter.tensor(key), expected):
            raise ConfigError(
                f"adapter {adapter.folder}: holds another {name} than the base (a resized vocabulary, or a "
                "trained embedding that modules_to_save does not name); it cannot be merged"
            )


def _missing(adapter: lora.Adapter, places: dict[str, TensorEntry]) -> list[str]:
    """Return the layers that `target_modules` names and that have no factors in the file."""
    targets = adapter.config.get("target_modules")
    if not targets or adapter.config.get("layers_to_transform") or adapter.config.get("exclude_modules"):
        return []
    text_only = not any(map(families.is_vision, adapter.factors))
    missing = []
    for name, entry in places.items():
        module = name.removesuffix(".weight")
        if not name.endswith(".weight") or len(entry.shape) != 2:
            continue
        if families.is_outside_layers(module, text_only=text_only):
            continue
        if module not in adapter.factors and _targeted(targets, entry.name.removesuffix(".weight"), module):
            missing.append(entry.name)
    return sorted(missing)


def _targeted(targets: Any, *names: str) -> bool:
    if isinstance(targets, str):
        return targets != "all-linear" and any(re.fullmatch(targets, name) for name in names)
    ends = {adapters.plain_name(target) for target in targets}
    return any(name == end or name.endswith("." + end) for end in ends for name in names)


def _change_layer(
    adapter: lora.Adapter,
    factors: lora.Factors,
    weight: TensorEntry,
    bias: TensorEntry | None,
    changes: Changes,
) -> None:
    shape = adapter.shape(factors.module)
    if weight.shape != shape:
        raise ConfigError(
            f"adapter {adapter.folder}: {weight.name} is {weight.shape} in the base, {shape} in the adapter"
        )
    _check_float(adapter, weight)
    changes[weight.name] = lambda old: lora.merged(adapter, factors, old)
    if factors.bias is not None and bias is not None:
        key = factors.bias
        changes[bias.name] = lambda old: (old.float() + factors.scale * adapter.tensor(key)).to(old.dtype)


def _replace(adapter: lora.Adapter, key: str, place: TensorEntry, changes: Changes) -> None:
    shape = adapter.file.shapes[key]
    if place.shape != shape:
        raise ConfigError(
            f"adapter {adapter.folder}: {place.name} is {place.shape} in the base, {shape} in the adapter (a "
            "vocabulary that was resized in training cannot be merged)"
        )
    _check_float(adapter, place)
    changes[place.name] = lambda old: adapter.tensor(key).to(old.dtype)


def _check_float(adapter: lora.Adapter, entry: TensorEntry) -> None:
    if entry.dtype not in FLOATS:
        raise ConfigError(
            f"base: {entry.name} is stored as {entry.dtype}; merge into a base in bf16, fp16 or fp32 "
            f"(adapter {adapter.folder})"
        )
