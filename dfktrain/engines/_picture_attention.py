"""Attention of the vision tower over all pictures of a batch at once.

How it works: the library runs one attention a picture and layer, and asks the device for the pictures' sizes three
times a layer. Here one kernel takes the borders of all pictures, and the sizes are asked for once a batch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import ExitStack
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from dfktrain.engines._compared import fault, noise, patched

PROBE = (8, 20, 4)
"""Patches of the pictures on which the attention is compared."""


def picture_attention(stack: ExitStack, network: Any) -> str:
    """Give the layers of the vision tower one attention for all pictures; return "on", or why they keep theirs."""
    tower: Any = getattr(getattr(network, "model", network), "visual", None)
    kind = network.config.model_type
    module: Any = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    every = [] if tower is None else tower.modules()
    layers = [layer for layer in every if type(layer).__name__.endswith("VisionAttention")]
    if not layers:
        return "no such layer"
    attend = _kernel()
    if attend is None:
        return "this torch has no attention over borders"
    if getattr(tower.config, "_attn_implementation", "sdpa") != "sdpa":
        return f"attention is {tower.config._attn_implementation}, not sdpa"
    forward = _forward(module.apply_rotary_pos_emb_vision, attend, _Longest())
    first = layers[0]
    length = sum(PROBE)
    borders = torch.tensor([0, *PROBE], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    angles = noise(first, length, first.head_dim)
    given = {"cu_seqlens": borders.to(angles.device), "position_embeddings": (angles.cos(), angles.sin())}
    with torch.autocast(angles.device.type, torch.bfloat16, enabled=angles.dtype == torch.bfloat16):
        reason = fault(
            lambda states: first.forward(states, **given),
            lambda states: forward(first, states, **given),
            [noise(first, length, first.dim)],
        )
    if reason is None:
        for layer in layers:
            stack.enter_context(patched(layer, MethodType(forward, layer)))
    return reason or "on"


def _kernel() -> Callable[..., Tensor] | None:
    try:
        kernel: Callable[..., Tensor] = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    except ImportError:
        return None
    return kernel


class _Longest:
    """The longest stretch between borders, asked of the device once for each tensor of borders."""

    def __init__(self) -> None:
        self.borders: Tensor | None = None
        self.length = 0

    def __call__(self, borders: Tensor) -> int:
        if borders is not self.borders:
            self.borders, self.length = borders, int((borders[1:] - borders[:-1]).max())
        return self.length


def _forward(
    rotate: Callable[..., Any], attend: Callable[..., Tensor], longest: _Longest
) -> Callable[..., Tensor]:
    def forward(
        layer: Any,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        max_seqlen: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        length = hidden_states.shape[0]
        query, key, value = layer.qkv(hidden_states).reshape(length, 3, layer.num_heads, -1).unbind(1)
        query, key = rotate(query, key, *position_embeddings)
        most = longest(cu_seqlens)
        borders = cu_seqlens.int()
        out = attend(query, key, value, borders, borders, most, most)
        projected: Tensor = layer.proj(out.reshape(length, -1))
        return projected

    return forward
