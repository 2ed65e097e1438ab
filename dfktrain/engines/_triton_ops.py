"""Small Triton kernels for a GPU: RMS norm, its gated form, SwiGLU, causal convolution, and cross entropy.

How it works: each replaces five to twenty PyTorch kernels that read and write the same numbers again and again.
All arithmetic is in fp32, in and out in the dtype of the input. None is tuned and no length is compiled in, so a
kernel is compiled once for a width. Weights get no gradient: adapters leave norms and convolutions frozen.

Importing this module imports Triton. With TRITON_INTERPRET=1 the kernels run on a CPU, for tests."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 2048
"""Numbers that one program of a norm holds."""
TOKENS, CHANNELS = 16, 128
"""Tile of the convolution."""
LOGITS = 4096
"""Logits of a row that a program holds at once."""


@triton.jit(do_not_specialize=["rows"])
def _norm_forward(x, gate, weight, out, scales, rows, eps, OFFSET: tl.constexpr, GATED: tl.constexpr,
                  D: tl.constexpr, BD: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BD)
    inside = (row < rows)[:, None] & (column < D)[None, :]
    at = row[:, None] * D + column[None, :]
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, axis=1) / D + eps)
    factor = tl.load(weight + column, mask=column < D, other=0.0).to(tl.float32) + OFFSET
    result = value * scale[:, None] * factor[None, :]
    if GATED:
        open_ = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
        result = result * open_ * tl.sigmoid(open_)
    tl.store(out + at, result.to(out.dtype.element_ty), mask=inside)
    tl.store(scales + row, scale, mask=row < rows)


@triton.jit(do_not_specialize=["rows"])
def _norm_backward(above, x, gate, weight, scales, d_x, d_gate, rows, OFFSET: tl.constexpr,
                   GATED: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BD)
    inside = (row < rows)[:, None] & (column < D)[None, :]
    at = row[:, None] * D + column[None, :]
    scale = tl.load(scales + row, mask=row < rows, other=0.0)
    unit = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) * scale[:, None]
    factor = tl.load(weight + column, mask=column < D, other=0.0).to(tl.float32) + OFFSET
    slope = tl.load(above + at, mask=inside, other=0.0).to(tl.float32) * factor[None, :]
    if GATED:
        open_ = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
        share = tl.sigmoid(open_)
        d_open = slope * unit * share * (1.0 + open_ * (1.0 - share))
        tl.store(d_gate + at, d_open.to(d_gate.dtype.element_ty), mask=inside)
        slope = slope * open_ * share
    mean = tl.sum(slope * unit, axis=1) / D
    result = (slope - unit * mean[:, None]) * scale[:, None]
    tl.store(d_x + at, result.to(d_x.dtype.element_ty), mask=inside)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gate: Tensor | None, weight: Tensor, eps: float, offset: float
    ) -> Tensor:
        x = x.contiguous()
        gate = None if gate is None else gate.contiguous()
        width = x.shape[-1]
        rows = x.numel() // width
        wide = triton.next_power_of_2(width)
        tile = max(1, TILE // wide)
        out, scales = torch.empty_like(x), x.new_empty(rows, dtype=torch.float32)
        if rows:
            _norm_forward[(triton.cdiv(rows, tile),)](
                x, gate, weight, out, scales, rows, eps, offset, gate is not None, width, wide, tile
            )
        ctx.save_for_backward(x, gate, weight, scales)
        ctx.sizes = (rows, width, wide, tile, offset)
        return out

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, weight, scales = ctx.saved_tensors
        rows, width, wide, tile, offset = ctx.sizes
        d_x, d_gate = torch.empty_like(x), None if gate is None else torch.empty_like(gate)
        if rows:
            _norm_backward[(triton.cdiv(rows, tile),)](
                above.contiguous(), x, gate, weight, scales, d_x, d_gate, rows, offset, gate is not None, width,
                wide, tile,
            )  # fmt: skip
        return d_x, d_gate, None, None, None


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, offset: float = 1.0) -> Tensor:
    """Return x / rms(x) * (weight + offset) over the last axis."""
    out: Tensor = _Norm.apply(x, None, weight, eps, offset)
    return out


def unit_length(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Return x / sqrt(sum of squares + eps) over the last axis."""
    width = x.shape[-1]  # its mean square is a part of the sum
    return rms_norm(x, _zeros(width, x.dtype, x.device), eps / width, offset=width**-0.5)


@lru_cache
def _zeros(width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.zeros(width, dtype=dtype, device=device)


def gated_rms_norm(x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x / rms(x) * weight * silu(gate) over the last axis."""
    out: Tensor = _Norm.apply(x, gate, weight, eps, 0.0)
    return out


@triton.jit
def _swiglu_forward(gate, up, out, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    open_ = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, (open_ * tl.sigmoid(open_) * value).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu_backward(above, gate, up, d_gate, d_up, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    slope = tl.load(above + at, mask=inside, other=0.0).to(tl.float32)
    open_ = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    share = tl.sigmoid(open_)
    d_open = slope * value * share * (1.0 + open_ * (1.0 - share))
    tl.store(d_gate + at, d_open.to(d_gate.dtype.element_ty), mask=inside)
    tl.store(d_up + at, (slope * open_ * share).to(d_up.dtype.element_ty), mask=inside)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        out = torch.empty_like(gate)
        size = gate.numel()
        if size:
            _swiglu_forward[(triton.cdiv(size, TILE),)](gate, up, out, size, TILE)
        ctx.save_for_backward(gate, up)
        return out

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        d_gate, d_up, size = torch.empty_like(gate), torch.empty_like(up), gate.numel()
        if size:
            _swiglu_backward[(triton.cdiv(size, TILE),)](
                above.contiguous(), gate, up, d_gate, d_up, size, TILE
            )
        return d_gate, d_up


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up."""
    out: Tensor = _SwiGLU.apply(gate, up)
    return out


@triton.jit
def _taps(x, weight, bias, numbers, base, row, t, sample, c, inside, stride, length, channels,
          TAPS: tl.constexpr, PACKED: tl.constexpr, BIAS: tl.constexpr):  # fmt: skip
    """The convolution before its activation, at tokens `t`, which may lie behind the end."""
    total = tl.zeros(inside.shape, dtype=tl.float32)
    if BIAS:
        total += tl.load(bias + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
    for tap in tl.static_range(TAPS):
        source = t - (TAPS - 1 - tap)
        valid = (source >= 0) & (t < length)
        if PACKED:
            valid = valid & (tl.load(numbers + row + source, mask=valid, other=-1) == sample)
        value = tl.load(
            x + base + source[:, None] * stride + c[None, :], mask=valid[:, None] & inside, other=0.0
        )
        total += (
            value.to(tl.float32)
            * tl.load(weight + c * TAPS + tap, mask=c < channels, other=0.0).to(tl.float32)[None, :]
        )
    return total


@triton.jit(do_not_specialize=["length"])
def _conv_forward(x, weight, bias, numbers, out, x_row, x_token, length, channels, TAPS: tl.constexpr,
                  PACKED: tl.constexpr, BIAS: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    batch = tl.program_id(2).to(tl.int64)
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    row = batch * length
    inside = (t < length)[:, None] & (c < channels)[None, :]
    sample = tl.zeros([BT], dtype=tl.int32)
    if PACKED:
        sample = tl.load(numbers + row + t, mask=t < length, other=-2)
    total = _taps(x, weight, bias, numbers, batch * x_row, row, t, sample, c, inside, x_token, length, channels,
                  TAPS, PACKED, BIAS)  # fmt: skip
    result = total * tl.sigmoid(total)
    tl.store(out + (row + t)[:, None] * channels + c[None, :], result.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["length"])
def _conv_backward(above, x, weight, bias, numbers, d_x, x_row, x_token, length, channels, TAPS: tl.constexpr,
                   PACKED: tl.constexpr, BIAS: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    batch = tl.program_id(2).to(tl.int64)
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    row = batch * length
    inside = (t < length)[:, None] & (c < channels)[None, :]
    own = tl.zeros([BT], dtype=tl.int32)
    if PACKED:
        own = tl.load(numbers + row + t, mask=t < length, other=-2)
    slope = tl.zeros([BT, BC], dtype=tl.float32)
    for ahead in tl.static_range(TAPS):
        reader = t + ahead
        valid = reader < length
        reads = valid[:, None] & (c < channels)[None, :]
        sample = tl.zeros([BT], dtype=tl.int32)
        if PACKED:
            sample = tl.load(numbers + row + reader, mask=valid, other=-3)
            reads = reads & (sample == own)[:, None]
        before = _taps(x, weight, bias, numbers, batch * x_row, row, reader, sample, c, reads, x_token, length,
                       channels, TAPS, PACKED, BIAS)  # fmt: skip
        share = tl.sigmoid(before)
        given = tl.load(above + (row + reader)[:, None] * channels + c[None, :], mask=reads, other=0.0)
        factor = tl.load(weight + c * TAPS + (TAPS - 1 - ahead), mask=c < channels, other=0.0).to(tl.float32)
        slope += given.to(tl.float32) * share * (1.0 + before * (1.0 - share)) * factor[None, :]
    tl.store(d_x + (row + t)[:, None] * channels + c[None, :], slope.to(d_x.dtype.element_ty), mask=inside)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, numbers: Tensor | None) -> Tensor:
        x = x if x.stride(-1) == 1 else x.contiguous()
        _, length, channels = x.shape
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        weight, numbers = weight.contiguous(), None if numbers is None else numbers.int().contiguous()
        ctx.save_for_backward(x, weight, bias, numbers)
        _conv_forward[_tiles(x)](
            x, weight, bias, numbers, out, x.stride(0), x.stride(1), length, channels, weight.shape[-1],
            numbers is not None, bias is not None, TOKENS, CHANNELS,
        )  # fmt: skip
        return out

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, numbers = ctx.saved_tensors
        _, length, channels = x.shape
        d_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        _conv_backward[_tiles(x)](
            above.contiguous(), x, weight, bias, numbers, d_x, x.stride(0), x.stride(1), length, channels,
            weight.shape[-1], numbers is not None, bias is not None, TOKENS, CHANNELS,
        )  # fmt: skip
        return d_x, None, None, None


def _tiles(x: Tensor) -> tuple[int, int, int]:
    batch, length, channels = x.shape
    return triton.cdiv(length, TOKENS), triton.cdiv(channels, CHANNELS), batch


def causal_conv_silu(x: Tensor, weight: Tensor, bias: Tensor | None, numbers: Tensor | None) -> Tensor:
    """Return silu of a causal depthwise convolution along T.

    Args:
        x: Inputs (B, T, C).
        weight: Taps (C, K).
        bias: Bias (C), or None.
        numbers: Number of the sequence of each token (B, T); no tap crosses into another. None is one sequence
            a row.
    """
    out: Tensor = _Conv.apply(x, weight, bias, numbers)
    return out


@triton.jit
def _cross_entropy(logits, targets, shares, terms, vocabulary, WEIGHED: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * vocabulary
    aim = tl.load(targets + row)
    aimed = tl.load(start + aim).to(tl.float32)  # before the second loop overwrites it
    top, total = -float("inf"), 0.0
    for block in range(0, vocabulary, BLOCK):
        at = block + tl.arange(0, BLOCK)
        value = tl.load(start + at, mask=at < vocabulary, other=-float("inf")).to(tl.float32)
        peak = tl.maximum(top, tl.max(value, axis=0))
        total = total * tl.exp(top - peak) + tl.sum(tl.exp(value - peak), axis=0)
        top = peak
    norm = top + tl.log(total)
    share = 1.0
    if WEIGHED:
        share = tl.load(shares + row)
    tl.store(terms + row, (norm - aimed) * share)
    for block in range(0, vocabulary, BLOCK):
        at = block + tl.arange(0, BLOCK)
        inside = at < vocabulary
        slope = tl.exp(tl.load(start + at, mask=inside, other=-float("inf")).to(tl.float32) - norm)
        slope = tl.where(at == aim, slope - 1.0, slope) * share
        tl.store(start + at, slope.to(logits.dtype.element_ty), mask=inside)


def cross_entropy_(logits: Tensor, targets: Tensor, shares: Tensor | None) -> Tensor:
    """Return -share * log softmax(logits)[target] of each row, and turn logits into their gradient.

    Args:
        logits: Logits (N, V); they are overwritten.
        targets: The right entry of each row (N).
        shares: Weight of each row (N) in fp32; None is 1.
    """
    terms = logits.new_empty(len(targets), dtype=torch.float32)
    if len(targets):
        _cross_entropy[(len(targets),)](
            logits, targets, shares, terms, logits.shape[1], shares is not None, LOGITS, num_warps=8
        )
    return terms


@triton.jit
def _grown(top, total, value):
    """Return maximum and sum of exponentials after one more block of values."""
    peak = tl.maximum(top, tl.max(value, axis=0))
    return peak, total * tl.exp(top - peak) + tl.sum(tl.exp(value - peak), axis=0)


@triton.jit
def _kl_to_base(logits, base, targets, shares, crosses, divergences, vocabulary, part, heat,
                WEIGHED: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    start, known = logits + row * vocabulary, base + row * vocabulary
    aim = tl.load(targets + row)
    aimed = tl.load(start + aim).to(tl.float32)  # before the second loop overwrites it
    low = -float("inf")
    top, total, soft_top, soft_total, base_top, base_total, far = low, 0.0, low, 0.0, low, 0.0, 0.0
    for block in range(0, vocabulary, BLOCK):
        at = block + tl.arange(0, BLOCK)
        inside = at < vocabulary
        value = tl.load(start + at, mask=inside, other=low).to(tl.float32)
        wanted = tl.load(known + at, mask=inside, other=low).to(tl.float32)
        top, total = _grown(top, total, value)
        soft_top, soft_total = _grown(soft_top, soft_total, value / heat)
        before = base_top
        base_top, base_total = _grown(base_top, base_total, wanted / heat)
        apart = tl.where(inside, (wanted - value) / heat, 0.0)
        far = far * tl.exp(before - base_top) + tl.sum(tl.exp(wanted / heat - base_top) * apart, axis=0)
    norm, soft_norm = top + tl.log(total), soft_top + tl.log(soft_total)
    base_norm = base_top + tl.log(base_total)
    share = 1.0
    if WEIGHED:
        share = tl.load(shares + row)
    tl.store(crosses + row, (norm - aimed) * share)
    tl.store(divergences + row, (far / base_total - base_norm + soft_norm) * share)
    for block in range(0, vocabulary, BLOCK):
        at = block + tl.arange(0, BLOCK)
        inside = at < vocabulary
        value = tl.load(start + at, mask=inside, other=low).to(tl.float32)
        wanted = tl.load(known + at, mask=inside, other=low).to(tl.float32)
        slope = tl.exp(value - norm)
        slope = tl.where(at == aim, slope - 1.0, slope) * (1.0 - part)
        slope += (tl.exp(value / heat - soft_norm) - tl.exp(wanted / heat - base_norm)) * (part / heat)
        tl.store(start + at, (slope * share).to(logits.dtype.element_ty), mask=inside)


def kl_to_base_(
    logits: Tensor, base: Tensor, targets: Tensor, shares: Tensor | None, part: float, heat: float
) -> Tensor:
    """Return CE and KL(base || student) of each row (2, N), and turn logits into the gradient of the loss.

    Args:
        logits: Logits (N, V) of the student; they are overwritten.
        base: Those of the base.
        targets: The right entry of each row (N).
        shares: Weight of each row (N) in fp32; None is 1.
        part: Part of KL in the loss.
        heat: Temperature of KL.
    """
    terms = logits.new_empty((2, len(targets)), dtype=torch.float32)
    if len(targets):
        _kl_to_base[(len(targets),)](
            logits, base, targets, shares, terms[0], terms[1], logits.shape[1], part, heat, shares is not None,
            LOGITS // 2, num_warps=8,
        )  # fmt: skip
    return terms
