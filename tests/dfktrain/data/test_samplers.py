"""Batches hold samples of similar length, in an order that repeats."""

from __future__ import annotations

from dfktrain.data.samplers import LengthGroupedSampler


def test_batches_of_similar_length_hold_every_sample_once_and_repeat() -> None:
    lengths = [(7 * i) % 101 for i in range(103)]
    groups = LengthGroupedSampler(lengths, 4, seed=3)
    first = list(groups)
    assert sorted(first) == list(range(103))
    assert first == list(LengthGroupedSampler(lengths, 4, seed=3))
    groups.set_epoch(1)
    assert list(groups) != first
    spread = [
        max(part) - min(part) for part in ([lengths[i] for i in first[b : b + 4]] for b in range(0, 100, 4))
    ]
    assert sorted(spread)[len(spread) // 2] <= 8
