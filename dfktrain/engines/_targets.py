"""Resolve `adapter.target_modules` to full names of linear layers.

Guarantees:
    - Only linear layers get an adapter, never the head, whose weight is often the embedding's too.
    - A setting that names no layer raises `ConfigError`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from dfkdata.common import plugins
from dfkdata.common.errors import ConfigError
from dfkeval.models import families
from dfktrain.config.model import Switches


def target_modules(model: nn.Module, spec: Switches | str | tuple[str, ...]) -> list[str]:
    """Return the full names of the linear layers that `spec` selects, in the order of the model.

    Args:
        model: The network without an adapter.
        spec: As in `AdapterConfig.target_modules`: a word, a pattern, a list of name endings, or switches.

    Raises:
        ConfigError: `spec` selects no layer, names one that does not exist, or names the head.
    """
    linear = list(_linear_layers(model))
    if isinstance(spec, tuple):
        return _by_endings(model, linear, spec)
    chosen = [name for name in linear if _selects(spec, name)]
    if not chosen:
        raise ConfigError(f"adapter.target_modules {spec!r} names no linear layer of this model")
    return chosen


def _by_endings(model: nn.Module, linear: list[str], endings: tuple[str, ...]) -> list[str]:
    unknown = [end for end in endings if not any(_ends_with(name, end) for name in linear)]
    if unknown and unknown[0].rpartition(".")[2] == _head_name(model):
        raise ConfigError(
            f"adapter.target_modules: {unknown[0]!r} is the head, whose weight is the embedding's too; "
            f"an adapter there would change one of the two only"
        )
    if unknown:
        known = sorted({name.rpartition(".")[2] for name in linear})
        raise ConfigError(
            f"adapter.target_modules: no linear layer is called {unknown[0]!r}"
            f"{plugins.suggestion(unknown[0], known)} (there are {', '.join(known)})"
        )
    return [name for name in linear if any(_ends_with(name, end) for end in endings)]


def _ends_with(name: str, ending: str) -> bool:
    return name == ending or name.endswith("." + ending)


def _head_name(model: nn.Module) -> str:
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return next((name.rpartition(".")[2] for name, module in model.named_modules() if module is head), "")


def _selects(spec: Switches | str, name: str) -> bool:
    if isinstance(spec, Switches):
        return _switched_on(spec, name)
    vision = families.is_vision(name)
    match spec:
        case "all-linear" | "all":
            return True
        case "vision":
            return vision
        case "language":
            return not vision
        case "servable":
            return not families.is_unserved(name)
        case _:
            return re.search(spec.removeprefix("re:"), name) is not None


def _switched_on(spec: Switches, name: str) -> bool:
    if "merger" in name:
        return spec.merger
    tower = spec.vision if families.is_vision(name) else spec.language
    return tower and (spec.attention if "attn" in name else spec.mlp)


def _linear_layers(model: nn.Module) -> Iterator[str]:
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head:
            yield name
