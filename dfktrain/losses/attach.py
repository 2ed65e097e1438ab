"""Attach the loss to a model: its forward call returns the loss of the answer.

The instance is patched, so wrappers (PEFT, DDP, FSDP) still see one forward call, and the head computes
logits at scored positions only. This module imports transformers, which Unsloth has to patch first, so it is
imported once the base is loaded."""

from __future__ import annotations

import inspect
import types
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput

from dfktrain.engines import CROSS_ENTROPY, KL_TO_BASE, bare
from dfktrain.losses.cross_entropy import answer_loss
from dfktrain.losses.kl_to_base import embedded_inputs, kl_to_base_loss


@dataclass
class AnswerOutput(ModelOutput):
    """What the forward call returns.

    Attributes:
        loss: The loss summed over scored tokens, which is minimised.
        ce: Its cross entropy, with SFT-Plus only.
        kl: Its divergence from the base, with SFT-Plus only.
    """

    loss: Tensor | None = None
    ce: Tensor | None = None
    kl: Tensor | None = None


def score_answers(model: Any) -> None:
    """Make `model(..., labels=...)` return an `AnswerOutput` with the loss summed over scored tokens.

    Without labels the model computes what it did before. The forward call also takes `loss_weights`, the
    weights (B, T) of the labels' terms. Within `kl_to_base()` the loss is that of SFT-Plus.

    Args:
        model: The network, with or without an adapter; it is changed.
    """
    network = bare(model)
    plain = network.forward

    def forward(
        self: Any, *args: Any, labels: Tensor | None = None, loss_weights: Tensor | None = None, **inputs: Any
    ) -> Any:
        if labels is None:
            return plain(*args, **inputs)
        return _scored(self, labels, loss_weights, inputs)

    forward.__signature__ = inspect.signature(type(network).forward)  # type: ignore[attr-defined] # `generate` reads it
    network.forward = types.MethodType(forward, network)


def _scored(network: Any, labels: Tensor, weights: Tensor | None, inputs: dict[str, Any]) -> Any:
    inputs = {name: value for name, value in inputs.items() if value is not None and name != "use_cache"}
    head, setting = network.get_output_embeddings(), getattr(network, "dfk_kl_to_base", None)
    if setting is None:
        hidden = network.model(**inputs, use_cache=False).last_hidden_state
        kernel = getattr(network, CROSS_ENTROPY, None)
        return AnswerOutput(loss=answer_loss(hidden, labels, head, weights=weights, kernel=kernel))
    with embedded_inputs(network.model) as embedded:
        hidden = network.model(**inputs, use_cache=False).last_hidden_state
    base_hidden = setting.teacher.states(inputs, embedded)
    heads = head, setting.teacher.head
    kernel = getattr(network, KL_TO_BASE, None)
    loss, ce, kl = kl_to_base_loss(
        hidden, base_hidden, labels, heads, setting, weights=weights, kernel=kernel
    )
    return AnswerOutput(loss=loss, ce=ce, kl=kl)
