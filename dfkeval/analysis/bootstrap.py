"""Resample groups with replacement (the cluster bootstrap), behind every interval and test of `statistics`.

How it works: samples of one group are summed first, since they are not independent. A resample draws groups
with replacement and is a row of integer weights, so all resamples of a metric are one matrix product. Equal
groups are lumped and drawn together (a multinomial), which makes ten thousand resamples of a confusion
matrix a matter of milliseconds.

Guarantees:

- A seed gives the same resamples on every machine."""

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
#: Resamples that are multiplied at once, by number type; few enough for the weights to stay in the cache.
BLOCKS: dict[np.dtype[Any], int] = {np.dtype(np.float32): 100, np.dtype(np.float64): 25}
#: Bytes of a block of counts, whose sums are exact however they are cut.
BLOCK_BYTES = 8 << 20
#: Chunks of weights that are kept; more would push each other out.
KEPT = 16
#: Weights that are kept at once, and that are drawn at once, in numbers.
CHUNK, DRAWN = 10_000_000, 200_000


def clusters(values: Floats, groups: Sequence[str]) -> Floats:
    """Return the sums of each group, (N, K) -> (G, K), groups in sorted order so that row order does not
    matter."""
    count, places = _places(tuple(groups))
    sums = np.zeros((count, values.shape[1]))
    if count == len(places):  # every row is a group: several times faster than adding
        sums[places] = values
    else:
        np.add.at(sums, places, values)
    return sums


@lru_cache(maxsize=2)
def _places(groups: tuple[str, ...]) -> tuple[int, NDArray[np.int64]]:
    """Return the number of groups and the place of each row's group; cached, as all metrics of a run share
    them."""
    order = {name: place for place, name in enumerate(sorted(set(groups)))}
    return len(order), np.fromiter((order[name] for name in groups), dtype=np.int64, count=len(groups))


def resample(sums: Floats, resamples: int, seed: int) -> Floats:
    """Return sums over G groups drawn with replacement: (G, K) -> (resamples, K)."""
    return resample_all([sums], resamples, seed)[0]


def resample_all(tables: Sequence[Floats], resamples: int, seed: int) -> list[Floats]:
    """Resample each table; tables over the same number of groups share their draws.

    Args:
        tables: Sums of shape (G, K), of the groups of each metric.
        resamples: Number of resamples R.
        seed: Seed of the draws.

    Returns:
        For each table, sums of shape (R, K).
    """
    sampled: list[Floats] = [np.empty(0)] * len(tables)
    waiting: dict[int, list[int]] = {}
    for place, sums in enumerate(tables):
        distinct, counts = _distinct(sums)
        if len(distinct) <= LUMPED:
            drawn = np.random.default_rng(seed).multinomial(len(sums), counts / len(sums), size=resamples)
            sampled[place] = drawn.astype(np.float64) @ distinct
        else:
            waiting.setdefault(len(sums), []).append(place)
    for places in waiting.values():
        drawn_alike = _drawn([tables[place] for place in places], resamples, seed)
        for place, table in zip(places, drawn_alike, strict=True):
            sampled[place] = table
    return sampled


def _drawn(tables: Sequence[Floats], resamples: int, seed: int) -> list[Floats]:
    """Resample tables of one number of groups; the weights of a block are converted once for all products."""
    groups = len(tables[0])
    out = [np.empty((resamples, table.shape[1])) for table in tables]
    parts = [(at, *part) for at, table in enumerate(tables) for part in _parts(table)]
    step = max(1, CHUNK // groups)
    draw = weights if resamples <= KEPT * step else weights.__wrapped__
    for number, start in enumerate(range(0, resamples, step)):
        chosen = draw(min(step, resamples - start), groups, seed, number)
        for kind, most in BLOCKS.items():
            some = [part for part in parts if part[2].dtype == kind]
            size = most if kind == np.float64 else max(1, min(most, BLOCK_BYTES // (groups * kind.itemsize)))
            for first in range(0, len(chosen) if some else 0, size):
                block: NDArray[Any] = chosen[first : first + size].astype(kind)
                place = slice(start + first, start + first + len(block))
                for at, columns, table in some:
                    out[at][place, columns] = block @ table
    return out


def _distinct(sums: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return the distinct rows and how often each occurs; only of the first rows if these are too many to
    lump."""
    for rows in (sums[: 4 * LUMPED], sums):
        distinct, counts = np.unique(rows, axis=0, return_counts=True)
        if len(distinct) > LUMPED:
            break
    return distinct, counts


def _parts(sums: Floats) -> list[tuple[NDArray[np.int64], NDArray[np.floating[Any]]]]:
    """Return columns and their table by number type: counts are exact in float32, in half the time, up to
    2**24."""
    counts = (sums == np.rint(sums)).all(axis=0) & (np.abs(sums).max(axis=0) * len(sums) < 2**24)
    parts: list[tuple[NDArray[np.int64], NDArray[np.floating[Any]]]] = []
    for mask, kind in ((counts, np.float32), (~counts, np.float64)):
        if mask.any():
            parts.append((np.flatnonzero(mask), np.ascontiguousarray(sums[:, mask], dtype=kind)))
    return parts


@lru_cache(maxsize=KEPT)
def weights(rows: int, groups: int, seed: int, chunk: int) -> NDArray[np.uint8]:
    """Return how often each group is drawn in each resample, of shape (rows, groups); rows sum to `groups`.

    The last ones are cached, because every metric of a run is resampled with the same weights.
    """
    rng = np.random.default_rng((seed, chunk))
    counts = np.empty((rows, groups), dtype=np.uint8)
    step = max(1, DRAWN // groups)
    for first in range(0, rows, step):
        some = counts[first : first + step]
        drawn = rng.integers(0, groups, size=some.shape, dtype=np.int32)
        for row, places in zip(some, drawn, strict=True):  # what is drawn and counted stays in the cache
            np.minimum(np.bincount(places, minlength=groups), 255, out=row, casting="unsafe")
    return counts


def stream(seed: int, name: str) -> int:
    """Return a seed of its own for each purpose, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big")
