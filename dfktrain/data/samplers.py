"""Which samples share a batch: similar lengths, in an order that depends on (seed, epoch) only.

Promises: every sample comes once an epoch; a resumed epoch continues the same order; batches are balanced
over ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class LengthGroupedSampler(Sampler[int]):
    """Indices such that consecutive batches hold samples of similar length.

    Samples are shuffled, sorted inside windows of 50 batches, cut into batches, and the batches shuffled. A
    batch that is not full comes last. The order depends on (seed, epoch) only, so that a resumed epoch
    continues the same one."""

    def __init__(
        self, lengths: Sequence[int], batch: int, seed: int, *, group: bool = True, window: int = 50
    ) -> None:
        self.lengths, self.batch, self.seed, self.group, self.window = (
            list(lengths),
            batch,
            seed,
            group,
            window,
        )
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
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
        line = [i for window in windows for i in sorted(window, key=lambda i: (-self.lengths[i], i))]
        full = len(line) - len(line) % self.batch
        batches = [line[start : start + self.batch] for start in range(0, full, self.batch)]
        for place in torch.randperm(len(batches), generator=generator).tolist():
            yield from batches[place]
        yield from line[full:]


class TokenBudgetSampler(Sampler[list[int]]):
    """Batches of at most `budget` tokens; this rank's share of them.

    Padded batches count their padding, packed ones do not. A sample longer than the budget is a batch of its
    own. Which samples share a batch depends on the seed, the order of batches also on the epoch, so that
    every epoch has the same number of steps. Where the ranks do not divide the batches, the first ones come
    twice."""

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
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.batches) // self.ranks)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.batches), generator=generator).tolist()
        missing = len(self) * self.ranks - len(order)
        for place in (order + order[:missing])[self.rank :: self.ranks]:
            yield self.batches[place]
