"""Sequences written one behind the other for one prefill, without padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Tensor = Any


@dataclass(frozen=True)
class PromptPart:
    """What one slot reads next.

    Args:
        slot: The slot, which holds the `start` tokens before.
        start: Tokens that it holds.
        ids: The tokens.
        positions: (3, T) places of the rotary embedding, on the CPU; None counts on from `start`.
    """

    slot: int
    start: int
    ids: Sequence[int]
    positions: Tensor = None


@dataclass(frozen=True)
class Packed:
    """Index tensors of one prefill of N sequences with T tokens together.

    Args:
        parts: The sequences.
        ids, places: (T,) tokens, (3, T) places of the rotary embedding.
        slots: (N,) slot of each sequence.
        borders: (N + 1,) where each begins and the last ends, on the device and on the CPU.
        last: (N,) index of each sequence's last token.
        taps: (taps, T) rows of "windows, then inputs" that each token's convolution reads.
        windows: (N * (taps - 1),) rows of the same that stay behind as windows.
        spread: (T,) index of each token in a (N, longest) rectangle.
        longest: Tokens of the longest sequence.
        new: (T,) slots and (T,) places of these tokens' keys.
        known: (L,) slots and (L,) places of all keys that they may see, those of a sequence behind each other.
        key_borders: (N + 1,) where each sequence's keys begin, as int32.
        lengths, key_lengths: Tokens and keys of each sequence.
    """

    parts: tuple[PromptPart, ...]
    ids: Tensor
    places: Tensor
    slots: Tensor
    borders: Tensor
    borders_cpu: Tensor
    last: Tensor
    taps: Tensor
    windows: Tensor
    spread: Tensor
    longest: int
    new: tuple[Tensor, Tensor]
    known: tuple[Tensor, Tensor]
    key_borders: Tensor
    lengths: list[int]
    key_lengths: list[int]


def pack(parts: Sequence[PromptPart], taps: int, send: Callable[[Tensor], Tensor]) -> Packed:
    """Return the sequences as one.

    Args:
        parts: The sequences.
        taps: Width of the convolution.
        send: Puts a tensor on the device.
    """
    import torch

    lengths = torch.tensor([len(part.ids) for part in parts])
    borders = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    owner = torch.arange(len(parts)).repeat_interleave(lengths)
    local = torch.arange(int(borders[-1])) - borders[owner]
    before, longest = taps - 1, int(lengths.max())
    offset = len(parts) * before
    places = [
        part.positions
        if part.positions is not None
        else torch.arange(part.start, part.start + len(part.ids)).expand(3, -1)
        for part in parts
    ]

    def source(at: Any, row: Any) -> Any:
        """Return the row of "windows, then inputs" for place `at` of a sequence, negative in its window."""
        return torch.where(at < 0, row * before + before + at, offset + borders[row] + at)

    rows = torch.arange(len(parts))
    behind = [source(lengths - back, rows) for back in range(before, 0, -1)]
    made = (
        torch.tensor([token for part in parts for token in part.ids]),
        torch.cat(places, dim=1),
        torch.tensor([part.slot for part in parts]),
        borders,
        borders[1:] - 1,
        torch.stack([source(local - back, owner) for back in range(before, -1, -1)]),
        torch.stack(behind, dim=1).flatten(),
        owner * longest + local,
        *_places(parts),
    )
    ids, where, slots, ends, last, reads, windows, spread, *keys = map(send, made)
    return Packed(
        tuple(parts), ids, where, slots, ends, borders, last, reads, windows, spread, longest,
        (keys[0], keys[1]), (keys[2], keys[3]), keys[4], lengths.tolist(),
        [part.start + len(part.ids) for part in parts],
    )  # fmt: skip


def _places(parts: Sequence[PromptPart]) -> tuple[Tensor, ...]:
    """Return slots and places of the new keys, slots and places of all keys, and the borders of the latter."""
    import torch

    from dfkeval.models.attention import borders_of

    ends = [part.start + len(part.ids) for part in parts]
    slots = torch.tensor([part.slot for part in parts])
    places = [torch.arange(end) for end in ends]
    new = [place[part.start :] for place, part in zip(places, parts, strict=True)]
    counts = [torch.tensor(list(map(len, each))) for each in (new, places)]
    return (
        slots.repeat_interleave(counts[0]), torch.cat(new), slots.repeat_interleave(counts[1]), torch.cat(places),
        borders_of(ends),
    )  # fmt: skip
