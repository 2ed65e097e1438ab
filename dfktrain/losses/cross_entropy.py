"""Cross entropy at the scored positions only, summed, so that whoever knows the step's token count divides.

Strategy: pick the hidden states that predict a scored token, run the head on those, chunk by chunk, and form
the gradient in the forward pass; a chunk's logits are gone before the next is made.
Promises: no logits at prompt positions; peak memory is one chunk of logits; equal to the plain formula to
fp32 rounding. Since the sum is over tokens, a step's gradient does not depend on how its samples were split
into batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dfktrain.data.masking import IGNORE

CHUNK_LOGITS = 1 << 26
"""Logits a chunk: 2^26 fp32 values are 256 MiB."""


def answer_loss(
    hidden: Tensor, labels: Tensor, head: nn.Module, chunk: int | None = None, weights: Tensor | None = None
) -> Tensor:
    """Summed cross entropy, a scalar in fp32.

    hidden: (B, T, H), the body's last states. labels: (B, T), -100 where no loss; label t is predicted by
    state t-1.
    head: the output projection. chunk: positions at once. weights: (B, T), what the term of label t is
    multiplied by; None is 1 everywhere."""
    states, targets = scored_states(hidden, labels)
    shares = scored_weights(weights, labels)
    size = chunk or max(1, CHUNK_LOGITS // max(1, vocabulary(head)))
    if _is_plain(head):
        return _AnswerLoss.apply(states, head.weight, targets, shares, size)
    return _recomputed(states, head, targets, shares, size)


def scored_states(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N, H) states that predict a scored token, and (N,) those tokens."""
    scored = labels[:, 1:] != IGNORE
    return hidden[:, :-1][scored], labels[:, 1:][scored]


def scored_weights(weights: Tensor | None, labels: Tensor) -> Tensor | None:
    """(N,) weights of the scored tokens, in the order of `scored_states`; None stays None."""
    return None if weights is None else weights[:, 1:][labels[:, 1:] != IGNORE]


def vocabulary(head: nn.Module) -> int:
    """Rows of the head's weight."""
    return int(getattr(head, "out_features", None) or head.weight.shape[0])


def _is_plain(head: nn.Module) -> bool:
    """A head whose weight is all there is: no bias, no adapter, no quantisation."""
    return type(head) is nn.Linear and head.bias is None and head.weight.is_floating_point()


class _AnswerLoss(torch.autograd.Function):
    """sum over n of -shares[n] * log softmax(states[n] @ weight.T)[targets[n]]; the gradient is formed on the
    way."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, shares: Tensor | None, size: int
    ) -> Tensor:
        wants_states, wants_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        d_states = torch.empty_like(states) if wants_states else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        kept = weight.to(states.dtype)
        for start in range(0, states.shape[0], size):
            part = slice(start, start + size)
            logits = (states[part] @ kept.T).float()
            norm = torch.logsumexp(logits, dim=-1, keepdim=True)
            aim = targets[part].unsqueeze(-1)
            share = None if shares is None else shares[part].unsqueeze(-1)
            terms = norm - logits.gather(-1, aim)
            total += (terms if share is None else terms * share).sum()
            if d_states is None and d_weight is None:
                continue
            slope = logits.sub_(norm).exp_()
            slope.scatter_add_(-1, aim, torch.full_like(aim, -1, dtype=slope.dtype))
            if share is not None:
                slope.mul_(share)
            slope = slope.to(states.dtype)
            if d_states is not None:
                d_states[part] = slope @ kept
            if d_weight is not None:
                d_weight += (slope.T @ states[part]).float()
        ctx.gradients = (d_states, None if d_weight is None else d_weight.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        d_states, d_weight = ctx.gradients
        return (
            None if d_states is None else (d_states * above.to(d_states.dtype)),
            None if d_weight is None else (d_weight * above.to(d_weight.dtype)),
            None,
            None,
            None,
        )


def _recomputed(states: Tensor, head: nn.Module, targets: Tensor, shares: Tensor | None, size: int) -> Tensor:
    """The same sum through any head (with adapters or bias), its logits made again in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    def part(some: Tensor, aims: Tensor, share: Tensor | None) -> Tensor:
        terms = nn.functional.cross_entropy(head(some).float(), aims, reduction="none")
        return (terms if share is None else terms * share).sum()

    total = torch.zeros((), dtype=torch.float32, device=states.device)
    for start in range(0, states.shape[0], size):
        chunk = slice(start, start + size)
        share = None if shares is None else shares[chunk]
        total = total + checkpoint(part, states[chunk], targets[chunk], share, use_reentrant=False)
    return total
