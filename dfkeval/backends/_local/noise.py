"""Random numbers that are a function of a row's key, the step and the token, for drawing.

How it works: a hash with 32 bits (two rounds of multiply and shift, C. Wellons' "lowbias32" constants) of key,
step and token gives a uniform number, whose Gumbel transform is added to the logits. Nothing is kept between
steps, so any way to batch rows, and any device, draws the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

Tensor = Any


def words_of(keys: Sequence[str]) -> list[tuple[int, int]]:
    """Return two signed 32-bit numbers for each key."""
    digests = [hashlib.sha256(key.encode()).digest() for key in keys]
    return [(_signed(digest[:4]), _signed(digest[4:8])) for digest in digests]


def gumbel(words: Tensor, steps: Tensor, vocab: int) -> Tensor:
    """Return (B, vocabulary) Gumbel noise in fp32.

    Args:
        words: (B, 2) int32, from `words_of`.
        steps: (B,) which token of its answer each row draws, from 0.
        vocab: Number of tokens.
    """
    import torch

    first = _mixed(words[:, 0] ^ _mixed(steps.to(torch.int32)))
    second = _mixed(words[:, 1] + first)
    tokens = torch.arange(vocab, dtype=torch.int32, device=words.device)
    bits = _mixed(_mixed(tokens ^ first.unsqueeze(-1)) + second.unsqueeze(-1))
    share = ((bits >> 1) & 0x7FFFFFFF).float().add_(0.5).mul_(2.0**-31).clamp_(max=1 - 2.0**-24)
    return share.neg_().log1p_().neg_().log_().neg_()


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * (0x846CA68B - 2**32)
    return x ^ ((x >> 16) & 0xFFFF)


def _signed(four: bytes) -> int:
    return int.from_bytes(four, "big", signed=True)
