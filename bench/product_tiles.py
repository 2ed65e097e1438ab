"""Find the tiles of projections of few rows that beat cuBLAS on this card, over the weights of all layers."""

from __future__ import annotations

from typing import Any

import pieces

CANDIDATES: dict[str, tuple[tuple[int, ...], ...]] = {
    "wide": ((16, 128), (32, 128), (32, 64, 1, 4, 5), (16, 256, 1, 4, 3), (64, 128), (32, 256, 1, 8, 3)),
    "gated": ((16, 128), (32, 128), (32, 64, 1, 4, 5), (16, 256, 1, 4, 3), (32, 128, 1, 8, 3)),
    "narrow": ((16, 128, 2), (16, 128, 4), (32, 128, 4), (32, 64, 8), (16, 256, 2), (64, 64, 8)),
}
"""Tiles that may win (`product_kernels.Tile`)."""

ROWS = (16, 32)
LIMIT = 1e-2
"""Largest relative difference from cuBLAS that is rounding in bf16."""


def found(backend: Any) -> dict[str, Any]:
    """Return the microseconds of a projection by cuBLAS and by each tile, and the tiles that won.

    Gate and up projection include SiLU."""
    from dfkeval.backends._continuous import product_kernels

    layers = backend.engine.stepper.decoder.weights.layers
    weights = {
        "wide": [each.into for each in layers],
        "narrow": [weight for each in layers for weight in (each.out, each.mlp.down)],
        "gated": [each.mlp.gate_up for each in layers],
    }
    product_kernels.TILES.clear()
    made: dict[str, Any] = {"won": {}, "us": {}}
    for rows in ROWS:
        for kind, every in weights.items():
            times = _times(kind, rows, every)
            made["us"][f"{kind}, {rows} rows"] = times
            numbers = {name: each for name, each in times.items() if isinstance(each, float)}
            best = min(numbers, key=lambda name, numbers=numbers: numbers[name])  # type: ignore[misc]
            if best != "cuBLAS":
                tile = next(each for each in CANDIDATES[kind] if str(each) == best)
                made["won"].setdefault(kind, {})[rows] = tile
    return made


def _times(kind: str, rows: int, every: list[Any]) -> dict[str, float | str]:
    """Return cuBLAS or a tile -> microseconds a product, or what is wrong with it."""
    import torch

    from dfkeval.backends._continuous import product_kernels as kernels

    made = {"device": every[0].device, "dtype": every[0].dtype}
    pairs = [(torch.randn(rows, each.shape[1], **made), each) for each in every]
    plain = kernels.gate_up if kind == "gated" else kernels.linear

    def library(count: int = len(pairs)) -> list[Any]:
        return [plain(x, weight) for x, weight in pairs[:count]]

    times: dict[str, float | str] = {"cuBLAS": graph_us(library, len(pairs))}
    wanted = library(2)
    for numbers in CANDIDATES[kind]:
        tile = kernels.Tile(*numbers)
        if not all(kernels.fits(tile, each.shape[1]) for each in every):
            continue

        def own(count: int = len(pairs), tile: Any = tile) -> list[Any]:
            gated = kind == "gated"
            return [
                kernels.product(x, weight, weight.shape[0] // (1 + gated), tile, gated=gated)
                for x, weight in pairs[:count]
            ]

        sums = [each.sum(0) if each.ndim == 3 else each for each in own(2)]
        apart = max(
            float((a.float() - b.float()).norm() / b.float().norm())
            for a, b in zip(sums, wanted, strict=True)
        )
        times[str(numbers)] = graph_us(own, len(pairs)) if apart < LIMIT else f"wrong by {apart:.1e}"
    return times


def graph_us(run: Any, calls: int) -> float:
    """Return the microseconds of one of `calls` calls, replayed as a CUDA graph."""
    import torch

    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    graph.replay()
    events[0].record()
    for _ in range(10):
        graph.replay()
    events[1].record()
    torch.cuda.synchronize()
    return round(1e3 * float(events[0].elapsed_time(events[1])) / 10 / calls, 2)


def use_known(bench: Any) -> None:
    """Let few rows be multiplied by the tiles that the piece Estep has found on this card."""
    known = pieces.read_results(bench.work).get("generate-Estep", {}).get("products", {}).get("won", {})
    if not (bench.cuda and known):
        return
    from dfkeval.backends._continuous import product_kernels

    for kind, sizes in known.items():
        for rows, tile in sizes.items():
            product_kernels.TILES[kind, int(rows)] = product_kernels.Tile(*tile)
