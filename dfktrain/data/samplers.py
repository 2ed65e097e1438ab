"""Choose which samples share a batch: samples of similar length, in an order that is reproducible.

Guarantees:
    - Every sample comes once an epoch.
    - The order depends on the seed and the epoch only, so a resumed epoch continues the same order.
    - Every process gets the same number of batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class LengthGroupedSampler(Sampler[int]):
    """Yield indices such that consecutive batches hold samples of similar length.

    Samples are shuffled, sorted inside windows of batches and cut into batches, and the batches are shuffled.
    A batch that is not full comes last.

    Args:
        lengths: Number of tokens of each sample.
        batch: Samples of a batch, on all processes together.
        seed: Decides the order, with the epoch.
        group: Whether lengths matter; if not, the samples are only shuffled.
        window: Batches of a window.
    """

    def __init__(
        self, lengths: Sequence[int], batch: int, seed: int, *, group: bool = True, window: int = 50
    ) -> None:
        self.lengths, self.batch, self.seed = list(lengths), batch, seed
        self.group, self.window = group, window
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        if not self.group:
            yield from order
            return
        span = self.batch * self.window
        windows = [order[start : start + span] for start in range(0, len(order), span)]
        grouped = [i for window in windows for i in sorted(window, key=lambda i: (-self.lengths[i], i))]
        full = len(grouped) - len(grouped) % self.batch
        batches = [grouped[start : start + self.batch] for start in range(0, full, self.batch)]
        for place in torch.randperm(len(batches), generator=generator).tolist():
            yield from batches[place]
        yield from grouped[full:]


class TokenBudgetSampler(Sampler[list[int]]):
    """Yield this process's batches of at most `budget` tokens.

    Padded batches count their padding, packed ones have none. A sample longer than the budget is a batch of
    its own. Which samples share a batch depends on the seed, the order of batches also on the epoch, so that
    every epoch has the same number of steps. If the number of processes does not divide the number of
    batches, the first ones come twice.

    Args:
        lengths: Number of tokens of each sample.
        budget: Largest number of tokens of a batch.
        seed: Decides the batches, and with the epoch their order.
        packed: Whether samples are packed into one row.
        rank: Number of this process.
        ranks: Number of processes.
    """

    batch_size = None

    def __init__(
        self, lengths: Sequence[int], budget: int, seed: int, *, packed: bool, rank: int = 0, ranks: int = 1
    ) -> None:
        self.seed, self.rank, self.ranks, self.epoch = seed, rank, ranks, 0
        self.batches = self._cut(lengths, budget, packed)

    def _cut(self, lengths: Sequence[int], budget: int, packed: bool) -> list[list[int]]:
        order = list(LengthGroupedSampler(lengths, 1, self.seed, group=False))
        if not packed:
            order = sorted(order, key=lambda index: -lengths[index])
        batches: list[list[int]] = []
        used = 0
        for index in order:
            width = (
                lengths[index] if packed else max(lengths[index], lengths[batches[-1][0]] if batches else 0)
            )
            cost = used + width if packed else width * (len(batches[-1]) + 1 if batches else 1)
            if not batches or cost > budget:
                batches.append([])
                used = 0
            batches[-1].append(index)
            used += lengths[index]
        return batches

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.batches) // self.ranks)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.batches), generator=generator).tolist()
        missing = len(self) * self.ranks - len(order)
        for place in (order + order[:missing])[self.rank :: self.ranks]:
            yield self.batches[place]
