"""Blend weight changes on the sphere: directions along great circles, lengths linearly, layer by layer.

How it works: the change of a layer, s B A written out, is one vector. The blend of two changes is their
spherical linear interpolation (slerp). The blend of more is the weighted mean on the sphere: the point at
which the weighted sum of the great-circle tangents is zero. For two adapters both are the same, and the mean
does not depend on the order. The result lies in the span of the changes, so a Gram matrix of inner products,
each computed from the factors, decides the coefficients, and the blend is again a product of two thin
matrices.

A and B are never blended apart: one change has many factorisations, and such a blend would depend on the one
that training happened to find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkdata.common.errors import ConfigError
from dfktrain.weights import lora

LOSSLESS = 1e-6
"""Singular values below this share of a layer's largest come from rounding of the stored factors."""

_OPPOSITE = 1e-4


@dataclass(frozen=True)
class BlendedLayer:
    """The exact blend of one layer as U diag(values) V.

    Attributes:
        module: Name of the layer as the first adapter that changes it spells it.
        left: U, (out, k), fp64.
        values: Singular values, (k,), fp64, largest first.
        right: V, (k, in), fp64.
        angle: Degrees between the changes of the first two adapters; None if fewer change the layer.
    """

    module: str
    left: Tensor
    values: Tensor
    right: Tensor
    angle: float | None

    @property
    def needed_rank(self) -> int:
        """Return the rank of the blend, without what rounding of the factors adds."""
        return int((self.values > LOSSLESS * self.values[0]).sum()) if self.values[0] > 0 else 0

    def cut(self, rank: int) -> tuple[Tensor, Tensor]:
        """Return A (rank, in) and B (out, rank) in fp32 of the largest singular values, filled with zeros."""
        count = min(rank, len(self.values))
        root = self.values[:count].sqrt()
        a = torch.zeros(rank, self.right.shape[1])
        b = torch.zeros(self.left.shape[0], rank)
        a[:count] = (root[:, None] * self.right[:count]).float()
        b[:, :count] = (self.left[:, :count] * root).float()
        return a, b

    def error(self, a: Tensor, b: Tensor) -> tuple[float, float]:
        """Return the squared Frobenius norms of (what B A misses, the exact blend)."""
        exact = (self.left * self.values) @ self.right
        missed = exact - b.double() @ a.double()
        return float(missed.square().sum()), float(exact.square().sum())


def blend_layers(adapters: Sequence[lora.Adapter], weights: Sequence[float]) -> Iterator[BlendedLayer]:
    """Yield the exact blend of every layer that an adapter changes, in order of module names.

    Args:
        adapters: Adapters of one base; a layer that only some of them change is blended with zero.
        weights: One share for each adapter; they sum to 1.

    Raises:
        ConfigError: The changes of a layer point in opposite directions.
    """
    for module in sorted({module for adapter in adapters for module in adapter.factors}):
        changes = [_scaled_factors(adapter, module) for adapter in adapters]
        present = [at for at, change in enumerate(changes) if change is not None]
        factors = [change for change in changes if change is not None]
        name = adapters[present[0]].module_names[module]
        coefficients, angle = _coefficients(factors, [weights[at] for at in present], name)
        left = torch.cat([part * b for part, (_, b) in zip(coefficients, factors, strict=True)], dim=1)
        right = torch.cat([a for a, _ in factors], dim=0)
        yield BlendedLayer(name, *_thin_svd(left, right), angle)


def _scaled_factors(adapter: lora.Adapter, module: str) -> tuple[Tensor, Tensor] | None:
    """Return (A, s B) in fp64, None if the adapter does not change the layer."""
    factors = adapter.factors.get(module)
    if factors is None:
        return None
    return adapter.tensor(factors.a).double(), factors.scale * adapter.tensor(factors.b).double()


def _coefficients(
    factors: list[tuple[Tensor, Tensor]], weights: list[float], layer: str
) -> tuple[list[float], float | None]:
    """Return (c, angle) with blend = sum of c_i (s B A)_i; the angle is that of the first two, in degrees."""
    count = len(factors)
    gram = torch.zeros(count, count, dtype=torch.float64)
    for i, (a, b) in enumerate(factors):
        for j, (other_a, other_b) in enumerate(factors):
            gram[i, j] = ((b.T @ other_b) * (a @ other_a.T)).sum()
    lengths = gram.diagonal().clamp(min=0).sqrt()
    used = [at for at in range(count) if lengths[at] > 0 and weights[at] > 0]
    length = sum(weights[at] * float(lengths[at]) for at in range(count))
    cosines = (gram / (lengths[:, None] * lengths).clamp(min=1e-300)).clamp(-1, 1)
    angle = None
    if count > 1 and lengths[0] > 0 and lengths[1] > 0:
        angle = float(torch.rad2deg(torch.arccos(cosines[0, 1])))
    coefficients = [0.0] * count
    if used:
        shares = torch.tensor([weights[at] for at in used], dtype=torch.float64)
        direction = sphere_mean(cosines[used][:, used], shares / shares.sum(), layer)
        for at, part in zip(used, direction.tolist(), strict=True):
            coefficients[at] = length * part / float(lengths[at])
    return coefficients, angle


def sphere_mean(cosines: Tensor, weights: Tensor, layer: str) -> Tensor:
    """Return the coefficients of the weighted mean direction of n unit vectors.

    Args:
        cosines: Inner products of the vectors, (n, n), fp64.
        weights: Weights that sum to 1, (n,), fp64.
        layer: Name of the layer, for the error.

    Returns:
        Coefficients of the vectors, (n,), fp64; their sum is a unit vector.

    Raises:
        ConfigError: The vectors point in opposite directions, so no mean is defined.
    """
    mean = weights.clone()
    size = float(mean @ cosines @ mean) ** 0.5
    if size < _OPPOSITE:
        raise ConfigError(
            f"layer {layer}: the adapters point in opposite directions, and no way lies between them; blend "
            "them with other weights, or leave one out"
        )
    mean /= size
    for _ in range(200):
        along = (cosines @ mean).clamp(-1, 1)
        angles = torch.arccos(along)
        stretch = torch.where(
            angles > 1e-7, angles / torch.sin(angles).clamp(min=1e-12), torch.ones_like(angles)
        )
        tangent = weights * stretch - (weights * stretch * along).sum() * mean
        step = max(0.0, float(tangent @ cosines @ tangent)) ** 0.5
        if step < 1e-12:
            break
        mean = torch.cos(torch.tensor(step)) * mean + (torch.sin(torch.tensor(step)) / step) * tangent
        mean = mean / float(mean @ cosines @ mean) ** 0.5
    return mean


def _thin_svd(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, values, V of left @ right without computing the product."""
    q_left, r_left = torch.linalg.qr(left)
    q_right, r_right = torch.linalg.qr(right.T)
    u, values, v = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    return q_left @ u, values, v @ q_right.T
