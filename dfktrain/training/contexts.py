"""Changes to a model that hold while a stage is trained, and are undone after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from dfkeval.models.families import is_vision
from dfktrain.engines import bare, fused_layers, recorded_layers, trainable
from dfktrain.losses.kl_to_base import KLToBase, kl_to_base
from dfktrain.training.sharding import vision_on_every_rank


@contextmanager
def vision_frozen(model: nn.Module, freeze: bool) -> Iterator[None]:
    """Train no part of the vision tower and of its merger within, if `freeze` is true."""
    frozen = [parameter for name, parameter in trainable(model) if freeze and is_vision(name)]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


@contextmanager
def adapters_in_bf16(model: nn.Module, enabled: bool) -> Iterator[None]:
    """Compute adapter products in bf16 within, if `enabled`, with fp32 master weights.

    PEFT would cast every activation to fp32 before the adapter and back after it. The forward call must run
    under autocast."""
    layers = [layer for layer in model.modules() if enabled and hasattr(layer, "lora_A")]
    for layer in layers:
        layer.cast_input_dtype_enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.cast_input_dtype_enabled = True


@contextmanager
def stage_forward(
    model: Any,
    *,
    bf16: bool,
    kl: KLToBase | None,
    vision_on_all_ranks: bool,
    fused: bool = False,
    graphs: bool = False,
) -> Iterator[dict[str, str]]:
    """Let the model's forward call compute, within, what a stage's settings ask for.

    Args:
        model: The network with its adapter.
        bf16: Whether adapter products are computed in bf16.
        kl: The SFT-Plus setting of the stage, if it has one.
        vision_on_all_ranks: Whether batches without images run the vision tower too, as sharding needs it.
        fused: Whether layers are computed by fused kernels.
        graphs: Whether layers are replayed from CUDA graphs.

    Yields:
        What `fused_layers` and `recorded_layers` found.
    """
    network = bare(model)
    with (
        adapters_in_bf16(model, bf16),
        fused_layers(model, fused) as found,
        recorded_layers(model, graphs, found),
        kl_to_base(network, kl),
        vision_on_every_rank(network.model, vision_on_all_ranks),
    ):
        yield found
