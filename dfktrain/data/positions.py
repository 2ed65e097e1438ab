"""Positions of padded batches with images, worked out beside the loader instead of on the device.

How it works: without them the network goes through the batch row by row and waits for the device several times a
row, before its first layer.

Guarantees:
    - The positions are those that the network would compute itself."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from dfkeval.models.families import is_packable
from dfktrain.data.collator import Collator
from dfktrain.data.masking import EncodedSample
from dfktrain.data.packing import rope_positions

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of the C library's `mallopt`."""


class PositionedCollator:
    """Make batches like `Collator`, with position_ids (3, B, T) where a batch has images and no videos.

    Args:
        collator: Encodes the rows; its processor must be a vision-language one of a packable family, whose
            positions are verified.
    """

    def __init__(self, collator: Collator) -> None:
        self.collator = collator
        self.tokenizer = collator.tokenizer  # the library saves it with checkpoints

    def __call__(self, rows: Sequence[dict[str, Any] | EncodedSample]) -> dict[str, Tensor]:
        """Return the batch; see `Collator`."""
        _keep_memory()
        batch = self.collator(rows)
        if "image_grid_thw" in batch and "video_grid_thw" not in batch:
            merge = int(self.collator.image_processor.merge_size)
            batch["position_ids"] = padded_positions(batch, merge)
        return batch


@lru_cache
def _keep_memory() -> None:
    """Let a loader's worker keep the memory of its pictures for the next ones, instead of asking for it again."""
    if get_worker_info() is None:
        return
    with suppress(OSError, AttributeError):  # the C library of Linux only
        library = ctypes.CDLL("libc.so.6")
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            library.mallopt(option, 1 << 25)


def padded_positions(batch: dict[str, Tensor], merge: int) -> Tensor:
    """Return time, height and width positions (3, B, T) of a padded batch, 0 at padding.

    Args:
        batch: mm_token_type_ids, attention_mask and image_grid_thw.
        merge: Patches that a token merges, in each direction.
    """
    types, mask = batch["mm_token_type_ids"], batch["attention_mask"].bool()
    grids = iter(batch["image_grid_thw"].tolist())
    positions = torch.zeros(3, *types.shape, dtype=torch.long)
    for row, kept in enumerate(mask):
        positions[:, row, kept] = rope_positions(types[row][kept], grids, merge)
    return positions


def positioned(collator: Collator, model_type: str) -> Collator | PositionedCollator:
    """Return a collator that adds positions, for model types whose positions are verified; else `collator`."""
    return PositionedCollator(collator) if is_packable(model_type) else collator
