"""The loss of SFT-Plus: learn the answers and stay close to the base's predictions at the same tokens.

    loss of a scored token = (1 - lambda) * CE(target, student) + lambda * KL(base || student)

KL is between softmax(logits / T) of both, without the factor T^2 that distillation uses: a higher T flattens
both distributions and so reduces the influence of the base, as documented for the setting.

How it works: the teacher is the same network with its adapter disabled, or a frozen copy if all weights are
trained. It returns hidden states only. Where no adapter sits before the language model, it takes the student's
embeddings and runs no vision tower. Logits of both are computed at scored positions, chunk by chunk, and the
gradient in the forward pass, as in `dfktrain.losses.cross_entropy`.

Guarantees:
    - Loss and gradient equal the plain formula up to fp32 rounding.
    - Logits take no more memory than in plain training: a chunk has four tables and a quarter of the positions.
    - The teacher is deterministic (dropout is off) and never trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dfkdata.common.errors import ConfigError
from dfktrain.data.masking import IGNORE
from dfktrain.losses.cross_entropy import chunk_logits, is_plain, scored_states, scored_weights, vocabulary

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None, float, float], Tensor]
"""Computes CE and KL: see `kl_to_base_loss`."""

TABLES = 4
"""Tables of logits in memory for a chunk: the student's, the base's, and both at temperature T."""


class Teacher(Protocol):
    """The base as a teacher.

    Attributes:
        head: Its output projection.
    """

    head: nn.Module

    def states(self, inputs: dict[str, Any], embedded: dict[str, Any] | None = None) -> Tensor:
        """Return the base's last hidden states (B, T, H), without gradients.

        Args:
            inputs: Inputs of the network's body.
            embedded: Inputs of its language model in the student's call, as `embedded_inputs` notes them.
        """


@dataclass(frozen=True)
class KLToBase:
    """The SFT-Plus setting of a stage.

    Attributes:
        teacher: The base.
        share: lambda, above 0 and below 1.
        temperature: T.
    """

    teacher: Teacher
    share: float
    temperature: float


class AdapterDisabledTeacher:
    """The student's own network with every adapter layer disabled.

    PEFT's own `disable_adapter` turns gradients on when it ends, which would unfreeze what a stage has frozen;
    this class only switches the layers.

    Args:
        model: The model with its adapter.
        net: The network below the adapter.

    Raises:
        ConfigError: The adapter has no layers that can be disabled.
    """

    def __init__(self, model: Any, net: Any) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        self.net = net
        self.head = net.get_output_embeddings()
        self.layers = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
        if not self.layers:
            raise ConfigError("sft_plus: this adapter cannot be switched off; use adapter.kind lora or full")
        language = getattr(net.model, "language_model", None)
        # embeddings are made outside of the language model's call, with their adapter if they have one
        after = set() if language is None else set(map(id, language.layers.modules()))
        self.language = language if all(id(layer) in after for layer in self.layers) else None

    def states(self, inputs: dict[str, Any], embedded: dict[str, Any] | None = None) -> Tensor:
        """See `Teacher.states`; the network is as before afterwards."""
        body, given = self.net.model, inputs | {"use_cache": False}
        if self.language is not None and embedded:
            body, given = self.language, embedded
        was_training, switches = self.net.training, [layer._disable_adapters for layer in self.layers]
        self.net.eval()
        for layer in self.layers:
            layer._disable_adapters = True
        try:
            with torch.no_grad():
                states: Tensor = body(**given).last_hidden_state
                return states
        finally:
            for layer, switch in zip(self.layers, switches, strict=True):
                layer._disable_adapters = switch
            self.net.train(was_training)


class FrozenTeacher:
    """A frozen copy of the network as it is now; it needs the memory of all weights once more.

    Args:
        net: The network.
    """

    def __init__(self, net: Any) -> None:
        # one deepcopy of both, so that a tied head stays tied
        body, head = copy.deepcopy((net.model, net.get_output_embeddings()))
        self.body, self.head = body.eval().requires_grad_(False), head.eval().requires_grad_(False)

    def states(self, inputs: dict[str, Any], embedded: dict[str, Any] | None = None) -> Tensor:
        """See `Teacher.states`; a copy whose tower was trained has embeddings of its own."""
        with torch.no_grad():
            return self.body(**inputs, use_cache=False).last_hidden_state


@contextmanager
def embedded_inputs(body: Any) -> Iterator[dict[str, Any]]:
    """Note what the language model is called with within: text and pictures as embeddings, and positions.

    Args:
        body: The network below the head.

    Yields:
        A dict that the call fills; it stays empty if the network has no language model of its own.
    """
    seen: dict[str, Any] = {}
    language = getattr(body, "language_model", None)
    if language is None:
        yield seen
        return

    def note(module: nn.Module, arguments: Any, inputs: dict[str, Any]) -> None:
        if not arguments:
            seen.update(inputs)

    handle = language.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def kl_to_base(net: Any, setting: KLToBase | None) -> Iterator[None]:
    """Let the forward call of a network return the SFT-Plus loss within.

    Args:
        net: A network that `dfktrain.losses.attach.score_answers` has patched, without its adapter's wrapper.
        setting: The setting; None leaves the plain answer loss.
    """
    net.dfk_kl_to_base = setting
    try:
        yield
    finally:
        net.dfk_kl_to_base = None


def kl_to_base_loss(
    hidden: Tensor,
    base_hidden: Tensor,
    labels: Tensor,
    heads: tuple[nn.Module, nn.Module],
    setting: KLToBase,
    chunk: int | None = None,
    weights: Tensor | None = None,
    kernel: Kernel | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of loss, CE and KL over scored tokens, scalars in fp32; only the loss has a gradient.

    Args:
        hidden: Last hidden states (B, T, H) of the student.
        base_hidden: Those of the base.
        labels: Labels (B, T), -100 at tokens without loss; state t-1 predicts label t.
        heads: Output projections of student and base.
        setting: lambda and T.
        chunk: Number of positions of a chunk; None takes as many as `chunk_logits` allows.
        weights: Weights (B, T) of the labels' terms; None is 1 everywhere.
        kernel: Takes logits and the base's (N, V), targets (N), weights (N) or None, lambda and T, returns CE and KL
            (2, N), and turns the logits into their gradient; None is PyTorch.
    """
    states, targets = scored_states(hidden, labels)
    base = base_hidden[:, :-1][labels[:, 1:] != IGNORE]
    counts = scored_weights(weights, labels)
    student, teacher = heads
    size = chunk or max(1, chunk_logits(hidden.device) // TABLES // max(1, vocabulary(student)))
    if is_plain(student) and is_plain(teacher):
        settings = (setting.share, setting.temperature, size)
        sums: tuple[Tensor, Tensor, Tensor] = _KLToBaseLoss.apply(
            states, student.weight, base, teacher.weight, targets, counts, settings, kernel
        )
        return sums
    return _recomputed(states, base, targets, counts, heads, setting, size)


class _KLToBaseLoss(torch.autograd.Function):
    """The three sums, with the gradient of the first."""

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
        kernel: Kernel | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        share, temperature, size = settings
        needs_states, needs_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        sums = torch.zeros(2, dtype=torch.float32, device=states.device)
        d_states = torch.empty_like(states) if needs_states else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        head, base_head = weight.to(states.dtype), base_weight.to(base.dtype)
        for start in range(0, states.shape[0], size):
            part = slice(start, start + size)
            tables = states[part] @ head.T, base[part] @ base_head.T
            count = None if counts is None else counts[part]
            if kernel is not None and tables[0].dtype == tables[1].dtype:
                sums += kernel(*tables, targets[part], count, share, temperature).sum(-1)
                slope = tables[0]  # which holds its gradient now
            else:
                wide = tables[0].float(), tables[1].float()
                terms, slope = _chunk(*wide, targets[part].unsqueeze(-1), share, temperature)
                if count is not None:
                    terms, slope = terms * count, slope.mul_(count.unsqueeze(-1))
                sums += terms.sum(-1)
                slope = slope.to(states.dtype)
            del tables
            if d_states is not None:
                d_states[part] = slope @ head
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
            *(None,) * 6,
        )


def _chunk(
    logits: Tensor, base: Tensor, aim: Tensor, share: float, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return CE and KL (2, N) and the gradient of the loss in the logits (N, V); it overwrites the tables."""
    # d CE / d z = softmax(z) - target, d KL / d z = (softmax(z / T) - softmax(b / T)) / T
    soft = logits / temperature
    soft -= torch.logsumexp(soft, dim=-1, keepdim=True)
    base = base.div_(temperature)
    base -= torch.logsumexp(base, dim=-1, keepdim=True)
    base_probabilities = base.exp()
    divergence = base.sub_(soft).mul_(base_probabilities).sum(-1)
    slope = logits.sub_(torch.logsumexp(logits, dim=-1, keepdim=True))
    cross = -slope.gather(-1, aim).squeeze(-1)
    slope = slope.exp_()
    slope.scatter_add_(-1, aim, torch.full_like(aim, -1, dtype=slope.dtype))
    slope = slope.mul_(1 - share).add_(soft.exp_().sub_(base_probabilities), alpha=share / temperature)
    return torch.stack([cross, divergence]), slope


def _recomputed(
    states: Tensor,
    base: Tensor,
    targets: Tensor,
    counts: Tensor | None,
    heads: tuple[nn.Module, nn.Module],
    setting: KLToBase,
    size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same sums for any head (with bias or quantised); logits are recomputed in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    def part(some: Tensor, known: Tensor, aims: Tensor, count: Tensor | None) -> Tensor:
        logits = heads[0](some).float()
        with torch.no_grad():
            base_soft = (heads[1](known).float() / setting.temperature).log_softmax(-1)
        cross = nn.functional.cross_entropy(logits, aims, reduction="none")
        soft = (logits / setting.temperature).log_softmax(-1)
        divergence = nn.functional.kl_div(soft, base_soft, reduction="none", log_target=True).sum(-1)
        terms = torch.stack([cross, divergence])
        return (terms if count is None else terms * count).sum(-1)

    sums = torch.zeros(2, dtype=torch.float32, device=states.device)
    for start in range(0, states.shape[0], size):
        chunk = slice(start, start + size)
        count = None if counts is None else counts[chunk]
        sums = sums + checkpoint(part, states[chunk], base[chunk], targets[chunk], count, use_reentrant=False)
    cross, divergence = sums.unbind()
    loss = (1 - setting.share) * cross + setting.share * divergence
    return loss, cross.detach(), divergence.detach()
