"""Attention of one token a row over the keys and values of its slot, as Triton kernels.

How it works: one kernel norms and turns queries and keys and appends keys and values to the slots. Each row's
own length is then read in pieces, so that few rows keep the whole device busy, and a last kernel puts the
pieces together and gates them. `reference.attention_step` says what is computed."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

Tensor = Any
KEYS_AT_ONCE = 64
PIECE = 128
"""Keys that one program of the attention reads."""


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
