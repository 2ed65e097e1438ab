"""Choose tokens on a GPU: filters, mask, temperature, noise and the largest, in two to four short kernels.

How it works: one pass over the logits finds the best of each block, and a last kernel the best block; it also
writes what changes with a token. Top-k, top-p and min-p all keep what is at least some logit, so each row has
one floor, which is found without sorting: two of its bits a pass, from how many or how likely the logits above
are. Logits that equal the floor are all kept; what is no number is never chosen. The noise is that of
`dfkeval.backends._local.noise`, so a draw is the same here and there. `sampler` says what is computed."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

Tensor = Any
AT_ONCE = 4096
"""Logits that one program compares."""

FLOOR_AT_ONCE = 16384
"""Logits that the program which looks for a row's floor reads at once."""


@triton.jit
def _mixed(x):
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _read(logits, mask, row, at, vocab, stride, mask_row, MASKED: tl.constexpr):
    inside = at < vocab
    value = tl.load(logits + row * stride + at, mask=inside, other=float("-inf")).to(tl.float32)
    if MASKED:
        bits = tl.load(mask + row * mask_row + at // 32, mask=inside, other=0)
        value = tl.where(((bits >> (at % 32)) & 1) == 1, value, float("-inf"))
    return tl.where(
        value == value, value, float("-inf")
    )  # a row that is nobody's holds what lay there before


@triton.jit
def _ordered(value):
    """Return numbers that compare as the values do."""
    bits = value.to(tl.int32, bitcast=True)
    return (bits ^ tl.where(bits < 0, -1, -2147483648)).to(tl.uint32, bitcast=True)


@triton.jit
def _above(
    logits, mask, row, vocab, stride, mask_row, top, scale, lowest, first, second, third,
    MASKED: tl.constexpr, WEIGHED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Return how many logits are at least each of three bounds, or how likely they are together; of those that
    are at least `lowest`."""
    one, two, three = scale * 0.0, scale * 0.0, scale * 0.0
    for start in range(0, vocab, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = _read(logits, mask, row, at, vocab, stride, mask_row, MASKED)
        weight = tl.where(at < vocab, 1.0, 0.0)
        if WEIGHED:
            weight = tl.exp((value - top) * scale)
        key = _ordered(value)
        weight = tl.where(key >= lowest, weight, 0.0)
        one += tl.sum(tl.where(key >= first, weight, 0.0))
        two += tl.sum(tl.where(key >= second, weight, 0.0))
        three += tl.sum(tl.where(key >= third, weight, 0.0))
    return one, two, three


@triton.jit
def _highest(
    logits, mask, row, vocab, stride, mask_row, top, scale, lowest, wanted,
    MASKED: tl.constexpr, WEIGHED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Return the highest bound that leaves as many logits as are wanted, or as likely ones."""
    found = lowest & 0
    for turn in range(16):
        shift, bit = 30 - 2 * turn, found * 0 + 1
        first, second, third = (
            found | (bit << shift),
            found | ((bit + 1) << shift),
            found | ((bit + 2) << shift),
        )
        one, two, three = _above(
            logits, mask, row, vocab, stride, mask_row, top, scale, lowest, first, second, third,
            MASKED, WEIGHED, BLOCK,
        )  # fmt: skip
        found = tl.where(one >= wanted, first, found)
        found = tl.where(two >= wanted, second, found)
        found = tl.where(three >= wanted, third, found)
    return found


@triton.jit
def _floor(
    logits, mask, floors, vocab, stride, mask_row, scale, top_k, top_p, least,
    MASKED: tl.constexpr, COUNTED: tl.constexpr, WEIGHED: tl.constexpr, AT_LEAST: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    for start in range(0, vocab, BLOCK):
        at = start + tl.arange(0, BLOCK)
        best = tl.maximum(best, _read(logits, mask, row, at, vocab, stride, mask_row, MASKED))
    top = tl.max(best)
    lowest = _ordered(top) & 0
    if COUNTED:
        lowest = _highest(
            logits, mask, row, vocab, stride, mask_row, top, scale, lowest, top_k, MASKED, False, BLOCK
        )
    if WEIGHED:
        total, _, _ = _above(
            logits, mask, row, vocab, stride, mask_row, top, scale, lowest, lowest, lowest, lowest,
            MASKED, True, BLOCK,
        )  # fmt: skip
        likely = _highest(
            logits, mask, row, vocab, stride, mask_row, top, scale, lowest, top_p * total, MASKED, True, BLOCK
        )
        lowest = tl.maximum(lowest, likely)
    if AT_LEAST:
        lowest = tl.maximum(lowest, _ordered(top + least / scale))
    lowest = tl.minimum(lowest, _ordered(top))
    tl.store(floors + row, lowest.to(tl.int32, bitcast=True))


@triton.jit
def _pick(
    logits, mask, rows, words, steps, floors, best, which, vocab, stride, mask_row, pieces, scale,
    MASKED: tl.constexpr, DRAWN: tl.constexpr, FLOORED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    value = _read(logits, mask, row, at, vocab, stride, mask_row, MASKED)
    if FLOORED:
        value = tl.where(
            _ordered(value) >= tl.load(floors + row).to(tl.uint32, bitcast=True), value, float("-inf")
        )
    if DRAWN:
        slot = tl.load(rows + row)
        first = _mixed(
            tl.load(words + 2 * slot).to(tl.uint32, bitcast=True)
            ^ _mixed(tl.load(steps + slot).to(tl.uint32, bitcast=True))
        )
        second = _mixed(tl.load(words + 2 * slot + 1).to(tl.uint32, bitcast=True) + first)
        random = _mixed(_mixed(at.to(tl.uint32) ^ first) + second)
        share = tl.minimum(
            ((random >> 1).to(tl.float32) + 0.5) * 4.656612873077393e-10, 1 - 5.960464477539063e-08
        )
        rest = 1.0 - share
        lost = tl.where(rest == 1.0, -share, tl.log(rest) * -share / (rest - 1.0))  # log1p(-share)
        value = value * scale - tl.log(-lost)
    top, index = tl.max(value, 0, return_indices=True)
    tl.store(best + row * pieces + tl.program_id(1), top)
    tl.store(which + row * pieces + tl.program_id(1), (tl.program_id(1) * BLOCK + index).to(tl.int64))


@triton.jit
def _settle(
    best, which, rows, forced, steps, tokens, lengths, out, pieces, PIECES: tl.constexpr, KEPT: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(rows + row)
    at = tl.arange(0, PIECES)
    _, index = tl.max(
        tl.load(best + row * pieces + at, mask=at < pieces, other=float("-inf")), 0, return_indices=True
    )
    token, must = tl.load(which + row * pieces + index), tl.load(forced + row)
    token = tl.where(must >= 0, must, token)
    tl.store(out + row, token)
    tl.store(steps + slot, tl.load(steps + slot) + 1)
    if KEPT:
        tl.store(tokens + slot, token)
        tl.store(lengths + slot, tl.load(lengths + slot) + 1)


def pick(
    logits: Tensor, mask: Tensor | None, rows: Tensor, forced: Tensor, draws: tuple[Tensor, Tensor],
    kept: tuple[Tensor, Tensor] | None, sampling: Any,
) -> Tensor:  # fmt: skip
    """Return the largest of each row's logits that `mask` allows, or draw one; a forced token comes first.

    Args:
        logits: (B, vocabulary).
        mask: (B, words) bits; None allows all.
        rows: (B,) slot of each row.
        forced: (B,) token that must come, negative for none.
        draws: (slots, 2) words and (slots,) steps of `dfkeval.backends._local.noise.gumbel`. Steps go up by one.
        kept: The slots' last tokens and lengths, brought up to date as well; None leaves them to the caller.
        sampling: Temperature, top-k, top-p and min-p.
    """
    count, vocab = logits.shape
    pieces = triton.cdiv(vocab, AT_ONCE)
    best = torch.empty(count, pieces, dtype=torch.float32, device=logits.device)
    which = torch.empty(count, pieces, dtype=torch.long, device=logits.device)
    out = torch.empty(count, dtype=torch.long, device=logits.device)
    drawn, (words, steps) = sampling.temperature > 0, draws
    floored = drawn and (sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0)
    scale = 1.0 / (sampling.temperature or 1.0)
    bits, bits_row = (which, 0) if mask is None else (mask, mask.stride(0))
    floors = which
    if floored:
        floors = torch.empty(count, dtype=torch.int32, device=logits.device)
        _floor[(count,)](
            logits, bits, floors, vocab, logits.stride(0), bits_row, scale,
            float(sampling.top_k), float(sampling.top_p), math.log(sampling.min_p or 1.0),
            MASKED=mask is not None, COUNTED=sampling.top_k > 0, WEIGHED=sampling.top_p < 1,
            AT_LEAST=sampling.min_p > 0, BLOCK=FLOOR_AT_ONCE, num_warps=16,
        )  # fmt: skip
    _pick[(count, pieces)](
        logits, bits, rows, words, steps, floors, best, which, vocab, logits.stride(0), bits_row, pieces, scale,
        MASKED=mask is not None, DRAWN=drawn, FLOORED=floored, BLOCK=AT_ONCE, num_warps=8,
    )  # fmt: skip
    tokens, lengths = (steps, steps) if kept is None else kept
    _settle[(count,)](
        best, which, rows, forced, steps, tokens, lengths, out, pieces,
        PIECES=triton.next_power_of_2(pieces), KEPT=kept is not None, num_warps=1,
    )  # fmt: skip
    return out
