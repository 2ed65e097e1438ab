"""SFT-Plus: learn the new answers and stay near what the base would have said at the same places.

    loss of a scored token = (1 - lambda) * CE(target, student) + lambda * KL(base || student)

KL is between softmax(logits / T) of both, without the factor T^2 that distillation uses: raising T flattens
both sides and so lessens the base's influence, as the setting's documentation asks.
Strategy: the teacher is the same network with its adapter off, or a frozen copy where all weights are
trained; it gives hidden states only. Logits of both are made for scored positions, chunk by chunk, and the
gradient is formed in the forward pass, as `dfktrain.losses.cross_entropy` does.
Promises: equal to the plain formula to fp32 rounding; no more memory for logits than plain training, since a
chunk holds a quarter of the positions and four tables; the teacher is deterministic (dropout off) and never
trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dfkdata.common.errors import ConfigError
from dfktrain.data.masking import IGNORE
from dfktrain.losses import cross_entropy as losses

TABLES = 4
"""Tables of logits that a chunk keeps at once: the student's, the base's, and both at temperature T."""


class Teacher(Protocol):
    """What the base says. head: its output projection."""

    head: nn.Module

    def states(self, inputs: dict[str, Any]) -> Tensor:
        """(B, T, H): the base's last hidden states for the inputs of the network's body, without a
        gradient."""


@dataclass(frozen=True)
class KLToBase:
    """SFT-Plus of one stage. share: lambda, over 0. temperature: T."""

    teacher: Teacher
    share: float
    temperature: float


class AdapterDisabledTeacher:
    """The student's own network with every adapter layer switched off.

    PEFT's own `disable_adapter` also turns gradients on when it leaves, which would unfreeze what a stage has
    frozen; here only the layers' switch is moved."""

    def __init__(self, model: Any, net: Any) -> None:
        """model: with the adapter. net: the network below it. Raises `ConfigError` where nothing can be
        switched off."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        self.net = net
        self.head = net.get_output_embeddings()
        self.layers = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
        if not self.layers:
            raise ConfigError("sft_plus: this adapter cannot be switched off; use adapter.kind lora or full")

    def states(self, inputs: dict[str, Any]) -> Tensor:
        """As `Teacher.states`; the network is as before afterwards."""
        was_training, switches = self.net.training, [layer._disable_adapters for layer in self.layers]
        self.net.eval()
        for layer in self.layers:
            layer._disable_adapters = True
        try:
            with torch.no_grad():
                return self.net.model(**inputs, use_cache=False).last_hidden_state
        finally:
            for layer, switch in zip(self.layers, switches, strict=True):
                layer._disable_adapters = switch
            self.net.train(was_training)


class FrozenTeacher:
    """A copy of the network as it is now. It costs the memory of its weights once more."""

    def __init__(self, net: Any) -> None:
        # one deepcopy of both, so that a tied head stays tied
        body, head = copy.deepcopy((net.model, net.get_output_embeddings()))
        self.body, self.head = body.eval().requires_grad_(False), head.eval().requires_grad_(False)

    def states(self, inputs: dict[str, Any]) -> Tensor:
        """As `Teacher.states`."""
        with torch.no_grad():
            return self.body(**inputs, use_cache=False).last_hidden_state


@contextmanager
def kl_to_base(net: Any, keep: KLToBase | None) -> Iterator[None]:
    """Within, the patched forward of `net` (see `engines.transformers.score_answers`) returns the SFT-Plus
    loss."""
    net.dfk_kl_to_base = keep
    try:
        yield
    finally:
        net.dfk_kl_to_base = None


def kl_to_base_loss(
    hidden: Tensor,
    base_hidden: Tensor,
    labels: Tensor,
    heads: tuple[nn.Module, nn.Module],
    keep: KLToBase,
    chunk: int | None = None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(summed loss, summed CE, summed KL), scalars in fp32; only the first has a gradient.

    hidden, base_hidden: (B, T, H) of student and base. labels: (B, T), -100 where no loss. heads: of student
    and base. chunk: positions at once. weights: (B, T), what both terms of label t count; None is 1
    everywhere."""
    states, targets = losses.scored_states(hidden, labels)
    base = base_hidden[:, :-1][labels[:, 1:] != IGNORE]
    counts = losses.scored_weights(weights, labels)
    student, teacher = heads
    size = chunk or max(1, losses.CHUNK_LOGITS // TABLES // max(1, losses.vocabulary(student)))
    if losses._is_plain(student) and losses._is_plain(teacher):
        settings = (keep.share, keep.temperature, size)
        sums: tuple[Tensor, Tensor, Tensor] = _KLToBaseLoss.apply(
            states, student.weight, base, teacher.weight, targets, counts, settings
        )
        return sums
    return _recomputed(states, base, targets, counts, heads, keep, size)


class _KLToBaseLoss(torch.autograd.Function):
    """The three sums, with the gradient of the first formed on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        base: Tensor,
        base_weight: Tensor,
        targets: Tensor,
        counts: Tensor | None,
        settings: tuple[float, float, int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        share, temperature, size = settings
        wants_states, wants_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        sums = torch.zeros(2, dtype=torch.float32, device=states.device)
        d_states = torch.empty_like(states) if wants_states else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        kept, base_kept = weight.to(states.dtype), base_weight.to(base.dtype)
        for start in range(0, states.shape[0], size):
            part = slice(start, start + size)
            tables = (states[part] @ kept.T).float(), (base[part] @ base_kept.T).float()
            found, slope = _chunk(*tables, targets[part].unsqueeze(-1), share, temperature)
            if counts is not None:
                found, slope = found * counts[part], slope.mul_(counts[part].unsqueeze(-1))
            sums += found.sum(-1)
            slope = slope.to(states.dtype)
            if d_states is not None:
                d_states[part] = slope @ kept
            if d_weight is not None:
                d_weight += (slope.T @ states[part]).float()
        ctx.gradients = (d_states, None if d_weight is None else d_weight.to(weight.dtype))
        cross, divergence = sums.unbind()
        ctx.mark_non_differentiable(cross, divergence)
        return (1 - share) * cross + share * divergence, cross, divergence

    @staticmethod
    def backward(ctx: Any, above: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        d_states, d_weight = ctx.gradients
        return (
            None if d_states is None else d_states * above.to(d_states.dtype),
            None if d_weight is None else d_weight * above.to(d_weight.dtype),
            *(None,) * 5,
        )


def _chunk(
    logits: Tensor, base: Tensor, aim: Tensor, share: float, temperature: float
) -> tuple[Tensor, Tensor]:
    """(CE and KL (2, N), slope of the loss in the logits (N, V)). The tables are written over.

    d CE / d z = softmax(z) - target, d KL / d z = (softmax(z / T) - softmax(b / T)) / T."""
    soft = logits / temperature
    soft -= torch.logsumexp(soft, dim=-1, keepdim=True)
    base = base.div_(temperature)
    base -= torch.logsumexp(base, dim=-1, keepdim=True)
    wanted = base.exp()
    divergence = base.sub_(soft).mul_(wanted).sum(-1)
    slope = logits.sub_(torch.logsumexp(logits, dim=-1, keepdim=True))
    cross = -slope.gather(-1, aim).squeeze(-1)
    slope = slope.exp_()
    slope.scatter_add_(-1, aim, torch.full_like(aim, -1, dtype=slope.dtype))
    slope = slope.mul_(1 - share).add_(soft.exp_().sub_(wanted), alpha=share / temperature)
    return torch.stack([cross, divergence]), slope


def _recomputed(
    states: Tensor,
    base: Tensor,
    targets: Tensor,
    counts: Tensor | None,
    heads: tuple[nn.Module, nn.Module],
    keep: KLToBase,
    size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same sums through any head (with bias or quantised), logits made again in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    def part(some: Tensor, known: Tensor, aims: Tensor, count: Tensor | None) -> Tensor:
        logits = heads[0](some).float()
        with torch.no_grad():
            wanted = (heads[1](known).float() / keep.temperature).log_softmax(-1)
        cross = nn.functional.cross_entropy(logits, aims, reduction="none")
        soft = (logits / keep.temperature).log_softmax(-1)
        divergence = nn.functional.kl_div(soft, wanted, reduction="none", log_target=True).sum(-1)
        found = torch.stack([cross, divergence])
        return (found if count is None else found * count).sum(-1)

    sums = torch.zeros(2, dtype=torch.float32, device=states.device)
    for start in range(0, states.shape[0], size):
        chunk = slice(start, start + size)
        count = None if counts is None else counts[chunk]
        sums = sums + checkpoint(part, states[chunk], base[chunk], targets[chunk], count, use_reentrant=False)
    cross, divergence = sums.unbind()
    loss = (1 - keep.share) * cross + keep.share * divergence
    return loss, cross.detach(), divergence.detach()
