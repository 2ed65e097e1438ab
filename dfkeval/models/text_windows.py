"""Texts longer than an encoder reads, cut into overlapping windows and put together again. Pure functions.

Every window is a whole input with the encoder's own marks. Neighbours share half of their tokens; a token's
vector comes from the window where it stands farther from the cut, so that each has context on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenWindow:
    """ids: marks and tokens, as the encoder is given them. start, stop: which of its rows are kept."""

    ids: list[int]
    start: int
    stop: int


def cut_windows(ids: Sequence[int], limit: int, marks: Sequence[int]) -> list[TokenWindow]:
    """The windows of a text with at most `limit` ids each; their kept rows, one after another, are the rows
    of `ids`.

    marks: ids that the encoder puts around an empty text. A text that fits is one window."""
    if len(ids) <= limit:
        return [TokenWindow(list(ids), 0, len(ids))]
    before = _common(ids, marks)
    head, tail = list(marks[:before]), list(marks[before:])
    inner = list(ids[before : len(ids) - len(tail)])
    size = max(1, limit - len(marks))
    starts = [*range(0, len(inner) - size, max(1, size // 2)), len(inner) - size]
    ends = [start + size for start in starts]
    borders = [0, *((a + b) // 2 for a, b in zip(starts[1:], ends[:-1], strict=True)), len(inner)]
    found = []
    for place, start in enumerate(starts):
        first, last = place == 0, place == len(starts) - 1
        begin = 0 if first else before + borders[place] - start
        stop = before + (size + len(tail) if last else borders[place + 1] - start)
        found.append(TokenWindow([*head, *inner[start : start + size], *tail], begin, stop))
    return found


def _common(ids: Sequence[int], marks: Sequence[int]) -> int:
    """Marks that stand before the text."""
    return next((at for at, mark in enumerate(marks) if ids[at] != mark), len(marks))
