"""Measure what a stage costs: time, tokens a second, and memory of the GPU or of the process."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass

import torch

GIB = 1 << 30


@dataclass(frozen=True)
class Usage:
    """Time and memory of a stage.

    Attributes:
        device: Name of the GPU, or "CPU".
        seconds: Wall time of training.
        tokens_per_second: Trained tokens a second, without padding.
        peak_gib: Most memory that torch reserved on this rank's GPU; on a CPU the most that the process held.
        before_gib: The same before the first step; the difference is what training took.
        total_gib: Memory of the GPU; None on a CPU.
    """

    device: str
    seconds: float
    tokens_per_second: float
    peak_gib: float
    before_gib: float
    total_gib: float | None

    @property
    def share(self) -> float | None:
        """Peak divided by total memory; None on a CPU."""
        return self.peak_gib / self.total_gib if self.total_gib else None


class UsageMeter:
    """Measure memory from the construction of this object on."""

    def __init__(self) -> None:
        self.cuda = torch.cuda.is_available()
        self.before = _peak(self.cuda)

    def read(self, seconds: float, tokens: int) -> Usage:
        """Return the usage so far.

        Args:
            seconds: Time of training, as the run counts it.
            tokens: Number of trained tokens.
        """
        if self.cuda:
            card = torch.cuda.get_device_properties(torch.cuda.current_device())
            name, total = card.name, round(card.total_memory / GIB, 3)
        else:
            name, total = "CPU", None
        rate = tokens / seconds if seconds > 0 else 0.0
        return Usage(name, round(seconds, 3), round(rate, 1), _peak(self.cuda), self.before, total)


def _peak(cuda: bool) -> float:
    if cuda:
        return round(float(torch.cuda.max_memory_reserved()) / GIB, 3)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB, 3)
