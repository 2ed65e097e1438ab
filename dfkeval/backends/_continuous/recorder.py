"""Record fixed work on a GPU once as a CUDA graph and replay it; elsewhere the work is called each time.

How it works: a decode step is hundreds of short kernels, which the host cannot launch as fast as the device
runs them. A graph is launched as one. What it reads and writes has fixed addresses, so inputs are copied into
tensors that it knows, and its output is the same tensor each time."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

Tensor = Any
WARM_UP = 2
"""Calls before a recording, in which kernels are tuned and libraries set up."""


class Recorder:
    """Graphs by what they compute.

    Attributes:
        records: Whether work is recorded.
    """

    def __init__(self, device: Any) -> None:
        self.records = device.type == "cuda"
        self._made: dict[Hashable, tuple[Any, Tensor]] = {}
        self._pool: Any = None

    def known(self, key: Hashable) -> bool:
        """Return whether this work is recorded, or need not be."""
        return not self.records or key in self._made

    def record(self, key: Hashable, work: Callable[[], Tensor]) -> None:
        """Record work; it is called a few times, so its inputs must be harmless now."""
        import torch

        for _ in range(WARM_UP):
            work()
        torch.cuda.synchronize()
        graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        with torch.cuda.stream(
            side
        ):  # torch.cuda.graph would also collect garbage and drop the cache each time
            graph.capture_begin(
                **({"pool": self._pool} if self._pool else {}), capture_error_mode="thread_local"
            )
            out = work()
            graph.capture_end()
        self._pool = self._pool or graph.pool()
        self._made[key] = (graph, out)

    def run(self, key: Hashable, work: Callable[[], Tensor]) -> Tensor:
        """Do the work and return its output, which the next run of the same work overwrites."""
        if not self.records:
            return work()
        graph, out = self._made[key]
        graph.replay()
        return out
