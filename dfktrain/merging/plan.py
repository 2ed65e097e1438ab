"""Which tensors of a base become what when an adapter is merged into it.

Promises: every key of the adapter finds its place, every layer that the adapter names got its keys, and
shapes and types fit, before anything is written; what does not is refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfkdata.common.errors import ConfigError
from dfkeval.models import adapters, families
from dfktrain.weights import lora
from dfktrain.weights.safetensors_io import FLOATS, TensorEntry, TensorFile

Changes = dict[str, Callable[[Tensor], Tensor]]


def plan(adapter: lora.Adapter, files: list[TensorFile], base: Path) -> Changes:
    """Tensor of the base's files -> what it becomes. Raises `ConfigError` for keys that find no place, places
    that get no key, shapes that do not fit, and a tied head."""
    places = _places(files, base)
    _refuse_tied(adapter, settings(base))
    wanted = {f"{name}.weight" for name in adapter.factors} | set(adapter.replaced)
    wanted |= {f"{name}.bias" for name, found in adapter.factors.items() if found.bias}
    if lost := sorted(wanted - set(places)):
        raise ConfigError(
            f"adapter {adapter.folder}: {len(lost)} of its keys find no place in {base}, for example "
            f"{lost[0]}; it was trained on another base"
        )
    if missing := _missing(adapter, places):
        raise ConfigError(
            f"adapter {adapter.folder}: {len(missing)} layers that its configuration names got no key, for "
            f"example {missing[0]}; the file is not whole"
        )
    _check_copies(adapter, files, places)
    changes: Changes = {}
    for name, found in adapter.factors.items():
        _layer(adapter, found, places[f"{name}.weight"], places.get(f"{name}.bias"), changes)
    for name, key in adapter.replaced.items():
        _replace(adapter, key, places[name], changes)
    return changes


def _places(files: list[TensorFile], base: Path) -> dict[str, TensorEntry]:
    places: dict[str, TensorEntry] = {}
    for file in files:
        for entry in file.entries:
            name = adapters.plain_name(entry.name)
            if name in places:
                raise ConfigError(f"base {base}: {places[name].name} and {entry.name} cannot be told apart")
            places[name] = entry
    return places


def _refuse_tied(adapter: lora.Adapter, settings: dict[str, Any]) -> None:
    """A tied head is the embedding: an adapter of one of the two has no weight of its own to be merged
    into."""
    tied = settings.get(
        "tie_word_embeddings", (settings.get("text_config") or {}).get("tie_word_embeddings", False)
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
    """A copy of the embedding or the head that PEFT saved along says what the base, or the adapter, says."""
    for name, key in adapter.copies.items():
        source = name if name in places else "embed_tokens.weight"  # the head is the embedding
        if source in adapter.replaced:
            wanted = adapter.tensor(adapter.replaced[source])
        else:
            file = next(file for file in files if places[source] in file.entries)
            wanted = file.tensor(places[source]).float()
        if not torch.equal(adapter.tensor(key), wanted):
            raise ConfigError(
                f"adapter {adapter.folder}: holds another {name} than the base (a resized vocabulary, or a "
                "trained embedding that modules_to_save does not name); it cannot be merged"
            )


def _missing(adapter: lora.Adapter, places: dict[str, TensorEntry]) -> list[str]:
    """Layers that `target_modules` names and the file has no factors for."""
    targets = adapter.config.get("target_modules")
    if not targets or adapter.config.get("layers_to_transform") or adapter.config.get("exclude_modules"):
        return []
    text_only = not any(map(families.is_vision, adapter.factors))
    found = []
    for name, entry in places.items():
        module = name.removesuffix(".weight")
        if not name.endswith(".weight") or len(entry.shape) != 2:
            continue
        if families.is_outside_layers(module, text_only=text_only):
            continue
        if module not in adapter.factors and _targeted(targets, entry.name.removesuffix(".weight"), module):
            found.append(entry.name)
    return sorted(found)


def _targeted(targets: Any, *names: str) -> bool:
    if isinstance(targets, str):
        return targets != "all-linear" and any(re.fullmatch(targets, name) for name in names)
    ends = {adapters.plain_name(target) for target in targets}
    return any(name == end or name.endswith("." + end) for end in ends for name in names)


def _layer(
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
    _require_float(adapter, weight)
    changes[weight.name] = lambda old: lora.merged(adapter, factors, old)
    if factors.bias is not None and bias is not None:
        key = factors.bias
        changes[bias.name] = lambda old: (old.float() + factors.scale * adapter.tensor(key)).to(old.dtype)


def _replace(adapter: lora.Adapter, key: str, place: TensorEntry, changes: Changes) -> None:
    shape = next(entry.shape for entry in adapter.file.entries if entry.name == key)
    if place.shape != shape:
        raise ConfigError(
            f"adapter {adapter.folder}: {place.name} is {place.shape} in the base, {shape} in the adapter (a "
            "vocabulary that was resized in training cannot be merged)"
        )
    _require_float(adapter, place)
    changes[place.name] = lambda old: adapter.tensor(key).to(old.dtype)


def _require_float(adapter: lora.Adapter, entry: TensorEntry) -> None:
    if entry.dtype not in FLOATS:
        raise ConfigError(
            f"base: {entry.name} is stored as {entry.dtype}; merge into a base in bf16, fp16 or fp32 "
            f"(adapter {adapter.folder})"
        )


def settings(folder: Path) -> dict[str, Any]:
    """config.json of a model folder. Raises `ConfigError` for none."""
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigError(f"base {folder}: no config.json there; give a model folder")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
