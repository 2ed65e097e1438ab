"""Sums over resampled groups, which every interval and test of `stats` is made of.

Strategy: samples of one group are summed first, since they are not independent; a resample draws groups with
replacement and is a row of integer weights, so all resamples of a metric are one matrix product. Equal groups
are lumped and drawn together (a multinomial), which makes ten thousand resamples of a confusion matrix a
matter of milliseconds. Promise: seeded; the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkeval.metrics import Floats

#: Above this many distinct groups a multinomial over them costs more than drawing indices.
LUMPED = 256
#: Resamples that are multiplied at once; few enough for the converted weights to stay in the cache.
BLOCK = 100
#: Weights that are drawn at once, in numbers.
CHUNK = 10_000_000


def clusters(values: Floats, groups: Sequence[str]) -> Floats:
    """(N, K) -> (G, K): sums of each group, groups in sorted order, so that row order does not matter."""
    names, places = np.unique(np.array(groups, dtype=object).astype(str), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, places, values)
    return sums


def resample(sums: Floats, resamples: int, seed: int) -> Floats:
    """(G, K) -> (resamples, K): sums over G groups drawn with replacement."""
    distinct, counts = np.unique(sums, axis=0, return_counts=True)
    if len(distinct) <= LUMPED:
        drawn = np.random.default_rng(seed).multinomial(len(sums), counts / len(sums), size=resamples)
        return drawn.astype(np.float64) @ distinct
    out = np.empty((resamples, sums.shape[1]))
    step = max(1, CHUNK // len(sums))
    parts = _parts(sums)
    for number, start in enumerate(range(0, resamples, step)):
        stop = min(start + step, resamples)
        chosen = weights(stop - start, len(sums), seed, number)
        for first in range(0, stop - start, BLOCK):
            rows = chosen[first : first + BLOCK]
            for columns, table in parts:
                out[start + first : start + first + len(rows), columns] = rows.astype(table.dtype) @ table
    return out


def _parts(sums: Floats) -> list[tuple[NDArray[np.int64], NDArray[np.floating[Any]]]]:
    """Columns, and their table in the number type in which products are exact enough: counts stay exact in
    float32, which takes half the time, as long as no sum of them can pass 2 to the 24th."""
    counts = (sums == np.rint(sums)).all(axis=0) & (np.abs(sums).max(axis=0) * len(sums) < 2**24)
    parts: list[tuple[NDArray[np.int64], NDArray[np.floating[Any]]]] = []
    for mask, kind in ((counts, np.float32), (~counts, np.float64)):
        if mask.any():
            parts.append((np.flatnonzero(mask), np.ascontiguousarray(sums[:, mask], dtype=kind)))
    return parts


@lru_cache(maxsize=16)
def weights(rows: int, groups: int, seed: int, chunk: int) -> NDArray[np.uint8]:
    """(rows, groups): how often each group is drawn in each of these resamples; rows sum to `groups`.

    The last ones are kept, because every metric of a run is resampled with the same ones."""
    rng = np.random.default_rng((seed, chunk))
    drawn = rng.integers(0, groups, size=(rows, groups), dtype=np.int32)
    counts = np.empty((rows, groups), dtype=np.uint8)
    for row, places in zip(counts, drawn, strict=True):  # one row's counts stay in the cache: 8 times faster
        row[:] = np.minimum(np.bincount(places, minlength=groups), 255)
    return counts


def stream(seed: int, name: str) -> int:
    """A seed of its own for each purpose, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big")
