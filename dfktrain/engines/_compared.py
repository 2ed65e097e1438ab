"""Compare a fused call with the library's before it takes its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

LIMIT = 2e-2
"""Largest relative difference from the library's layer that counts as rounding in bf16; in fp32 it is a
hundredth."""

Compared = Callable[..., Tensor]


def noise(like: nn.Module, *shape: int) -> Tensor:
    parameter = next(like.parameters())
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator).to(parameter.device, parameter.dtype)


def fault(library: Compared, fused: Compared, inputs: list[Tensor]) -> str | None:
    """Return why a fused call cannot replace the library's, None if it can."""
    from triton.errors import TritonError

    try:
        difference = relative_difference(library, fused, inputs)
    except (RuntimeError, TypeError, ValueError, AttributeError, TritonError) as error:
        return f"does not run here ({type(error).__name__}: {str(error)[:160]})"
    limit = LIMIT if inputs[0].dtype != torch.float32 else LIMIT / 100
    # not "difference > limit", because NaN is wrong as well
    return None if difference <= limit else f"differs from the library's by {difference:.1e}"


def relative_difference(library: Compared, fused: Compared, inputs: Sequence[Tensor]) -> float:
    """Return the largest of |fused - library| / |library| over the value and the gradients of all inputs."""
    results = []
    for compute in (library, fused):
        given = [each.clone().requires_grad_(True) for each in inputs]
        with torch.enable_grad():
            out = compute(*given)
        weight = torch.linspace(-1, 1, out.numel(), device=out.device).reshape(out.shape)
        gradients = torch.autograd.grad((out.float() * weight).sum(), given)
        results.append([each.float() for each in (out.detach(), *gradients)])
    return max(float((b - a).norm() / a.norm()) for a, b in zip(*results, strict=True))


@contextmanager
def patched(layer: nn.Module, forward: Any) -> Iterator[None]:
    """Let an instance use another forward call within; its class keeps its own."""
    before = layer.__dict__.get("forward")
    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward
        if before is not None:
            layer.forward = before


def text_layers(network: nn.Module, suffix: str) -> list[Any]:
    """Return the text layers of a class, without its prefix; vision towers have other classes."""
    language = getattr(network, "model", network)
    language = getattr(language, "language_model", language)
    prefix = type(language).__name__.removesuffix("TextModel").removesuffix("Model")
    return [layer for layer in language.modules() if type(layer).__name__ == prefix + suffix]
