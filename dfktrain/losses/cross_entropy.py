"""The answer loss: cross entropy summed over the scored tokens of a batch.

The sum is divided later by the number of scored tokens of the whole step, so a step's gradient does not depend
on how its samples were split into batches.

How it works: the head is applied only to hidden states that predict a scored token, chunk by chunk. The gradient
is computed in the forward pass, so that a chunk's logits are freed before the next chunk.

Guarantees:
    - No logits are computed at positions of the prompt.
    - The peak memory is one chunk of logits.
    - Loss and gradient equal the plain formula up to fp32 rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dfktrain.data.masking import IGNORE

Kernel = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Computes cross entropy: see `answer_loss`."""

CHUNK_LOGITS = 1 << 26
"""Number of logits of a chunk; in fp32 they take 256 MiB."""
SHARE_OF_GPU = 128
"""A chunk takes no more than this part of a GPU's memory, and at least `CHUNK_LOGITS`."""


def chunk_logits(device: torch.device) -> int:
    """Return the number of logits of a chunk: more on a GPU with much memory, for fewer and larger products."""
    if device.type != "cuda":
        return CHUNK_LOGITS
    memory: int = torch.cuda.get_device_properties(device).total_memory
    return max(CHUNK_LOGITS, memory // SHARE_OF_GPU // 4)


def answer_loss(
    hidden: Tensor,
    labels: Tensor,
    head: nn.Module,
    chunk: int | None = None,
    weights: Tensor | None = None,
    kernel: Kernel | None = None,
) -> Tensor:
    """Return the cross entropy summed over scored tokens, a scalar in fp32.

    Args:
        hidden: Last hidden states of the body (B, T, H).
        labels: Labels (B, T), -100 at tokens without loss; state t-1 predicts label t.
        head: The output projection.
        chunk: Number of positions of a chunk; None takes as many as `chunk_logits` allows.
        weights: Weights (B, T) of the labels' terms; None is 1 everywhere.
        kernel: Takes logits (N, V), targets (N) and weights (N) or None, returns the terms (N), and turns the
            logits into their gradient; None is PyTorch.
    """
    states, targets = scored_states(hidden, labels)
    shares = scored_weights(weights, labels)
    size = chunk or max(1, chunk_logits(hidden.device) // max(1, vocabulary(head)))
    if is_plain(head):
        return _AnswerLoss.apply(states, head.weight, targets, shares, size, kernel)
    return _recomputed(states, head, targets, shares, size)


def scored_states(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the N states (N, H) that predict a scored token, and those tokens (N)."""
    scored = labels[:, 1:] != IGNORE
    return hidden[:, :-1][scored], labels[:, 1:][scored]


def scored_weights(weights: Tensor | None, labels: Tensor) -> Tensor | None:
    """Return the weights (N) of the scored tokens in the order of `scored_states`; None stays None."""
    return None if weights is None else weights[:, 1:][labels[:, 1:] != IGNORE]


def vocabulary(head: nn.Module) -> int:
    """Return the size of the vocabulary that a head predicts."""
    return int(getattr(head, "out_features", None) or head.weight.shape[0])


def is_plain(head: nn.Module) -> bool:
    """Return whether a head is only its weight, without bias, adapter or quantisation."""
    return type(head) is nn.Linear and head.bias is None and head.weight.is_floating_point()


class _AnswerLoss(torch.autograd.Function):
    """sum over n of -shares[n] * log softmax(states[n] @ weight.T)[targets[n]], with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        targets: Tensor,
        shares: Tensor | None,
        size: int,
        kernel: Kernel | None,
    ) -> Tensor:
        needs_states, needs_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        d_states = torch.empty_like(states) if needs_states else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        head = weight.to(states.dtype)
        for start in range(0, states.shape[0], size):
            part = slice(start, start + size)
            logits, share = states[part] @ head.T, None if shares is None else shares[part]
            if d_states is None and d_weight is None:
                terms = nn.functional.cross_entropy(logits.float(), targets[part], reduction="none")
                total += (terms if share is None else terms * share).sum()
                continue
            total += (kernel or _cross_entropy_)(logits, targets[part], share).sum()
            slope = logits  # which hold their gradient now
            if d_states is not None:
                d_states[part] = slope @ head
            if d_weight is not None:
                d_weight += (slope.T @ states[part]).float()
        ctx.gradients = (d_states, None if d_weight is None else d_weight.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        d_states, d_weight = ctx.gradients
        return (
            None if d_states is None else (d_states * above.to(d_states.dtype)),
            None if d_weight is None else (d_weight * above.to(d_weight.dtype)),
            *(None,) * 4,
        )


def _cross_entropy_(logits: Tensor, targets: Tensor, shares: Tensor | None) -> Tensor:
    """Return the terms (N), and turn the logits into their gradient."""
    wide, aim = logits.float(), targets.unsqueeze(-1)
    norm = torch.logsumexp(wide, dim=-1, keepdim=True)
    terms = (norm - wide.gather(-1, aim)).squeeze(-1)
    slope = wide.sub_(norm).exp_()
    slope.scatter_add_(-1, aim, torch.full_like(aim, -1, dtype=slope.dtype))
    if shares is not None:
        terms, slope = terms * shares, slope.mul_(shares.unsqueeze(-1))
    if slope.dtype != logits.dtype:
        logits.copy_(slope)
    return terms


def _recomputed(states: Tensor, head: nn.Module, targets: Tensor, shares: Tensor | None, size: int) -> Tensor:
    """Return the same sum for any head (with adapter or bias); its logits are recomputed in the backward pass."""
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
