"""Replace norms, SwiGLU, convolution, adapter products and cross entropy of a hybrid model while it trains.

How it works: layers are patched for the time of a stage. Each kind is first compared, value and gradient, with the
library's layer on the model's own device. One that does not run, is wrong, or would have to train a weight that
its kernel leaves frozen keeps the library's layer, with the reason.

Guarantees:
    - Values and gradients are those of the library's layers up to rounding, in packed rows too.
    - After the context the model is as before."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from dfkeval.models.families import family_of
from dfktrain.data.packing import conv_by_sequence
from dfktrain.engines import _delta_rule as borders
from dfktrain.engines._adapter_products import fused_products
from dfktrain.engines._base import bare
from dfktrain.engines._body import without_mask
from dfktrain.engines._compared import Compared, fault, noise, patched, text_layers
from dfktrain.engines._kernels import GDN_LIMIT, gdn_difference
from dfktrain.engines._picture_attention import picture_attention

CROSS_ENTROPY = "dfk_cross_entropy"
"""Attribute of the network that holds the kernel of the answer loss."""
KL_TO_BASE = "dfk_kl_to_base_kernel"
"""Attribute of the network that holds the kernel of the SFT-Plus loss."""


@contextmanager
def fused_layers(model: Any, enabled: bool) -> Iterator[dict[str, str]]:
    """Compute layers of a model with fused kernels within, if `enabled`.

    Args:
        model: The network with its adapter.
        enabled: Whether the configuration asks for it.

    Yields:
        Part -> "on", or the reason why the library's layers are kept; empty if `enabled` is false.
    """
    found: dict[str, str] = {}
    with ExitStack() as stack:
        if enabled:
            network = bare(model)
            found = _layers(stack, network)
            found["adapter products"] = stack.enter_context(fused_products(model, network))
        yield found


def _layers(stack: ExitStack, network: nn.Module) -> dict[str, str]:
    parts = {
        "norms": _norms,
        "gated norms": _gated_norms,
        "SwiGLU": _swiglu,
        "convolution": _convolution,
        "gated delta rule": _delta_rule,
        "cross entropy": _cross_entropy,
        "KL to the base": _kl_to_base,
        "picture attention": picture_attention,
        "padding": without_mask,
    }
    reason = _no_kernels(network)
    if reason is not None:
        return dict.fromkeys(parts, reason)
    return {part: apply(stack, network) for part, apply in parts.items()}


def _no_kernels(network: Any) -> str | None:
    """Return why no kernel of ours can run, None if they can."""
    kind = network.config.model_type
    if not family_of(kind).hybrid:
        return f"not built for {kind} models"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    on_gpu = next(network.parameters()).device.type == "cuda"
    return None if on_gpu or os.environ.get("TRITON_INTERPRET") == "1" else "no GPU"


def _norms(stack: ExitStack, network: nn.Module) -> str:
    from dfktrain.engines import _triton_ops

    def forward(norm: Any, x: Tensor) -> Tensor:
        return _triton_ops.rms_norm(x, norm.weight, norm.eps)

    layers = text_layers(network, "RMSNorm")
    return _swap(stack, layers, forward, lambda norm: [noise(norm, 64, norm.weight.shape[0])])


def _gated_norms(stack: ExitStack, network: nn.Module) -> str:
    from dfktrain.engines import _triton_ops

    def forward(norm: Any, x: Tensor, gate: Tensor) -> Tensor:
        return _triton_ops.gated_rms_norm(x, gate, norm.weight, norm.variance_epsilon)

    layers = text_layers(network, "RMSNormGated")
    return _swap(stack, layers, forward, lambda norm: [noise(norm, 64, norm.weight.shape[0]) for _ in "xg"])


def _swap(
    stack: ExitStack, layers: Sequence[Any], forward: Compared, probe: Callable[[Any], list[Tensor]]
) -> str:
    """Give layers that read their own weights a fused forward call."""
    if not layers:
        return "no such layer"
    first = layers[0]
    if any(parameter.requires_grad for layer in layers for parameter in layer.parameters()):
        return "their weights are trained"
    reason = fault(first.forward, MethodType(forward, first), probe(first))
    if reason is None:
        for layer in layers:
            stack.enter_context(patched(layer, MethodType(forward, layer)))
    return reason or "on"


def _swiglu(stack: ExitStack, network: nn.Module) -> str:
    from dfktrain.engines import _triton_ops

    def forward(mlp: Any, x: Tensor) -> Any:
        return mlp.down_proj(_triton_ops.swiglu(mlp.gate_proj(x), mlp.up_proj(x)))

    layers = text_layers(network, "MLP")
    if not layers:
        return "no such layer"
    if getattr(network.config.get_text_config(), "hidden_act", None) != "silu":
        return "its activation is not silu"
    inputs = [noise(network, 64, network.config.get_text_config().intermediate_size) for _ in "gu"]
    reason = fault(lambda gate, up: layers[0].act_fn(gate) * up, _triton_ops.swiglu, inputs)
    if reason is None:
        for layer in layers:
            stack.enter_context(patched(layer, MethodType(forward, layer)))
    return reason or "on"


def _convolution(stack: ExitStack, network: nn.Module) -> str:
    from dfktrain.engines import _triton_ops

    layers = text_layers(network, "GatedDeltaNet")
    if not layers:
        return "no such layer"
    if any(parameter.requires_grad for layer in layers for parameter in layer.conv1d.parameters()):
        return "their weights are trained"
    weight, bias = layers[0].conv1d.weight.squeeze(1), layers[0].conv1d.bias
    if layers[0].activation not in ("silu", "swish"):
        return f"its activation is {layers[0].activation}, not silu"
    numbers = torch.arange(48, device=weight.device).div(11, rounding_mode="floor").unsqueeze(0)

    def library(x: Tensor) -> Tensor:
        return conv_by_sequence(x.transpose(1, 2), weight, bias, "silu", numbers).transpose(1, 2)

    def ours(x: Tensor) -> Tensor:
        return _triton_ops.causal_conv_silu(x, weight, bias, numbers)

    reason = fault(library, ours, [noise(network, 1, 48, weight.shape[0])])
    if reason is None:
        stack.enter_context(_patched_convolution(network))
    return reason or "on"


@contextmanager
def _patched_convolution(network: Any) -> Iterator[None]:
    from dfktrain.engines import _triton_ops

    kind = network.config.model_type
    module: Any = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    library = module.causal_conv1d_fn

    def causal_conv1d_fn(
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        activation: str | None = None,
        seq_idx: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        rows = states.transpose(1, 2)
        return _triton_ops.causal_conv_silu(rows, weight, bias, seq_idx).transpose(1, 2)

    module.causal_conv1d_fn = causal_conv1d_fn
    try:
        yield
    finally:
        module.causal_conv1d_fn = library


def _delta_rule(stack: ExitStack, network: Any) -> str:
    """Let a hybrid model's layers compute the rule on one row; return "on", or why they do not."""
    layers = text_layers(network, "GatedDeltaNet")
    if not layers:
        return "no such layer"
    if not borders.takes_borders():
        return "flash-linear-attention is not installed"
    kind = network.config.model_type
    module: Any = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    library = getattr(module, borders.NAME)
    rule, first = borders.one_row(library), layers[0]
    weight = first.conv1d.weight
    half = weight.dtype != torch.float32
    seeded = [weight.device] if weight.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=seeded):  # the comparison draws numbers, the run has its own seed
            apart = gdn_difference(
                str(weight.device), first.num_v_heads, first.head_v_dim, rows=2, rule=rule,
                dtype="bfloat16" if half else "float32",
            )  # fmt: skip
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        return f"does not run here ({type(error).__name__}: {str(error)[:160]})"
    # not "difference > limit", because NaN is wrong as well
    limit = GDN_LIMIT if half else GDN_LIMIT / 100
    wrong = [name for name, difference in apart.items() if not difference <= limit]
    if wrong:
        return f"differs from the plain rule: {wrong[0]} by {apart[wrong[0]]:.1e}"
    setattr(module, borders.NAME, rule)
    stack.callback(setattr, module, borders.NAME, library)
    return "on"


def _cross_entropy(stack: ExitStack, network: Any) -> str:
    from dfktrain.engines import _triton_ops

    logits = noise(network, 16, 5000)
    targets = torch.arange(16, device=logits.device) * 300

    def library(rows: Tensor) -> Tensor:
        return nn.functional.cross_entropy(rows.float(), targets, reduction="none")

    def ours(rows: Tensor) -> Tensor:
        slope = rows.detach().clone()
        terms = _triton_ops.cross_entropy_(slope, targets, None)
        return terms + ((rows - rows.detach()).float() * slope.float()).sum(-1)

    reason = fault(library, ours, [logits])
    if reason is None:
        setattr(network, CROSS_ENTROPY, _triton_ops.cross_entropy_)
        stack.callback(delattr, network, CROSS_ENTROPY)
    return reason or "on"


def _kl_to_base(stack: ExitStack, network: Any) -> str:
    from dfktrain.engines import _triton_ops

    logits, base = noise(network, 16, 5000), noise(network, 16, 5000).flip(0)
    targets = torch.arange(16, device=logits.device) * 300
    part, heat = 0.4, 2.0

    def library(rows: Tensor) -> Tensor:
        ce = nn.functional.cross_entropy(rows.float(), targets, reduction="none")
        known, soft = ((each.float() / heat).log_softmax(-1) for each in (base, rows))
        return (1 - part) * ce + part * (known.exp() * (known - soft)).sum(-1)

    def ours(rows: Tensor) -> Tensor:
        slope = rows.detach().clone()
        ce, kl = _triton_ops.kl_to_base_(slope, base.clone(), targets, None, part, heat)
        return (1 - part) * ce + part * kl + ((rows - rows.detach()).float() * slope.float()).sum(-1)

    reason = fault(library, ours, [logits])
    if reason is None:
        setattr(network, KL_TO_BASE, _triton_ops.kl_to_base_)
        stack.callback(delattr, network, KL_TO_BASE)
    return reason or "on"
