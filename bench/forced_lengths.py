"""End every answer at the length that its prompt asks for, whatever generates it; time the decode steps."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any


class ForcedLengths:
    """Lets every answer end at the length that its prompt asks for.

    ids: token -> length. ends: the tokens that end a turn."""

    def __init__(self, ids: dict[int, int], ends: list[int]) -> None:
        self.ids, self.ends = ids, ends
        self.longest = max(ids.values())
        self.step = 0
        self.bias: Any = None
        self.stamps: list[tuple[int, int, Any]] = []

    def install(self, network: type) -> None:
        """Wrap `forward` of the model's class."""
        plain: Callable[..., Any] = network.forward  # type: ignore[attr-defined]

        @functools.wraps(plain)
        def forward(net: Any, *inputs: Any, **named: Any) -> Any:
            out = plain(net, *inputs, **named)
            ids = named.get("input_ids")
            if ids is not None and getattr(out, "logits", None) is not None:
                self.apply(ids, out.logits)
            return out

        network.forward = forward  # type: ignore[attr-defined]

    def apply(self, ids: Any, logits: Any) -> None:
        """Change the last position's logits in place, and take the time."""
        import torch

        if ids.shape[1] > 1:
            lengths = sum((ids == token).any(1).long() * length for token, length in self.ids.items())
            steps = torch.arange(self.longest + 1, device=ids.device).unsqueeze(1)
            early = steps < (lengths - 1).unsqueeze(0)
            self.bias = torch.where(early, float("-inf"), 1e30).to(logits.dtype)
            self.step = 0
        logits[:, -1, self.ends[1:]] = float("-inf")
        logits[:, -1, self.ends[0]] = self.bias[min(self.step, self.longest)]
        self.stamps.append((ids.shape[0], self.step, _stamp()))
        self.step += 1

    def step_ms(self, rows: int) -> float | None:
        """Return the median milliseconds between two decode steps of `rows` rows."""
        gaps = []
        for (before, at, start), (now, then, end) in zip(self.stamps, self.stamps[1:], strict=False):
            if before == now == rows and then == at + 1 and at > 1:
                gaps.append(
                    start.elapsed_time(end) if hasattr(start, "elapsed_time") else 1e3 * (end - start)
                )
        return statistics.median(gaps) if gaps else None


def _stamp() -> Any:
    import torch

    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
