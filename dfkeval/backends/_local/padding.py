"""Encoded rows of different lengths as one batch for a forward pass.

Strategy: each row is encoded alone, so that its tokens do not depend on its neighbours; inputs that run along
the tokens are padded on the left, so that all rows end together, and images follow one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Inputs that run along the tokens.
ALONG = ("input_ids", "attention_mask", "mm_token_type_ids")

Inputs = Mapping[str, Any]


def length(row: Inputs) -> int:
    """Tokens of one row, (1, T) -> T."""
    return int(row["input_ids"].shape[1])


def joined(rows: Sequence[Inputs], pad: int) -> dict[str, Any]:
    """The rows' tensors as one batch. pad: token id where a row is shorter."""
    import torch

    width = max(map(length, rows))
    out: dict[str, Any] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        parts = [row[key] for row in rows if key in row]
        if key in ALONG:
            fill = pad if key == "input_ids" else 0
            parts = [torch.nn.functional.pad(part, (width - part.shape[1], 0), value=fill) for part in parts]
        out[key] = torch.cat(parts, dim=0)
    return out
