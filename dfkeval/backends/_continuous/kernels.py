"""The operations of a layer as Triton kernels; `reference` says what each computes.

How it works: a decode step moves far more bytes than it computes, and each launch costs about two
microseconds, so what stands between two matrix products is one kernel. A program of the gated delta rule
holds a whole head's state in registers: it is read once, advanced, written once in place, and its output is
normed and gated. Attention reads each row's own length only, in pieces that are put together by a second
kernel. Rows of the slot that nobody reads do nothing."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

Tensor = Any
KEYS_AT_ONCE = 64
PIECE = 256
"""Keys that one program of the attention reads."""

TILE = (32, 4)
"""Columns of a head's state that one program of the gated delta rule holds, and its warps. A program that
holds a whole head norms its output as well, which is otherwise a kernel more."""


@triton.jit
def _add_norm(
    x, more, weight, out, width, x_row, x_head, heads, more_row, eps, ADD: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    at = tl.arange(0, BLOCK)
    inside = at < width
    place = x + row * x_row + head * x_head + at
    value = tl.load(place, mask=inside, other=0.0)
    if ADD:
        value = (
            value.to(tl.float32) + tl.load(more + row * more_row + at, mask=inside, other=0.0).to(tl.float32)
        ).to(x.dtype.element_ty)
        tl.store(place, value, mask=inside)
    wide = value.to(tl.float32)
    wide = wide * tl.rsqrt(tl.sum(wide * wide) / width + eps) * tl.load(weight + at, mask=inside, other=0.0)
    tl.store(out + (row * heads + head) * width + at, wide.to(out.dtype.element_ty), mask=inside)


def add_norm(x: Tensor, more: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    """Add `more` to the residual stream `x` in place and return its norm."""
    width = x.shape[-1]
    heads = x.shape[1] if x.ndim == 3 else 1
    out = x.new_empty(x.shape)
    _add_norm[(x.shape[0], heads)](
        x, x if more is None else more, weight, out, width, x.stride(0), x.stride(1) if x.ndim == 3 else 0,
        heads, 0 if more is None else more.stride(0), eps, ADD=more is not None,
        BLOCK=triton.next_power_of_2(width), num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _silu_mul(both, out, width, stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    gate = tl.load(both + row * stride + at, mask=inside, other=0.0)
    up = tl.load(both + row * stride + width + at, mask=inside, other=0.0)
    wide = gate.to(tl.float32)
    wide = (wide * tl.sigmoid(wide)).to(gate.dtype).to(tl.float32) * up.to(tl.float32)
    tl.store(out + row * width + at, wide.to(out.dtype.element_ty), mask=inside)


def silu_mul(gate_up: Tensor) -> Tensor:
    """Return silu(first half) * second half."""
    width = gate_up.shape[-1] // 2
    out = gate_up.new_empty(gate_up.shape[0], width)
    _silu_mul[(gate_up.shape[0], triton.cdiv(width, 1024))](
        gate_up, out, width, gate_up.stride(0), BLOCK=1024
    )
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


@triton.jit
def _turned(base, weight, cos, sin, at, inside, width, ROTARY: tl.constexpr, eps):
    value = tl.load(base + at, mask=inside, other=0.0).to(tl.float32)
    root = tl.rsqrt(tl.sum(value * value) / width + eps)
    kind = base.dtype.element_ty
    value = (value * root * tl.load(weight + at, mask=inside, other=0.0)).to(kind).to(tl.float32)
    half = ROTARY // 2
    other = tl.where(at < half, at + half, at - half)
    turns = at < ROTARY
    partner = tl.load(base + other, mask=turns, other=0.0).to(tl.float32)
    partner = (partner * root * tl.load(weight + other, mask=turns, other=0.0)).to(kind).to(tl.float32)
    partner = tl.where(at < half, -partner, partner)
    return tl.where(turns, value * cos + partner * sin, value)


@triton.jit
def _place(
    joined, query_norm, key_norm, frequencies, rows, lengths, shifts, keys, values, out,
    stride, capacity, nobody, eps,
    QUERY_HEADS: tl.constexpr, KV_HEADS: tl.constexpr, D: tl.constexpr, ROTARY: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    slot = tl.load(rows + row).to(tl.int64)
    if slot < nobody:
        at = tl.arange(0, BLOCK)
        inside = at < D
        length = tl.load(lengths + slot)
        half = ROTARY // 2
        turn = tl.where(at < half, at, at - half)
        angle = tl.load(frequencies + turn, mask=at < ROTARY, other=0.0) * (
            length + tl.load(shifts + slot)
        ).to(tl.float32)
        kind = out.dtype.element_ty
        cos, sin = tl.cos(angle).to(kind).to(tl.float32), tl.sin(angle).to(kind).to(tl.float32)
        line = joined + row * stride
        if head < QUERY_HEADS:
            turned = _turned(line + head * 2 * D, query_norm, cos, sin, at, inside, D, ROTARY, eps)
            tl.store(out + (row * QUERY_HEADS + head) * D + at, turned.to(kind), mask=inside)
        else:
            which = (head - QUERY_HEADS) % KV_HEADS
            target = ((slot * KV_HEADS + which) * capacity + length) * D + at
            if head < QUERY_HEADS + KV_HEADS:
                base = line + 2 * QUERY_HEADS * D + which * D
                placed = _turned(base, key_norm, cos, sin, at, inside, D, ROTARY, eps)
                tl.store(keys + target, placed.to(kind), mask=inside)
            else:
                value = tl.load(line + (2 * QUERY_HEADS + KV_HEADS + which) * D + at, mask=inside, other=0.0)
                tl.store(values + target, value, mask=inside)


@triton.jit
def _attend(
    query, keys, values, rows, lengths, sums, tops, totals,
    capacity, pieces, nobody, scale,
    QUERY_HEADS: tl.constexpr, KV_HEADS: tl.constexpr, D: tl.constexpr, PIECE: tl.constexpr,
    KEYS: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    which, piece = tl.program_id(1), tl.program_id(2)
    slot = tl.load(rows + row).to(tl.int64)
    first = piece * PIECE
    if slot < nobody:
        length = tl.load(lengths + slot) + 1
        if first < length:
            each: tl.constexpr = QUERY_HEADS // KV_HEADS
            in_group, at = tl.arange(0, GROUP), tl.arange(0, BLOCK)
            real, inside = in_group < each, at < D
            heads = row * QUERY_HEADS + which * each + in_group
            asked = tl.load(
                query + heads[:, None] * D + at[None, :], mask=real[:, None] & inside[None, :], other=0.0
            )
            top = tl.full([GROUP], float("-inf"), tl.float32)
            total = tl.zeros([GROUP], tl.float32)
            summed = tl.zeros([GROUP, BLOCK], tl.float32)
            base = (slot * KV_HEADS + which) * capacity * D
            last = tl.minimum(first + PIECE, length)
            for start in range(first, last, KEYS):
                places = start + tl.arange(0, KEYS)
                seen = places < last
                place = base + places[:, None] * D + at[None, :]
                shown = seen[:, None] & inside[None, :]
                key = tl.load(keys + place, mask=shown, other=0.0)
                scores = tl.dot(asked, tl.trans(key), input_precision="ieee") * scale
                scores = tl.where(seen[None, :], scores, float("-inf"))
                higher = tl.maximum(top, tl.max(scores, 1))
                parts = tl.exp(scores - higher[:, None])
                shrink = tl.exp(top - higher)
                value = tl.load(values + place, mask=shown, other=0.0)
                total = total * shrink + tl.sum(parts, 1)
                summed = summed * shrink[:, None] + tl.dot(
                    parts.to(value.dtype), value, input_precision="ieee"
                )
                top = higher
            line = heads * pieces + piece
            tl.store(sums + line[:, None] * D + at[None, :], summed, mask=real[:, None] & inside[None, :])
            tl.store(tops + line, top, mask=real)
            tl.store(totals + line, total, mask=real)


@triton.jit
def _together(
    sums, tops, totals, joined, rows, lengths, out, stride, pieces, nobody,
    QUERY_HEADS: tl.constexpr, D: tl.constexpr, PIECE: tl.constexpr, PIECES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    slot = tl.load(rows + row).to(tl.int64)
    if slot < nobody:
        used = (tl.load(lengths + slot) + PIECE) // PIECE
        at, piece = tl.arange(0, BLOCK), tl.arange(0, PIECES)
        inside, real = at < D, piece < used
        line = (row * QUERY_HEADS + head) * pieces + piece
        top = tl.load(tops + line, mask=real, other=float("-inf"))
        share = tl.exp(top - tl.max(top))
        total = tl.sum(share * tl.load(totals + line, mask=real, other=0.0))
        parts = tl.load(
            sums + line[:, None] * D + at[None, :], mask=real[:, None] & inside[None, :], other=0.0
        )
        said = tl.sum(parts * share[:, None], 0) / total
        kind = out.dtype.element_ty
        gate = tl.load(joined + row * stride + (2 * head + 1) * D + at, mask=inside, other=0.0).to(tl.float32)
        said = said.to(kind).to(tl.float32) * tl.sigmoid(gate).to(kind).to(tl.float32)
        tl.store(out + (row * QUERY_HEADS + head) * D + at, said.to(kind), mask=inside)


def attention_step(
    joined: Tensor, caches: tuple[Tensor, Tensor], rows: Tensor, places: tuple[Tensor, Tensor],
    frequencies: Tensor, layer: Any, sizes: Any,
) -> Tensor:  # fmt: skip
    """Append one token to the rows' keys and values and return what it attends to, gated."""
    keys, values = caches
    lengths, shifts = places
    count, heads, width, capacity = joined.shape[0], sizes.query_heads, sizes.head_dim, keys.shape[2]
    nobody, block = keys.shape[0] - 1, triton.next_power_of_2(sizes.head_dim)
    query = joined.new_empty(count, heads, width)
    shape = {"QUERY_HEADS": heads, "KV_HEADS": sizes.kv_heads, "D": width, "BLOCK": block}
    _place[(count, heads + 2 * sizes.kv_heads)](
        joined, layer.query_norm, layer.key_norm, frequencies, rows, lengths, shifts, keys, values, query,
        joined.stride(0), capacity, nobody, sizes.eps, ROTARY=sizes.rotary, num_warps=1, **shape,
    )  # fmt: skip
    pieces = triton.cdiv(capacity, PIECE)
    sums = query.new_empty(count, heads, pieces, width, dtype=frequencies.dtype)
    tops, totals = (query.new_empty(count, heads, pieces, dtype=frequencies.dtype) for _ in range(2))
    _attend[(count, sizes.kv_heads, pieces)](
        query, keys, values, rows, lengths, sums, tops, totals, capacity, pieces, nobody, width**-0.5,
        PIECE=PIECE, KEYS=KEYS_AT_ONCE, GROUP=max(16, triton.next_power_of_2(heads // sizes.kv_heads)),
        num_warps=4, num_stages=2, **shape,
    )  # fmt: skip
    out = query.new_empty(count, heads * width)
    _together[(count, heads)](
        sums, tops, totals, joined, rows, lengths, out, joined.stride(0), pieces, nobody,
        QUERY_HEADS=heads, D=width, PIECE=PIECE, PIECES=triton.next_power_of_2(pieces), BLOCK=block,
        num_warps=4,
    )  # fmt: skip
    return out
