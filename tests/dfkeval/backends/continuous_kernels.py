"""Print how far the Triton kernels are from their reference; run with TRITON_INTERPRET=1 in a process of its
own, because Triton reads it when it is imported."""

from __future__ import annotations

import json
import sys

import torch

from dfkeval.backends._continuous import (
    attention_kernels,
    choice_kernels,
    kernels,
    product_kernels,
    reference,
)
from dfkeval.backends._continuous.weights import AttentionLayer, DeltaLayer, Mlp, Sizes

SIZES = Sizes(
    hidden=24, vocab=64, query_heads=6, kv_heads=2, head_dim=32, rotary=16, key_heads=2, value_heads=4,
    key_dim=16, value_dim=32, taps=4, eps=1e-6,
)  # fmt: skip
SLOTS = 4
COUNT = 3


def apart(left: torch.Tensor, right: torch.Tensor) -> float:
    """Return the largest difference."""
    return float((left - right).abs().max())


def products() -> dict[str, float]:
    """Return how far projections are apart, of rows that fill a tile and of fewer, cut along their depth and not,
    in columns that a tile divides and others; and that what no tile divides is left to the library."""
    from dfkeval.backends._continuous.product_kernels import Tile

    kinds = {"wide": Tile(16, 16), "narrow": Tile(32, 16, parts=3), "gated": Tile(16, 32)}
    product_kernels.TILES |= {(kind, rows): tile for kind, tile in kinds.items() for rows in (16, 32)}
    product_kernels.WIDE = 50
    found = {}
    for rows in (1, 16, 19, 33):
        for outer, inner in ((40, 96), (56, 96), (40, 80)):
            name, x = f"{rows} x {inner} x {outer}", torch.randn(rows, inner + 3)[:, :inner]
            weight, both = torch.randn(outer, inner), torch.randn(2 * outer, inner)
            made = kernels.linear(x, weight)
            assert (made.ndim == 3) == (outer < 50 and inner == 96 and rows <= 32)
            residue, more, norm = torch.randn(rows, outer), reference.linear(x, weight), torch.rand(outer)
            ours, theirs = residue.clone(), residue.clone()
            mine = kernels.add_norm(ours, made, norm, 1e-6), kernels.gate_up(x, both)
            wanted = reference.add_norm(theirs, more, norm, 1e-6), reference.gate_up(x, both)
            apart_by = [apart(a, b) for a, b in zip((*mine, ours), (*wanted, theirs), strict=True)]
            found[name] = max(apart_by) / float(wanted[1].abs().max())
    product_kernels.TILES.clear()
    return found


WAYS = {
    "greedy": {},
    "drawn": {"temperature": 0.7},
    "min-p": {"temperature": 2.0, "min_p": 0.2},
    "top-k": {"temperature": 1.3, "top_k": 5},
    "top-p": {"temperature": 2.0, "top_p": 0.7},
    "top-k, top-p, min-p": {"temperature": 2.5, "top_k": 40, "top_p": 0.9, "min_p": 0.01},
    "penalty": {"repetition_penalty": 1.5, "temperature": 0.5},
}


def picks() -> dict[str, float]:
    """Return the share of tokens and states that come out otherwise, in every way, with and without a mask and
    forced tokens."""
    from dfkeval.backends._continuous.sampler import Sampler
    from dfkeval.backends._local.noise import words_of
    from dfkeval.types import Sampling

    choice_kernels.AT_ONCE, choice_kernels.FLOOR_AT_ONCE = 256, 512
    vocab, rows = 600, torch.randperm(COUNT)
    logits, free = 3 * torch.randn(COUNT, vocab), torch.full((COUNT,), -1)
    logits[2] = -logits[2].abs()  # none above zero
    forced = torch.where(torch.arange(COUNT) % 5 == 0, torch.arange(COUNT), free)
    mask = torch.randint(-(2**31), 2**31, (COUNT, -(-vocab // 32)), dtype=torch.int32)
    mask[1], mask[1, 2] = 0, 6  # fewer are allowed than top-k would keep
    found = {}
    for name, more in WAYS.items():
        for bits, must in ((None, free), (mask, forced)) if name in ("greedy", "drawn") else ((mask, free),):
            chosen = []
            for pick in (None, choice_kernels.pick):
                sampler = Sampler(Sampling(**more), vocab, COUNT, "cpu", pick)
                sampler.begin(rows, words_of([str(row) for row in range(COUNT)]), [(COUNT - 1, [1, 2])])
                kept = torch.zeros(COUNT, dtype=torch.long), torch.full((COUNT,), 9)
                told = [sampler.choose(logits, rows, must, bits, kept) for _ in range(1 + (name == "drawn"))]
                if name in ("greedy", "drawn"):
                    told.append(sampler.choose(logits, rows, must, bits))
                chosen.append(torch.stack([*told, *kept, sampler.steps[:COUNT]]))
            found[f"{name}, {'free' if bits is None else 'masked'}"] = float(
                (chosen[0] != chosen[1]).float().mean()
            )
    found["no numbers"] = no_numbers(rows)
    return found


def no_numbers(rows: torch.Tensor) -> float:
    """Return the share of tokens that are wrong where logits are no numbers, as in rows that nobody asked for: the
    largest number is chosen, and the first token where there is none."""
    from dfkeval.backends._continuous.sampler import Sampler
    from dfkeval.types import Sampling

    logits = torch.randn(COUNT, 600)
    logits[1], logits[2, 300:], logits[0, ::2] = float("nan"), float("nan"), float("nan")
    best = logits.nan_to_num(nan=float("-inf")).argmax(-1)
    best[1] = 0
    chosen = Sampler(Sampling(), 600, COUNT, "cpu", choice_kernels.pick).choose(
        logits, rows, torch.full((COUNT,), -1), None
    )
    return float((chosen != best).float().mean())


def main() -> None:
    """Compare each operation on random numbers; two of three slots are used, and one row is nobody's."""
    torch.manual_seed(0)
    rows, some = torch.tensor([2, 0, SLOTS]), torch.tensor([2, 0])
    nothing = Mlp(torch.ones(1), torch.ones(1), torch.ones(1))
    found = {}

    x, more = torch.randn(3, 24), torch.randn(3, 24)
    twin = x.clone()
    normed = kernels.add_norm(twin, more, torch.rand(24), 1e-6)
    torch.manual_seed(0)
    torch.randn(3, 24), torch.randn(3, 24)
    found["norm"] = apart(normed, reference.add_norm(x, more, torch.rand(24), 1e-6)) + apart(x, twin)
    both = torch.randn(3, 2 * 40)
    found["silu"] = apart(kernels.silu_mul(both), reference.silu_mul(both))
    out, gate, weight = torch.randn(3, 4, 32), torch.randn(3, 4 * 32), torch.rand(32)
    found["gate"] = apart(
        kernels.gated_norm(out, gate, weight, 1e-6), reference.gated_norm(out, gate, weight, 1e-6)
    )

    kernel, window = torch.randn(4, SIZES.channels), torch.randn(SLOTS + 1, 3, SIZES.channels)
    wide = torch.randn(3, SIZES.channels + 8)[:, : SIZES.channels]
    mine, theirs = window.clone(), window.clone()
    convolved = kernels.conv_step(wide, mine, rows, kernel)[:2]
    found["convolution"] = apart(convolved, reference.conv_step(wide[:2], theirs, some, kernel))
    found["windows"] = apart(mine[:SLOTS], theirs[:SLOTS])

    taps, inputs = torch.randint(0, 9, (4, 7)), torch.randn(9, SIZES.channels)
    found["packed convolution"] = apart(
        kernels.conv_packed(inputs, taps, kernel), reference.conv_packed(inputs, taps, kernel)
    )
    heads = torch.randn(7, SIZES.channels)[:, 16:80].unflatten(-1, (4, 16))
    found["length"] = apart(kernels.unit(heads), reference.unit(heads))

    layer = DeltaLayer(
        norm=nothing.norm, into=nothing.norm, kernel=kernel, decay=-torch.rand(4), bias=torch.randn(4),
        gate_norm=torch.rand(32), out=nothing.norm, mlp=nothing,
    )  # fmt: skip
    mixed, state = torch.randn(3, SIZES.channels), torch.randn(SLOTS + 1, 4, 16, 32)
    gates = (torch.randn(3, 4 * 32), torch.randn(3, 4), torch.randn(3, 4))
    few = tuple(each[:2] for each in gates)
    for tile in ((32, 4), (16, 1)):
        kernels.TILE = tile
        mine, theirs = state.clone(), state.clone()
        ours = kernels.delta_step(mixed, gates, mine, rows, layer, SIZES)[:2]
        found[f"rule {tile}"] = apart(ours, reference.delta_step(mixed[:2], few, theirs, some, layer, SIZES))
        found[f"states {tile}"] = apart(mine[:SLOTS], theirs[:SLOTS])

    attention = AttentionLayer(
        norm=nothing.norm, into=nothing.norm, query_norm=torch.rand(32), key_norm=torch.rand(32),
        out=nothing.norm, mlp=nothing,
    )  # fmt: skip
    capacity = 2 * attention_kernels.PIECE
    caches = [torch.randn(SLOTS + 1, 2, capacity, 32) for _ in range(2)]
    twins = [each.clone() for each in caches]
    lengths, shifts = torch.tensor([3, 0, attention_kernels.PIECE + 5, 0, 0]), torch.tensor([7, 0, -9, 0, 0])
    joined = torch.randn(3, (2 * 6 + 2 * 2) * 32)
    rest = ((lengths, shifts), torch.rand(8), attention, SIZES)
    ours = kernels.attention_step(joined, (caches[0], caches[1]), rows, *rest)[:2]
    theirs = reference.attention_step(joined[:2], (twins[0], twins[1]), some, *rest)
    found["attention"] = apart(ours, theirs)
    found["keys"] = sum(apart(a[:SLOTS], b[:SLOTS]) for a, b in zip(caches, twins, strict=True))
    found |= products() | picks()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
