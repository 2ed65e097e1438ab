"""What a stage costs: time, tokens a second, and memory, on the GPU or of the process."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass

import torch

GIB = 1 << 30


@dataclass(frozen=True)
class Usage:
    """device: the GPU's name, or "CPU". seconds: wall time of training. tokens_per_second: trained tokens,
    without padding. peak_gib: most memory that torch had reserved on this rank's GPU; on a CPU the most
    that the process held. before_gib: the same before the first step, so peak less before is what training
    took. total_gib: of the card, None on a CPU."""

    device: str
    seconds: float
    tokens_per_second: float
    peak_gib: float
    before_gib: float
    total_gib: float | None

    @property
    def share(self) -> float | None:
        """peak / total, None on a CPU."""
        return self.peak_gib / self.total_gib if self.total_gib else None


class UsageMeter:
    """Measures from its making on."""

    def __init__(self) -> None:
        self.cuda = torch.cuda.is_available()
        self.before = _peak(self.cuda)

    def read(self, seconds: float, tokens: int) -> Usage:
        """The usage so far. seconds and tokens: of training, as the run counts them."""
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
