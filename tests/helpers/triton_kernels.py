"""Compare our Triton kernels with PyTorch, value and gradients; run in a process of its own:

    TRITON_INTERPRET=1 python -m tests.helpers.triton_kernels

Prints JSON: case -> largest relative difference. Triton's interpreter has to be chosen before its first import, so
a test cannot do this in its own process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from dfktrain.data.packing import conv_by_sequence
from dfktrain.engines import _triton_ops as ops
from dfktrain.engines._compared import relative_difference

EPS = 1e-6


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)


def _convolved(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    def library(x: Tensor) -> Tensor:
        taps, length = weight.shape[1], x.shape[1]
        out = functional.conv1d(
            x.transpose(1, 2), weight.unsqueeze(1), bias, padding=taps - 1, groups=len(weight)
        )
        return functional.silu(out[..., :length]).transpose(1, 2)

    return library


def cases() -> Iterator[tuple[str, float]]:
    """Yield the difference of every case."""
    for width in (5, 64, 100):
        weight = _normal(width) * 0.1
        for rows in (1, 37):
            norm = relative_difference(
                lambda x, w=weight: _unit(x) * (1 + w),
                lambda x, w=weight: ops.rms_norm(x, w, EPS),
                [_normal(2, rows, width)],
            )
            yield f"norm {rows} x {width}", norm
            length = relative_difference(
                lambda x: x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + EPS),
                ops.unit_length,
                [_normal(2, rows, width)],
            )
            yield f"length one {rows} x {width}", length
    weight = _normal(96)
    gated = relative_difference(
        lambda x, gate: _unit(x) * weight * functional.silu(gate),
        lambda x, gate: ops.gated_rms_norm(x, gate, weight, EPS),
        [_normal(53, 96), _normal(53, 96).flip(0)],
    )
    yield "gated norm", gated
    pair = [_normal(7, 501), _normal(7, 501).flip(0)]
    yield "swiglu", relative_difference(lambda gate, up: functional.silu(gate) * up, ops.swiglu, pair)
    spread = [each.T for each in pair]  # not contiguous
    yield (
        "swiglu of views",
        relative_difference(lambda gate, up: functional.silu(gate) * up, ops.swiglu, spread),
    )
    yield from _convolutions()
    yield from _cross_entropies()
    yield from _divergences()


def _divergences() -> Iterator[tuple[str, float]]:
    for vocabulary in (50, 2048, 5000):
        targets, base = (torch.arange(5) * 31) % vocabulary, 3 * _normal(5, vocabulary).flip(0)
        for part, heat, shares in ((0.1, 1.0, None), (0.7, 2.5, torch.linspace(0.2, 3, 5)), (0.4, 0.5, None)):

            def library(
                rows: Tensor,
                part: float = part,
                heat: float = heat,
                counts: Tensor | None = shares,
                base: Tensor = base,
                aims: Tensor = targets,
            ) -> Tensor:
                known, soft = ((each / heat).log_softmax(-1) for each in (base, rows))
                ce = functional.cross_entropy(rows, aims, reduction="none")
                terms = (1 - part) * ce + part * (known.exp() * (known - soft)).sum(-1)
                return terms if counts is None else terms * counts

            def ours(
                rows: Tensor,
                part: float = part,
                heat: float = heat,
                counts: Tensor | None = shares,
                base: Tensor = base,
                aims: Tensor = targets,
            ) -> Tensor:
                slope = rows.detach().clone()
                ce, kl = ops.kl_to_base_(slope, base.clone(), aims, counts, part, heat)
                return (1 - part) * ce + part * kl + ((rows - rows.detach()) * slope).sum(-1)

            name = f"KL to the base of {vocabulary}, lambda {part}, T {heat}"
            yield name, relative_difference(library, ours, [3 * _normal(5, vocabulary)])


def _cross_entropies() -> Iterator[tuple[str, float]]:
    for vocabulary in (50, 4096, 5000):
        targets = (torch.arange(7) * 31) % vocabulary
        for shares in (None, torch.linspace(0.2, 3, 7)):

            def ours(rows: Tensor, aims: Tensor = targets, counts: Tensor | None = shares) -> Tensor:
                slope = rows.detach().clone()
                terms = ops.cross_entropy_(slope, aims, counts)
                return terms + ((rows - rows.detach()) * slope).sum(-1)

            def library(rows: Tensor, aims: Tensor = targets, counts: Tensor | None = shares) -> Tensor:
                terms = functional.cross_entropy(rows, aims, reduction="none")
                return terms if counts is None else terms * counts

            name = f"cross entropy of {vocabulary}, weighed {shares is not None}"
            yield name, relative_difference(library, ours, [3 * _normal(7, vocabulary)])


def _convolutions() -> Iterator[tuple[str, float]]:
    # Every shape with every number of taps, and a bias with each of them; three blocks of channels are shown once, for
    # the interpreter is slow.
    shapes, kernels = ((2, 41), (1, 1), (1, 16), (3, 17)), ((70, 4), (8, 2), (8, 1))
    drawn = [
        (*shape, *kernel, (at + row) % 2)
        for at, shape in enumerate(shapes)
        for row, kernel in enumerate(kernels)
    ]
    for batch, length, channels, taps, biased in (*drawn, (2, 17, 130, 4, 1)):
        weight, bias = _normal(channels, taps), _normal(channels) if biased else None
        yield (
            f"convolution {batch} x {length} x {channels}, {taps} taps, bias {bool(biased)}",
            relative_difference(
                _convolved(weight, bias),
                lambda x, w=weight, b=bias: ops.causal_conv_silu(x, w, b, None),
                [_normal(batch, length, channels)],
            ),
        )
    weight = _normal(70, 4)
    for lengths in ((41,), (1, 1, 1, 38), (1, 2, 20, 3, 15), (16, 16, 9)):
        numbers = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).unsqueeze(0)
        packed = relative_difference(
            lambda x, n=numbers: conv_by_sequence(x.transpose(1, 2), weight, None, "silu", n).transpose(1, 2),
            lambda x, n=numbers: ops.causal_conv_silu(x, weight, None, n),
            [_normal(1, 41, 70)],
        )
        yield f"packed convolution {lengths}", packed
    wide = _normal(2, 33, 100)
    part = relative_difference(
        lambda x: _convolved(weight, None)(x[..., 10:80]),
        lambda x: ops.causal_conv_silu(x[..., 10:80], weight, None, None),
        [wide],
    )
    yield "convolution of a slice of channels", part


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dict(cases())))
