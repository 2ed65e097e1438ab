"""Join encoded rows of different lengths into one batch for a forward pass.

How it works: each row is encoded alone, so that its tokens do not depend on its neighbours. Inputs that run
along the tokens are padded on the left, so that all rows end together; images follow one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Inputs that run along the tokens.
ALONG = ("input_ids", "attention_mask", "mm_token_type_ids")

Inputs = Mapping[str, Any]


def length(row: Inputs) -> int:
    """Return the number of tokens of one row, whose inputs are (1, T)."""
    return int(row["input_ids"].shape[1])


def joined(rows: Sequence[Inputs], pad: int) -> dict[str, Any]:
    """Return the rows' tensors as one batch; `pad` is the token id that fills shorter rows."""
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
