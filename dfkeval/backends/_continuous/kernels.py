"""The operations of a layer as Triton kernels; `reference` says what each computes.

How it works: a decode step moves far more bytes than it computes, and each launch costs about two
microseconds, so what stands between two matrix products is one kernel. A program of the gated delta rule
holds columns of a head's state in registers: they are read once, advanced, and written once in place. Rows of
the slot that nobody reads do nothing."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from dfkeval.backends._continuous.attention_kernels import attention_step as attention_step
from dfkeval.backends._continuous.product_kernels import gate_up as gate_up
from dfkeval.backends._continuous.product_kernels import linear as linear
from dfkeval.backends._continuous.product_kernels import silu_mul as silu_mul

Tensor = Any
TILE = (32, 2)
"""Columns of a head's state that one program of the gated delta rule holds, and its warps. A program that
holds a whole head norms its output as well, which is otherwise a kernel more."""


@triton.jit
def _add_norm(
    x, more, weight, out, width, x_row, x_head, heads, more_row, more_part, eps,
    PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    at = tl.arange(0, BLOCK)
    inside = at < width
    place = x + row * x_row + head * x_head + at
    value = tl.load(place, mask=inside, other=0.0)
    if PARTS > 0:
        total = tl.load(more + row * more_row + at, mask=inside, other=0.0).to(tl.float32)
        for part in tl.static_range(1, PARTS):
            total += tl.load(more + part * more_part + row * more_row + at, mask=inside, other=0.0).to(
                tl.float32
            )
        value = (value.to(tl.float32) + total.to(x.dtype.element_ty).to(tl.float32)).to(x.dtype.element_ty)
        tl.store(place, value, mask=inside)
    wide = value.to(tl.float32)
    wide = wide * tl.rsqrt(tl.sum(wide * wide) / width + eps) * tl.load(weight + at, mask=inside, other=0.0)
    tl.store(out + (row * heads + head) * width + at, wide.to(out.dtype.element_ty), mask=inside)


def add_norm(x: Tensor, more: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    """Add `more` to the residual stream `x` in place and return its norm; a third dimension of `more`, in
    front, is summed."""
    width = x.shape[-1]
    heads = x.shape[1] if x.ndim == 3 else 1
    out = x.new_empty(x.shape)
    parts = 0 if more is None else more.shape[0] if more.ndim == 3 else 1
    added = x if more is None else more
    _add_norm[(x.shape[0], heads)](
        x, added, weight, out, width, x.stride(0), x.stride(1) if x.ndim == 3 else 0,
        heads, added.stride(-2), added.stride(0), eps, PARTS=parts,
        BLOCK=triton.next_power_of_2(width), num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _gated_norm(x, gate, weight, out, heads, width, x_row, gate_row, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    at = tl.arange(0, BLOCK)
    inside = at < width
    wide = tl.load(x + row * x_row + head * width + at, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(weight + at, mask=inside, other=0.0)
    opened = tl.load(gate + row * gate_row + head * width + at, mask=inside, other=0.0).to(tl.float32)
    wide = wide * tl.rsqrt(tl.sum(wide * wide) / width + eps) * factor * opened * tl.sigmoid(opened)
    tl.store(out + (row * heads + head) * width + at, wide.to(out.dtype.element_ty), mask=inside)


def gated_norm(out: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return the norm of each head's output (T, heads, value), times silu(gate) of (T, heads * value)."""
    count, heads, width = out.shape
    made = gate.new_empty(count, heads * width)
    _gated_norm[(count, heads)](
        out.contiguous(), gate, weight, made, heads, width, heads * width, gate.stride(0), eps,
        BLOCK=triton.next_power_of_2(width), num_warps=1,
    )  # fmt: skip
    return made


@triton.jit
def _conv_packed(inputs, taps, kernel, out, count, channels, TAPS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < channels
    total = tl.zeros([BLOCK], tl.float32)
    for tap in tl.static_range(TAPS):
        source = tl.load(taps + tap * count + row)
        value = tl.load(inputs + source * channels + at, mask=inside, other=0.0).to(tl.float32)
        total += value * tl.load(kernel + tap * channels + at, mask=inside, other=0.0).to(tl.float32)
    total = total.to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + row * channels + at, (total * tl.sigmoid(total)).to(out.dtype.element_ty), mask=inside)


def conv_packed(inputs: Tensor, taps: Tensor, kernel: Tensor) -> Tensor:
    """Return the convolution's output (T, channels) of tokens that read the rows `taps` (taps, T) of
    `inputs`."""
    count, channels = taps.shape[1], inputs.shape[1]
    out = inputs.new_empty(count, channels)
    _conv_packed[(count, triton.cdiv(channels, 1024))](
        inputs, taps, kernel, out, count, channels, TAPS=kernel.shape[0], BLOCK=1024, num_warps=4
    )
    return out


@triton.jit
def _unit(x, out, heads, width, x_row, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    at = tl.arange(0, BLOCK)
    inside = at < width
    value = tl.load(x + row * x_row + head * width + at, mask=inside, other=0.0).to(tl.float32)
    value = value * tl.rsqrt(tl.sum(value * value) + 1e-6)
    tl.store(out + (row * heads + head) * width + at, value.to(out.dtype.element_ty), mask=inside)


def unit(x: Tensor) -> Tensor:
    """Return queries or keys (T, heads, dimension) of length one."""
    count, heads, width = x.shape
    out = x.new_empty(count, heads, width)
    _unit[(count, heads)](x, out, heads, width, x.stride(0), BLOCK=triton.next_power_of_2(width), num_warps=1)
    return out


@triton.jit
def _conv_step(
    mixed, window, rows, kernel, out, channels, stride, nobody, TAPS: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(rows + row)
    if slot < nobody:
        at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = at < channels
        past = window + slot * (TAPS - 1) * channels + at
        new = tl.load(mixed + row * stride + at, mask=inside, other=0.0)
        total = new.to(tl.float32) * tl.load(kernel + (TAPS - 1) * channels + at, mask=inside, other=0.0).to(
            tl.float32
        )
        for tap in tl.static_range(TAPS - 1):
            old = tl.load(past + tap * channels, mask=inside, other=0.0)
            total += old.to(tl.float32) * tl.load(kernel + tap * channels + at, mask=inside, other=0.0).to(
                tl.float32
            )
            if tap > 0:
                tl.store(past + (tap - 1) * channels, old, mask=inside)
        tl.store(past + (TAPS - 2) * channels, new, mask=inside)
        total = total.to(out.dtype.element_ty).to(tl.float32)
        tl.store(out + row * channels + at, (total * tl.sigmoid(total)).to(out.dtype.element_ty), mask=inside)


def conv_step(mixed: Tensor, window: Tensor, rows: Tensor, kernel: Tensor) -> Tensor:
    """Shift one input (B, channels) into the rows' windows and return the convolution's output."""
    count, channels = mixed.shape
    out = mixed.new_empty(count, channels)
    _conv_step[(count, triton.cdiv(channels, 512))](
        mixed, window, rows, kernel, out, channels, mixed.stride(0), window.shape[0] - 1,
        TAPS=kernel.shape[0], BLOCK=512, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _delta_step(
    mixed, z, b, a, decay, bias, weight, state, rows, out,
    gate_row, small_row, channels, nobody, eps, scale,
    KEY_HEADS: tl.constexpr, HEADS: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    tiles: tl.constexpr = (V + BV - 1) // BV
    tile = tl.program_id(0) % tiles
    head = (tl.program_id(0) // tiles) % HEADS
    row = (tl.program_id(0) // (tiles * HEADS)).to(tl.int64)
    slot = tl.load(rows + row).to(tl.int64)
    if slot < nobody:
        source = head // (HEADS // KEY_HEADS)
        in_key, in_value = tl.arange(0, BK), tile * BV + tl.arange(0, BV)
        real_key, real_value = in_key < K, in_value < V
        place = state + (slot * HEADS + head) * K * V + in_key[:, None] * V + in_value[None, :]
        real = real_key[:, None] & real_value[None, :]
        now = tl.load(place, mask=real, other=0.0)
        base = mixed + row * channels
        query = tl.load(base + source * K + in_key, mask=real_key, other=0.0).to(tl.float32)
        key = tl.load(base + (KEY_HEADS + source) * K + in_key, mask=real_key, other=0.0).to(tl.float32)
        value = tl.load(base + 2 * KEY_HEADS * K + head * V + in_value, mask=real_value, other=0.0)
        query = query * tl.rsqrt(tl.sum(query * query) + 1e-6) * scale
        key = key * tl.rsqrt(tl.sum(key * key) + 1e-6)
        step = tl.load(a + row * small_row + head).to(tl.float32) + tl.load(bias + head)
        step = tl.where(step > 20.0, step, tl.log(1.0 + tl.exp(step)))
        kept = tl.exp(tl.load(decay + head) * step)
        share = tl.sigmoid(tl.load(b + row * small_row + head).to(tl.float32))
        now = now * kept
        change = (value.to(tl.float32) - tl.sum(now * key[:, None], 0)) * share
        now += key[:, None] * change[None, :]
        tl.store(place, now, mask=real)
        said = tl.sum(now * query[:, None], 0).to(out.dtype.element_ty)
        target = out + (row * HEADS + head) * V + in_value
        if WHOLE:
            opened = tl.load(z + row * gate_row + head * V + in_value, mask=real_value, other=0.0).to(
                tl.float32
            )
            wide = said.to(tl.float32)
            factor = tl.load(weight + in_value, mask=real_value, other=0.0)
            wide = wide * tl.rsqrt(tl.sum(wide * wide) / V + eps) * factor * opened * tl.sigmoid(opened)
            said = wide.to(out.dtype.element_ty)
        tl.store(target, said, mask=real_value)


def delta_step(
    mixed: Tensor, gates: tuple[Tensor, Tensor, Tensor], state: Tensor, rows: Tensor, layer: Any, sizes: Any
) -> Tensor:
    """Advance the rows' states (slots, heads, key, value) by one token; return its gated output."""
    z, b, a = gates
    count, heads, width = mixed.shape[0], sizes.value_heads, sizes.value_dim
    block, warps = min(TILE[0], triton.next_power_of_2(width)), TILE[1]
    out = mixed.new_empty(count, heads * width)
    _delta_step[(count * heads * triton.cdiv(width, block),)](
        mixed, z, b, a, layer.decay, layer.bias, layer.gate_norm, state, rows, out,
        z.stride(0), b.stride(0), mixed.shape[1], state.shape[0] - 1, sizes.eps, sizes.key_dim**-0.5,
        KEY_HEADS=sizes.key_heads, HEADS=heads, K=sizes.key_dim, V=width,
        BK=triton.next_power_of_2(sizes.key_dim), BV=block, WHOLE=block >= width, num_warps=warps,
    )  # fmt: skip
    if block >= width:
        return out
    return gated_norm(out.unflatten(-1, (heads, width)), z, layer.gate_norm, sizes.eps)
