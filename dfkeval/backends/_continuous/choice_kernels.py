"""Choose tokens on a GPU in one pass over the logits: mask, temperature, min-p, noise and the largest.

The noise is that of `dfkeval.backends._local.noise`, so a draw is the same here and there. `sampler` says what
is computed."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

Tensor = Any
AT_ONCE = 4096
"""Logits that one program compares."""


@triton.jit
def _mixed(x):
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _pick(
    logits, mask, words, steps, tops, best, which, vocab, stride, mask_row, pieces, scale, least,
    MASKED: tl.constexpr, DRAWN: tl.constexpr, AT_LEAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < vocab
    value = tl.load(logits + row * stride + at, mask=inside, other=float("-inf")).to(tl.float32)
    if MASKED:
        bits = tl.load(mask + row * mask_row + at // 32, mask=inside, other=0)
        value = tl.where(((bits >> (at % 32)) & 1) == 1, value, float("-inf"))
    if DRAWN:
        value = value * scale
        if AT_LEAST:
            value = tl.where(value >= tl.load(tops + row) * scale + least, value, float("-inf"))
        first = _mixed(
            tl.load(words + 2 * row).to(tl.uint32, bitcast=True)
            ^ _mixed(tl.load(steps + row).to(tl.uint32, bitcast=True))
        )
        second = _mixed(tl.load(words + 2 * row + 1).to(tl.uint32, bitcast=True) + first)
        random = _mixed(_mixed(at.to(tl.uint32) ^ first) + second)
        share = tl.minimum(
            ((random >> 1).to(tl.float32) + 0.5) * 4.656612873077393e-10, 1 - 5.960464477539063e-08
        )
        rest = 1.0 - share
        lost = tl.where(rest == 1.0, -share, tl.log(rest) * -share / (rest - 1.0))  # log1p(-share)
        value -= tl.log(-lost)
    top, index = tl.max(value, 0, return_indices=True)
    tl.store(best + row * pieces + tl.program_id(1), top)
    tl.store(which + row * pieces + tl.program_id(1), (tl.program_id(1) * BLOCK + index).to(tl.int64))


def pick(
    logits: Tensor, mask: Tensor | None, draws: tuple[Tensor, Tensor] | None, temperature: float, min_p: float
) -> Tensor:
    """Return the largest of each row's logits that `mask` allows, or draw one.

    Args:
        logits: (B, vocabulary).
        mask: (B, words) bits; None allows all.
        draws: (B, 2) words and (B,) steps of `dfkeval.backends._local.noise.gumbel`; None is greedy.
        temperature: Divides the logits of a draw.
        min_p: Smallest probability of a drawn token, as a share of the most likely one's.
    """
    tops = logits
    if draws is not None and min_p:
        tops = _blocks(logits, mask, None, logits, 1.0, 0.0)[0].amax(dim=1)
    best, which = _blocks(logits, mask, draws, tops, 1.0 / (temperature or 1.0), min_p)
    return which.gather(1, best.argmax(dim=1, keepdim=True))[:, 0]


def _blocks(
    logits: Tensor, mask: Tensor | None, draws: tuple[Tensor, Tensor] | None, tops: Tensor, scale: float,
    min_p: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the largest value of each block of the vocabulary, and where it is; `tops` are (B,) logits."""
    count, vocab = logits.shape
    pieces = triton.cdiv(vocab, AT_ONCE)
    best = torch.empty(count, pieces, dtype=torch.float32, device=logits.device)
    which = torch.empty(count, pieces, dtype=torch.long, device=logits.device)
    words, steps = draws if draws is not None else (which, which)
    _pick[(count, pieces)](
        logits, which if mask is None else mask, words, steps, tops, best, which, vocab, logits.stride(0),
        0 if mask is None else mask.stride(0), pieces, scale, math.log(min_p or 1.0),
        MASKED=mask is not None, DRAWN=draws is not None, AT_LEAST=bool(min_p), BLOCK=AT_ONCE, num_warps=8,
    )  # fmt: skip
    return best, which
