"""Hashes and facts that say what a loaded model is."""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any

from dfkeval.models.metadata import shapes_sha256, text_sha256


def model_shapes_sha256(net: Any) -> str:
    """Return the hash of a base model's parameter names and shapes, which does not depend on its folder."""
    return shapes_sha256({name: tuple(tensor.shape) for name, tensor in net.named_parameters()})


def template_sha256(processor: Any) -> str:
    """Return the hash of the chat template that the processor renders prompts with."""
    template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
    return text_sha256(template if isinstance(template, str) else json.dumps(template, sort_keys=True))


def kernels(net: Any) -> dict[str, str]:
    """Return which package computes the Gated DeltaNet layers.

    Args:
        net: A loaded network.

    Returns:
        Function -> "fla", "causal_conv1d", or "torch" for the reference, as transformers bound it at import;
        empty if the network has no such layers.
    """
    layer = next((each for each in net.modules() if type(each).__name__.endswith("GatedDeltaNet")), None)
    if layer is None:
        return {}
    bound = vars(sys.modules[type(layer).__module__])
    packages = {}
    for name in _KERNELS:
        outer = bound.get(f"torch_{name}", bound.get(name))
        if inspect.isfunction(outer):
            inner = inspect.getclosurevars(outer).nonlocals.get("implementation", outer)
            package = str(getattr(inner, "__module__", "")).partition(".")[0]
            packages[name] = "torch" if package == "transformers" else package
    return packages


_KERNELS = (
    "chunk_gated_delta_rule",
    "recurrent_gated_delta_rule",
    "causal_conv1d_fn",
    "causal_conv1d_update",
)
