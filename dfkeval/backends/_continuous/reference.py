"""The operations of a layer in plain PyTorch; `kernels` computes the same on a GPU.

Rounding follows transformers' own layers, so that texts in fp32 are equal to those of `generate`."""

from __future__ import annotations

from typing import Any

Tensor = Any


def add_norm(x: Tensor, more: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    """Add `more` to the residual stream `x` in place and return its norm."""
    import torch

    if more is not None:
        x.add_(more)
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (wide * weight).to(x.dtype)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return the projection of few rows."""
    import torch

    return torch.nn.functional.linear(x, weight)


def gate_up(x: Tensor, weight: Tensor) -> Tensor:
    """Return silu(first half) * second half of the projection of few rows."""
    return silu_mul(linear(x, weight))


def silu_mul(gate_up: Tensor) -> Tensor:
    """Return silu(first half) * second half."""
    import torch

    gate, up = gate_up.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up


def gated_norm(out: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return the norm of each head's output (..., heads, value), times silu(gate) of (..., heads * value)."""
    import torch

    kind = gate.dtype
    wide = out.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    wide = weight * wide.to(kind)
    wide = wide * torch.nn.functional.silu(gate.reshape(out.shape).float())
    return wide.to(kind).flatten(-2)


def conv_packed(inputs: Tensor, taps: Tensor, kernel: Tensor) -> Tensor:
    """Return the convolution's output (T, channels) of tokens that read the rows `taps` (taps, T) of
    `inputs`."""
    import torch

    total = sum(inputs[source].float() * tap.float() for source, tap in zip(taps, kernel, strict=True))
    return torch.nn.functional.silu(total.to(inputs.dtype))


def conv_step(mixed: Tensor, window: Tensor, rows: Tensor, kernel: Tensor) -> Tensor:
    """Shift one input (B, channels) into the rows' windows and return the convolution's output."""
    import torch

    inputs = torch.cat([window[rows], mixed.unsqueeze(1)], dim=1)
    window[rows] = inputs[:, 1:]
    return torch.nn.functional.silu((inputs.float() * kernel.float()).sum(1).to(mixed.dtype))


def delta_step(
    mixed: Tensor, gates: tuple[Tensor, Tensor, Tensor], state: Tensor, rows: Tensor, layer: Any, sizes: Any
) -> Tensor:
    """Advance the rows' states (slots, heads, key, value) by one token; return its gated output.

    `mixed` is (B, channels) after the convolution; `gates` are z, b and a."""
    import torch

    z, b, a = gates
    key_width = sizes.key_heads * sizes.key_dim
    query, key, value = mixed.float().split([key_width, key_width, sizes.value_heads * sizes.value_dim], -1)
    repeat = sizes.value_heads // sizes.key_heads
    query, key = (
        unit(each.unflatten(-1, (sizes.key_heads, sizes.key_dim))).repeat_interleave(repeat, 1)
        for each in (query, key)
    )
    value = value.unflatten(-1, (sizes.value_heads, sizes.value_dim))
    query = query / sizes.key_dim**0.5
    decay = (layer.decay * torch.nn.functional.softplus(a.float() + layer.bias)).exp()
    now = state[rows] * decay[..., None, None]
    known = (now * key.unsqueeze(-1)).sum(-2)
    change = (value - known) * b.sigmoid().float().unsqueeze(-1)
    now = now + key.unsqueeze(-1) * change.unsqueeze(-2)
    state[rows] = now
    out = (now * query.unsqueeze(-1)).sum(-2)
    return gated_norm(out.to(mixed.dtype), z, layer.gate_norm, sizes.eps)


def unit(x: Tensor) -> Tensor:
    """Return queries or keys (..., heads, dimension) of length one."""
    import torch

    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return (T, heads, dimension) with its first dimensions turned by (T, rotary) angles."""
    import torch

    width = cos.shape[-1]
    turn, rest = x[..., :width], x[..., width:]
    half = torch.cat([-turn[..., width // 2 :], turn[..., : width // 2]], dim=-1)
    return torch.cat([turn * cos.unsqueeze(1) + half * sin.unsqueeze(1), rest], dim=-1)


def project(
    joined: Tensor, cos: Tensor, sin: Tensor, layer: Any, sizes: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return turned queries, their gates, turned keys, and values of (T, heads, dimension) each."""
    query, key, value = joined.split(
        [2 * sizes.query_heads * sizes.head_dim, *[sizes.kv_heads * sizes.head_dim] * 2], dim=-1
    )
    query, gate = query.unflatten(-1, (sizes.query_heads, 2 * sizes.head_dim)).chunk(2, dim=-1)
    key, value = (each.unflatten(-1, (sizes.kv_heads, sizes.head_dim)) for each in (key, value))
    query = turned(add_norm(query, None, layer.query_norm, sizes.eps), cos, sin)
    key = turned(add_norm(key, None, layer.key_norm, sizes.eps), cos, sin)
    return query, gate, key, value


def attention_step(
    joined: Tensor, caches: tuple[Tensor, Tensor], rows: Tensor, places: tuple[Tensor, Tensor],
    frequencies: Tensor, layer: Any, sizes: Any,
) -> Tensor:  # fmt: skip
    """Append one token to the rows' keys and values and return what it attends to, gated.

    `places` are the slots' lengths and the angles' positions behind them, both (slots,)."""
    import torch

    keys, values = caches
    lengths, shifts = places
    at = lengths[rows]
    angles = (at + shifts[rows]).float().unsqueeze(-1) * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    cos, sin = angles.cos().to(joined.dtype), angles.sin().to(joined.dtype)
    query, gate, key, value = project(joined, cos, sin, layer, sizes)
    keys[rows, :, at], values[rows, :, at] = key, value
    longest = int(at.max()) + 1
    seen = torch.arange(longest, device=at.device) <= at.unsqueeze(-1)
    out = torch.nn.functional.scaled_dot_product_attention(
        query.unsqueeze(2), keys[rows, :, :longest], values[rows, :, :longest],
        attn_mask=seen[:, None, None], enable_gqa=True,
    ).squeeze(2)  # fmt: skip
    return (out * torch.sigmoid(gate)).flatten(-2)
