"""The gated delta rule of a padded batch as one row whose sequences have borders.

How it works: fla writes the number of rows of a batch into three of its kernels, and the number of tokens into the
one that brings queries and keys to length one, and compiles them anew for each: seconds of every first batch of a
shape. Here the rows of a batch are sequences of one row, which fla takes in any number and of any length, and queries
and keys have their length before.

Guarantees:
    - Value and gradients are those of the rule for a batch of rows."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

CHUNK = 64
"""Tokens that fla works on at once."""
NAME = "torch_chunk_gated_delta_rule"
"""What transformers calls the rule, whoever computes it."""


class OneRow:
    """Compute a gated delta rule that takes borders on batches of rows.

    Args:
        library: The rule.
        unit: Brings vectors to length one.
    """

    def __init__(self, library: Callable[..., Any], unit: Callable[[Tensor], Tensor]) -> None:
        self.library, self.unit = library, unit

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Any:
        """Return output and state; calls that keep a state are left to the library."""
        if options.get("initial_state") is not None or options.get("output_final_state"):
            return self.library(query, key, value, **options)
        if options.get("use_qk_l2norm_in_kernel"):
            query, key = self.unit(query), self.unit(key)
            options["use_qk_l2norm_in_kernel"] = False
        if options.get("cu_seqlens") is not None:
            return self.library(query, key, value, **options)
        rows, length = query.shape[:2]
        borders, chunks = row_borders(rows, length, query.device)
        decay, beta = options.pop("g"), options.pop("beta")
        query, key, value, decay, beta = (
            each.reshape(1, rows * length, *each.shape[2:]) for each in (query, key, value, decay, beta)
        )
        options |= {"g": decay, "beta": beta, "cu_seqlens": borders, "chunk_indices": chunks}
        out, _ = self.library(query, key, value, **options)
        return out.view(rows, length, *out.shape[2:]), None


@cache  # CUDA graphs go on reading them
def row_borders(rows: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return where rows begin and end (rows + 1), and row and number of each chunk (N, 2), both int32."""
    borders = torch.arange(rows + 1, dtype=torch.int32) * length
    chunks = -(-length // CHUNK)
    row = torch.arange(rows, dtype=torch.int32).repeat_interleave(chunks)
    number = torch.arange(chunks, dtype=torch.int32).repeat(rows)
    return borders.to(device), torch.stack([row, number], dim=1).to(device)


def one_row(library: Callable[..., Any]) -> OneRow:
    """Return the rule with our kernel for the lengths of queries and keys."""
    from dfktrain.engines import _triton_ops

    return OneRow(library, _triton_ops.unit_length)


def takes_borders() -> bool:
    """Return whether the installed rule takes borders; transformers' own ignores them."""
    return importlib.util.find_spec("fla") is not None
