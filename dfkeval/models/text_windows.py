"""Cut texts that are longer than an encoder reads into overlapping windows.

How it works: every window is a whole input with the encoder's own marks. Neighbours share half of their
tokens, and a token's vector comes from the window in which it is farther from the cut, so that it has context
on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenWindow:
    """One window.

    Attributes:
        ids: Marks and tokens, as the encoder is given them.
        start: First of its rows that is kept.
        stop: End of the rows that are kept.
    """

    ids: list[int]
    start: int
    stop: int


def cut_windows(ids: Sequence[int], limit: int, marks: Sequence[int]) -> list[TokenWindow]:
    """Cut the ids of a text into windows whose kept rows, one after another, are the rows of the text.

    Args:
        ids: The ids of the whole text, marks included.
        limit: Most ids of one window.
        marks: The ids that the encoder puts around an empty text.

    Returns:
        The windows; one for a text that fits.
    """
    if len(ids) <= limit:
        return [TokenWindow(list(ids), 0, len(ids))]
    before = _common(ids, marks)
    head, tail = list(marks[:before]), list(marks[before:])
    inner = list(ids[before : len(ids) - len(tail)])
    size = max(1, limit - len(marks))
    starts = [*range(0, len(inner) - size, max(1, size // 2)), len(inner) - size]
    ends = [start + size for start in starts]
    borders = [0, *((a + b) // 2 for a, b in zip(starts[1:], ends[:-1], strict=True)), len(inner)]
    windows = []
    for place, start in enumerate(starts):
        first, last = place == 0, place == len(starts) - 1
        begin = 0 if first else before + borders[place] - start
        stop = before + (size + len(tail) if last else borders[place + 1] - start)
        windows.append(TokenWindow([*head, *inner[start : start + size], *tail], begin, stop))
    return windows


def _common(ids: Sequence[int], marks: Sequence[int]) -> int:
    """Return the number of marks before the text."""
    return next((at for at, mark in enumerate(marks) if ids[at] != mark), len(marks))
