"""Attention over stretches of any length, without anything that is built anew for each length.

How it works: on Hopper GPUs PyTorch hands attention to cuDNN, which builds a plan of its own for every new
shape, half a second each (in 2.11 and later). Pictures, prompts and padded batches have a new shape nearly
every time, so a run would wait for plans and little else. Flash attention has one kernel for all lengths."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

Tensor = Any


def leave_out_cudnn() -> None:
    """Let PyTorch's attention choose among its other kernels, for the whole process."""
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)


def borders_of(lengths: list[int]) -> Tensor:
    """Return where stretches of these lengths begin, and where the last one ends, as (N + 1,) int32."""
    import torch

    return torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)


def takes(query: Tensor) -> bool:
    """Return whether flash attention computes these queries."""
    import torch

    half, width = query.dtype in (torch.float16, torch.bfloat16), query.shape[-1]
    return bool(query.is_cuda) and half and width <= 256 and width % 8 == 0


def attend(
    query: Tensor, key: Tensor, value: Tensor, borders: tuple[Tensor, Tensor], lengths: tuple[list[int], list[int]],
    *, causal: bool,
) -> Tensor:  # fmt: skip
    """Return the attention (T, heads, dimension) of stretches that lie one behind the other.

    Args:
        query: (T, heads, dimension).
        key, value: (L, kv heads, dimension); as many heads as the queries or a divisor of them.
        borders: Borders of the queries' and of the keys' stretches, on their device.
        lengths: Lengths of both.
        causal: Whether a query sees no key behind its own place; a stretch of keys ends with its queries.
    """
    import torch

    if takes(query):
        out = torch.ops.aten._flash_attention_forward(
            query, key, value, *borders, max(lengths[0]), max(lengths[1]), 0.0, causal, False
        )
        return out[0]
    pieces = (query.split(lengths[0]), key.split(lengths[1]), value.split(lengths[1]))
    return torch.cat([_alone(*piece, causal) for piece in zip(*pieces, strict=True)])


def _alone(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Return the attention of one stretch."""
    import torch

    repeat, behind = query.shape[1] // key.shape[1], key.shape[0] - query.shape[0]
    query, key, value = (each.transpose(0, 1).unsqueeze(0) for each in (query, key, value))
    if repeat > 1:
        key, value = (each.repeat_interleave(repeat, 1) for each in (key, value))
    mask = None
    if causal and behind and query.shape[2] > 1:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril(behind)
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal and not behind
    )
    return out[0].transpose(0, 1)


@contextmanager
def pictures_together(tower: Any, lengths: list[int]) -> Iterator[None]:
    """Let the layers of a vision tower on a GPU attend to all pictures at once.

    The library runs one attention a picture and layer, and asks the device for their sizes three times a layer.

    Args:
        tower: The vision tower.
        lengths: Patches of each stretch that attends to itself: of a picture, or of a frame.
    """
    layers = [each for each in tower.modules() if type(each).__name__.endswith("VisionAttention")]
    kind = getattr(tower.config, "_attn_implementation", "sdpa")
    if not layers or kind != "sdpa" or not next(tower.parameters()).is_cuda:
        yield
        return
    with replaced(layers, together(layers[0], lengths)):
        yield


@contextmanager
def replaced(layers: list[Any], forward: Callable[..., Tensor]) -> Iterator[None]:
    """Let layers use another forward call; afterwards each has the one that it had, its own or its class's."""
    before = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        layer.forward = MethodType(forward, layer)
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            del layer.forward
            if own is not None:
                layer.forward = own


def together(layer: Any, lengths: list[int]) -> Callable[..., Tensor]:
    """Return the forward call of layers of this kind for stretches of these lengths."""
    rotate = sys.modules[type(layer).__module__].apply_rotary_pos_emb_vision

    def forward(
        layer: Any, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor],
        **_: Any,
    ) -> Tensor:  # fmt: skip
        length = hidden_states.shape[0]
        query, key, value = layer.qkv(hidden_states).reshape(length, 3, layer.num_heads, -1).unbind(1)
        query, key = rotate(query, key, *position_embeddings)
        borders = cu_seqlens.int()
        out = attend(query, key, value, (borders, borders), (lengths, lengths), causal=False)
        projected: Tensor = layer.proj(out.reshape(length, -1))
        return projected

    return forward
