"""Projections of a decode step's few rows as Triton kernels, where one is known to be faster than cuBLAS.

How it works: with few rows a product only reads its weights, and a library's tiles keep too few of them on
their way. A program here multiplies all rows with some columns. Narrow products are cut along their depth as
well, and what reads their sum adds the parts (`kernels.add_norm`); gate and up projection leave as
silu(gate) * up. A width that no tile divides, or a number of rows without a tile, is left to the library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

Tensor = Any
WIDE = 4096
"""Products of so many columns keep a whole GPU busy without being cut along their depth."""


@dataclass(frozen=True)
class Tile:
    """How a product is cut: columns of a program, depth of one turn, programs along the depth, warps, and turns
    that are read ahead."""

    columns: int
    depth: int
    parts: int = 1
    warps: int = 4
    stages: int = 4


TILES: dict[tuple[str, int], Tile] = {
    ("narrow", 16): Tile(32, 64, 8),
    ("narrow", 32): Tile(32, 64, 8),
    ("gated", 16): Tile(32, 128),
    ("gated", 32): Tile(32, 128),
}
"""Kind of product ("wide", "narrow" or "gated") and rows as a power of two, at least 16 -> the tile that won on an
H200 (`bench/generate_gpu.py`, piece Estep). No wide one won by more than 2 %."""


@triton.jit
def _product(
    x, weight, out, rows, outer, inner, x_row, share,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.program_id(1)
    row = tl.arange(0, ROWS)
    here, there = row < rows, column < outer
    deep = tl.arange(0, DEPTH)
    given_at = x + row[:, None] * x_row + (part * share + deep)[None, :]
    weight_at = weight + column[None, :].to(tl.int64) * inner + (part * share + deep)[:, None]
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    more = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, share, DEPTH):
        given = tl.load(given_at + start, mask=here[:, None], other=0.0)
        read = tl.load(weight_at + start, mask=there[None, :], other=0.0)
        total = tl.dot(given, read, total, input_precision="ieee")
        if GATED:
            second = tl.load(weight_at + outer.to(tl.int64) * inner + start, mask=there[None, :], other=0.0)
            more = tl.dot(given, second, more, input_precision="ieee")
    if GATED:
        gate = total.to(x.dtype.element_ty).to(tl.float32)
        gate = (gate * tl.sigmoid(gate)).to(x.dtype.element_ty).to(tl.float32)
        total = gate * more.to(x.dtype.element_ty).to(tl.float32)
    target = out + (part * rows + row)[:, None].to(tl.int64) * outer + column[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=here[:, None] & there[None, :])


@triton.jit
def _silu_mul(both, out, width, stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    gate = tl.load(both + row * stride + at, mask=inside, other=0.0)
    up = tl.load(both + row * stride + width + at, mask=inside, other=0.0)
    wide = gate.to(tl.float32)
    wide = (wide * tl.sigmoid(wide)).to(gate.dtype).to(tl.float32) * up.to(tl.float32)
    tl.store(out + row * width + at, wide.to(out.dtype.element_ty), mask=inside)


def silu_mul(gate_up: Tensor) -> Tensor:
    """Return silu(first half) * second half."""
    width = gate_up.shape[-1] // 2
    out = gate_up.new_empty(gate_up.shape[0], width)
    _silu_mul[(gate_up.shape[0], triton.cdiv(width, 1024))](
        gate_up, out, width, gate_up.stride(0), BLOCK=1024
    )
    return out


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return the projection of few rows (B, outer), or its parts (parts, B, outer) in fp32."""
    outer, inner = weight.shape
    tile = _tile("wide" if outer >= WIDE else "narrow", x, inner)
    if tile is None:
        return torch.nn.functional.linear(x, weight)
    return product(x, weight, outer, tile, gated=False)


def gate_up(x: Tensor, weight: Tensor) -> Tensor:
    """Return silu(first half) * second half of the projection of few rows."""
    tile = _tile("gated", x, weight.shape[1])
    if tile is None:
        return silu_mul(torch.nn.functional.linear(x, weight))
    return product(x, weight, weight.shape[0] // 2, tile, gated=True)


def product(x: Tensor, weight: Tensor, outer: int, tile: Tile, *, gated: bool) -> Tensor:
    """Return the product with one tile."""
    rows, inner = x.shape
    shape = (rows, outer) if tile.parts == 1 else (tile.parts, rows, outer)
    out = torch.empty(shape, dtype=x.dtype if tile.parts == 1 else torch.float32, device=x.device)
    _product[(triton.cdiv(outer, tile.columns), tile.parts)](
        x, weight, out, rows, outer, inner, x.stride(0), inner // tile.parts,
        ROWS=block_of(rows), COLUMNS=tile.columns, DEPTH=tile.depth, GATED=gated,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return out


def block_of(rows: int) -> int:
    """Return the rows of a program, as `TILES` counts them."""
    return max(16, int(triton.next_power_of_2(rows)))


def fits(tile: Tile, inner: int) -> bool:
    """Return whether a tile divides a product's depth."""
    return inner % (tile.parts * tile.depth) == 0


def _tile(kind: str, x: Tensor, inner: int) -> Tile | None:
    """Return the tile of a product; none in fp32 on a GPU, whose tiles would not fit."""
    if x.is_cuda and x.dtype == torch.float32:
        return None
    tile = TILES.get((kind, block_of(x.shape[0])))
    return tile if tile is not None and fits(tile, inner) and (tile.parts == 1 or kind == "narrow") else None
