"""Encode only some rows of a large file, for what wants numbers and no training: `dfktrain check`.

How it works. The first `ALL` rows are encoded. Of the others, rows whose turns, answer and media are about as long as
those of an encoded row take that row's tokens (a stand-in); of each kind some rows are encoded, first and then every
`EVERY`th, and rows that may be too long or whose pictures are gone always are. How much the stand-ins differ from the
rows that were encoded beside them is the stated error."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from dfkdata.common.data_uri import is_data_uri
from dfktrain.data.collator import Collator
from dfktrain.data.masking import EncodedSample

ALL, EACH, EVERY = 10_000, 4, 50
_NEAR_LIMIT = 0.85


class SampledCollator(Collator):
    """A collator that encodes some rows and lets them stand for the others.

    Args:
        collator: What encodes.
        progress: Called with the number of rows so far.
        everything: Whether every row is encoded all the same.
    """

    def __init__(
        self, collator: Collator, progress: Callable[[int], None] | None = None, *, everything: bool = False
    ) -> None:
        self.__dict__.update(vars(collator))
        self.rows = self.encoded = 0
        self._progress, self._everything = progress, everything
        self._kept: dict[Hashable, list[EncodedSample]] = {}
        self._seen: Counter[Hashable] = Counter()
        self._errors: list[int] = []

    def encode(self, row: dict[str, Any]) -> EncodedSample:
        """Return the sample of a row, or a stand-in under its id. Raises as `Collator.encode` does."""
        self.rows += 1
        if self._progress is not None:
            self._progress(self.rows)
        if self._everything:
            return self._exact(row)
        kind = _kind(row)
        kept = self._kept.setdefault(kind, [])
        self._seen[kind] += 1
        if self.rows <= ALL or len(kept) < EACH:
            sample = self._exact(row)
            if len(kept) < EACH:
                kept.append(sample)
            return sample
        stand_in = kept[self._seen[kind] % EACH]
        if self._seen[kind] % EVERY == 0:
            sample = self._exact(row)
            self._errors.append(len(sample) - len(stand_in))
            return sample
        if (self.max_length is not None and len(stand_in) > _NEAR_LIMIT * self.max_length) or _has_gaps(row):
            return self._exact(row)
        return replace(stand_in, id=str(row["id"]))

    def _exact(self, row: dict[str, Any]) -> EncodedSample:
        self.encoded += 1
        return super().encode(row)

    def note(self, tokens: int) -> str | None:
        """Return how many rows were encoded and how far the tokens may be off; None if all were.

        Args:
            tokens: The tokens of all rows.
        """
        others = self.rows - self.encoded
        if not others:
            return None
        count = max(1, len(self._errors))
        mean = sum(self._errors) / count
        spread = math.sqrt(sum((error - mean) ** 2 for error in self._errors) / count)
        off = others * (abs(mean) + 1.96 * spread / math.sqrt(count)) / max(1, tokens)
        return (
            f"{self.encoded:,} of {self.rows:,} rows were tokenised and stand for the others: tokens are within "
            f"{off:.1%} (95 %), and refusals by the template are those of these rows; --all-rows tokenises every row"
        )


def _kind(row: dict[str, Any]) -> Hashable:
    """Return what rows have in common that take about as many tokens."""
    last = row["messages"][-1]
    flags = {
        key: value for key, value in last.items() if key not in ("content", "tool_calls", "reasoning_content")
    }
    size = sum(map(_bytes, (row["messages"], row.get("tools"))))
    media = tuple(len(row.get(name) or ()) for name in ("images", "videos"))
    return (
        _step(size, 1.05),
        _step(_bytes(last), 1.2),
        media,
        str(flags),
        str(row.get("chat_template_kwargs")),
    )


def _bytes(value: Any) -> int:
    return len(msgspec.json.encode(value)) if value else 1


def _step(size: int, factor: float) -> int:
    return round(math.log(size) / math.log(factor))


def _has_gaps(row: dict[str, Any]) -> bool:
    """Return whether a picture of a row is not there."""
    paths = (path for path in row.get("images") or () if isinstance(path, str) and not is_data_uri(path))
    return not all(Path(path).is_file() for path in paths)
