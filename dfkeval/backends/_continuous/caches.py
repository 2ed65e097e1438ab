"""Static caches, one place a slot: recurrent state, convolution window, keys and values.

How it works: everything that a sequence leaves behind lies at one index of each tensor, so starting from a
common prefix, drawing one prompt several times and scoring several continuations are one copy from slot to
slot. The last slot is nobody's: rows that fill a batch up to a fixed size point to it."""

from __future__ import annotations

from typing import Any

from dfkeval.backends._continuous.weights import AttentionLayer, Sizes, Weights

Tensor = Any


class Caches:
    """Tensors for `slots` sequences of at most `capacity` tokens, and one slot more that nobody reads.

    Attributes:
        state: (delta layers, slots + 1, heads, key, value) in fp32.
        window: (delta layers, slots + 1, taps - 1, channels), the oldest input first.
        keys, values: (attention layers, slots + 1, heads, capacity, dimension).
    """

    def __init__(self, weights: Weights, slots: int, capacity: int) -> None:
        import torch

        sizes, self.slots, self.capacity = weights.sizes, slots, capacity
        attention = sum(isinstance(layer, AttentionLayer) for layer in weights.layers)
        delta = len(weights.layers) - attention
        made = {"device": weights.embed.device, "dtype": weights.embed.dtype}
        n = slots + 1
        self.state = torch.zeros(
            delta, n, sizes.value_heads, sizes.key_dim, sizes.value_dim, device=weights.embed.device
        )
        self.window = torch.zeros(delta, n, sizes.taps - 1, sizes.channels, **made)
        self.keys = torch.zeros(attention, n, sizes.kv_heads, capacity, sizes.head_dim, **made)
        self.values = torch.zeros_like(self.keys)

    def clear(self, slots: Tensor) -> None:
        """Begin new sequences."""
        self.state[:, slots] = 0
        self.window[:, slots] = 0

    def copy(self, source: int, targets: Tensor, length: int) -> None:
        """Give each slot of `targets` what slot `source` holds after `length` tokens."""
        for cache in (self.state, self.window):
            cache[:, targets] = cache[:, source].unsqueeze(1)
        for cache in (self.keys, self.values):
            cache[:, targets, :, :length] = cache[:, source, :, :length].unsqueeze(1)


def slot_bytes(sizes: Sizes, delta: int, attention: int, capacity: int, itemsize: int) -> int:
    """Return the bytes that one slot takes."""
    state = 4 * delta * sizes.value_heads * sizes.key_dim * sizes.value_dim
    window = itemsize * delta * (sizes.taps - 1) * sizes.channels
    return state + window + 2 * itemsize * attention * sizes.kv_heads * capacity * sizes.head_dim
