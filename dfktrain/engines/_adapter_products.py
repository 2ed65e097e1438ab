"""A linear layer and its LoRA adapter as one autograd function.

How it works: PEFT adds scale * B(A(x)) to the layer's output with seven kernels, two of which read and write the
whole output, and keeps a node of autograd for each. Here the second product is added while it is computed, and the
backward pass is written out. Before a forward call all adapter weights are rounded to the dtype of the products in
one go, from fp32 masters, which get the gradient.

Guarantees:
    - In fp32 values and gradients are PEFT's up to rounding; in bf16 there is one rounding less.
    - A layer that is disabled or merged, or whose input has another dtype, runs PEFT's own code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from dfktrain.engines._compared import LIMIT, noise

ROUNDED = "dfk_rounded_adapters"
"""Attribute of the network that holds the rounded weights of its adapters."""


@contextmanager
def fused_products(model: Any, network: nn.Module) -> Iterator[str]:
    """Fuse the adapters of a model within.

    Args:
        model: The network with its adapter.
        network: The network below it.

    Yields:
        "on", or the reason why PEFT's products are kept.
    """
    layers = [layer for layer in model.modules() if hasattr(layer, "lora_A")]
    reason = next(filter(None, map(_fault, layers)), None) if layers else "there is no LoRA adapter"
    rounded = _Rounded(layers if reason is None else [])
    reason = reason or _differs(rounded, layers[0])
    if reason is not None:
        yield reason
        return
    # PEFT calls the network's forward without its hooks
    handle = getattr(network, "model", network).register_forward_pre_hook(lambda *_: rounded.refresh())
    plain = {layer: layer.__dict__.get("forward") for layer in layers}
    for layer in layers:
        layer.forward = MethodType(_forward(rounded, layer), layer)
    setattr(network, ROUNDED, rounded)
    try:
        yield "on"
    finally:
        handle.remove()
        delattr(network, ROUNDED)
        for layer, before in plain.items():
            del layer.forward
            if before is not None:
                layer.forward = before


def _fault(layer: Any) -> str | None:
    """Return why a layer cannot be fused, None if it can."""
    base = layer.get_base_layer()
    if (
        type(base) is not nn.Linear
        or type(layer).__name__ != "Linear"
        or type(base.weight) is not nn.Parameter
    ):
        return (
            f"a layer is {type(base).__name__} with {type(layer).__name__}, not a plain linear one with LoRA"
        )
    if len(layer.active_adapters) != 1 or layer.lora_variant:
        return "the adapter is a variant of LoRA, or there are several"
    name = layer.active_adapters[0]
    if not isinstance(layer.lora_dropout[name], nn.Identity):
        return "the adapter has dropout"
    if layer.lora_A[name].bias is not None or layer.lora_B[name].bias is not None:
        return "the adapter has a bias"
    if any(parameter.requires_grad for parameter in base.parameters()):
        return "the base's weights are trained too"
    return None


def _differs(rounded: _Rounded, layer: Any) -> str | None:
    """Return how far a fused layer is from PEFT's, in value and gradients; None if it is as near as rounding."""
    weight, name = layer.get_base_layer().weight, layer.active_adapters[0]
    masters = [layer.lora_A[name].weight, layer.lora_B[name].weight]
    before = [master.detach().clone() for master in masters]
    given = noise(layer.get_base_layer(), 64, weight.shape[1])
    plain, fused, half = (
        layer.forward,
        MethodType(_forward(rounded, layer), layer),
        weight.dtype == torch.bfloat16,
    )
    cast, layer.cast_input_dtype_enabled = getattr(layer, "cast_input_dtype_enabled", True), not half
    results = []
    try:
        with torch.no_grad():
            masters[1].fill_(0.1)  # a new adapter adds nothing
        for compute in (plain, fused):
            x = given.clone().requires_grad_(True)
            wanted = [x, *(master for master in masters if master.requires_grad)]
            with torch.autocast(x.device.type, torch.bfloat16, enabled=half), torch.enable_grad():
                rounded.refresh()
                out = compute(x)
            slope = torch.linspace(-1, 1, out.numel(), device=x.device).reshape(out.shape)
            results.append([out.detach(), *torch.autograd.grad((out.float() * slope).sum(), wanted)])
    finally:
        layer.cast_input_dtype_enabled = cast
        with torch.no_grad():
            for master, value in zip(masters, before, strict=True):
                master.copy_(value)
    far = max(float((b.float() - a.float()).norm() / a.float().norm()) for a, b in zip(*results, strict=True))
    return None if far <= (LIMIT if half else LIMIT / 100) else f"differs from PEFT's by {far:.1e}"


class _Rounded:
    """All adapter weights in the dtype of the products, rounded once a forward call."""

    def __init__(self, layers: list[Any]) -> None:
        self.masters: list[Tensor] = []
        for layer in layers:
            name = layer.active_adapters[0]
            self.masters += [layer.lora_A[name].weight, layer.lora_B[name].weight]
        self.places = {id(master): place for place, master in enumerate(self.masters)}
        self.copies: list[Tensor] = []

    def refresh(self) -> None:
        """Round the weights, if the products of this forward call are not in their own dtype."""
        dtype = _product_dtype(self.masters[0].device.type)
        if dtype is None or dtype == self.masters[0].dtype:
            self.copies = []
            return
        with torch.no_grad():
            # new memory each time: a backward pass may still hold the last ones
            self.copies = [torch.empty_like(master, dtype=dtype) for master in self.masters]
            torch._foreach_copy_(self.copies, self.masters)

    def of(self, master: Tensor) -> Tensor:
        """Return what a product is computed with."""
        return self.copies[self.places[id(master)]] if self.copies else master


def _product_dtype(device: str) -> torch.dtype | None:
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _forward(rounded: _Rounded, layer: Any) -> Any:
    name = layer.active_adapters[0]
    base, down, up = layer.get_base_layer(), layer.lora_A[name].weight, layer.lora_B[name].weight
    plain, scale = layer.forward, float(layer.scaling[name])

    def forward(self: Any, x: Tensor) -> Tensor:
        dtype = _product_dtype(x.device.type) or x.dtype
        fits = rounded.of(down).dtype == base.weight.dtype == dtype
        if self.disable_adapters or self.merged or not fits:
            return plain(x)
        out: Tensor = _Product.apply(
            x.to(dtype), base.weight, base.bias, down, up, rounded.of(down), rounded.of(up), scale
        )
        return out

    return forward


def _product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """Return left @ right in a wider dtype, without rounding in between where the device can."""
    if left.dtype == dtype:
        return left @ right
    if left.device.type == "cuda" and _writes_wider(left.device.index or 0, left.dtype, dtype):
        return torch.mm(left, right, out_dtype=dtype)
    return (left @ right).to(dtype)


@lru_cache
def _writes_wider(device: int, narrow: torch.dtype, wide: torch.dtype) -> bool:
    probe = torch.ones(16, 16, dtype=narrow, device=f"cuda:{device}")
    try:
        return bool(torch.mm(probe, probe, out_dtype=wide).dtype == wide)
    except (RuntimeError, TypeError):
        return False


class _Product(torch.autograd.Function):
    """x W^T + bias + scale * (x A^T) B^T; the masters of A and B get the gradients of their rounded copies."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down_master: Tensor,
        up_master: Tensor,
        down: Tensor,
        up: Tensor,
        scale: float,
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        middle = flat @ down.T
        out = nn.functional.linear(flat, weight, bias)
        out.addmm_(middle, up.T, alpha=scale)
        ctx.save_for_backward(flat, weight, middle, down, up)
        ctx.scale, ctx.shape, ctx.master = scale, x.shape, down_master.dtype
        return out.view(*x.shape[:-1], out.shape[-1])

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, middle, down, up = ctx.saved_tensors
        slope = above.reshape(-1, above.shape[-1])
        d_middle = slope @ up  # without the scale
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = slope @ weight
            d_x.addmm_(d_middle, down, alpha=ctx.scale)
            d_x = d_x.view(ctx.shape)
        d_down = _product(d_middle.T, flat, ctx.master).mul_(ctx.scale) if ctx.needs_input_grad[3] else None
        d_up = _product(slope.T, middle, ctx.master).mul_(ctx.scale) if ctx.needs_input_grad[4] else None
        return d_x, None, None, d_down, d_up, None, None, None
