"""The answer loss equals the plain formula, in value and gradient, whatever the chunk."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dfktrain.data.masking import IGNORE
from dfktrain.losses.cross_entropy import answer_loss


def plain(hidden: torch.Tensor, labels: torch.Tensor, head: nn.Module) -> torch.Tensor:
    logits = head(hidden)[:, :-1].reshape(-1, 50).float()
    return nn.functional.cross_entropy(
        logits, labels[:, 1:].reshape(-1), ignore_index=IGNORE, reduction="sum"
    )


def setting(bias: bool = False) -> tuple[torch.Tensor, torch.Tensor, nn.Linear]:
    torch.manual_seed(0)
    hidden = torch.randn(3, 17, 8, requires_grad=True)
    labels = torch.randint(0, 50, (3, 17))
    labels[torch.rand(3, 17) < 0.6] = IGNORE
    return hidden, labels, nn.Linear(8, 50, bias=bias)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 7, 1000, None])
def test_value_and_gradients_equal_the_plain_formula(bias: bool, chunk: int | None) -> None:
    hidden, labels, head = setting(bias)
    results = []
    for loss in (plain(hidden, labels, head), answer_loss(hidden, labels, head, chunk)):
        gradients = torch.autograd.grad(loss / 7, [hidden, head.weight])
        results.append((loss.detach(), *gradients))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [3, None])
def test_weights_multiply_the_terms_of_their_tokens(bias: bool, chunk: int | None) -> None:
    hidden, labels, head = setting(bias)
    weights = torch.rand(3, 17) * 3
    logits = head(hidden)[:, :-1].transpose(1, 2)
    terms = nn.functional.cross_entropy(logits, labels[:, 1:], ignore_index=IGNORE, reduction="none")
    results = []
    for loss in ((terms * weights[:, 1:]).sum(), answer_loss(hidden, labels, head, chunk, weights)):
        gradients = torch.autograd.grad(loss / 7, [hidden, head.weight])
        results.append((loss.detach(), *gradients))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_no_logits_are_made_at_prompt_positions() -> None:
    hidden, labels, _ = setting()
    seen: list[int] = []

    class Head(nn.Linear):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            seen.append(states.shape[0])
            return super().forward(states)

    answer_loss(hidden, labels, Head(8, 50), chunk=4)
    assert sum(seen) == int((labels[:, 1:] != IGNORE).sum())
    assert max(seen) <= 4


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, labels, head = setting()
    head.requires_grad_(False)
    answer_loss(hidden, labels, head).backward()
    assert head.weight.grad is None
    assert hidden.grad is not None and float(hidden.grad.abs().sum()) > 0


def test_the_first_position_is_never_a_target() -> None:
    hidden, labels, head = setting()
    labels[:] = IGNORE
    labels[:, 0] = 3
    assert answer_loss(hidden, labels, head).item() == 0.0
