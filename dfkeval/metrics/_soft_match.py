"""Match leaves that mean the same one to one, by the cosine of sentence vectors.

How it works: equal texts match first. Of the rest, the most similar pair is taken, then the next, as long as the
cosine is at least the threshold. A sentence vector is the mean of an encoder's last token states, as sentence encoders
are trained; each distinct text is encoded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from dfkdata.common import config
from dfkeval.metrics import Floats
from dfkeval.metrics._leaves import Leaf
from dfkeval.models.text_encoder import TextEncoder

#: Text -> its unit vector (D,).
Vectors = dict[str, Floats]


class Options(config.Config):
    """Options of the metric `fields`.

    Attributes:
        model: Hub name or folder of a sentence encoder; None leaves soft matches out.
        threshold: Smallest cosine at which two texts mean the same.
        dtype: Number type of the encoder.
        batch_tokens: Padded tokens of one forward pass.
    """

    model: str | None = None
    threshold: float = Field(default=0.75, gt=0.0, le=1.0)
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch_tokens: int = Field(default=2048, ge=1)


def vectors(texts: Iterable[str], options: Options) -> Vectors:
    """Return the vectors of all distinct texts. Raises `ConfigError` and `BackendError` as `TextEncoder`."""
    distinct = sorted(set(texts))
    if options.model is None or not distinct:
        return {}
    return _encoder(options.model, options.dtype).sentences(distinct, options.batch_tokens)


@lru_cache(maxsize=1)
def _encoder(model: str, dtype: str) -> TextEncoder:
    return TextEncoder(model, None, dtype)


def words(leaf: Leaf) -> str:
    """Return a leaf in words: ("attributes", "dog", "red") -> "red dog"; ("actions", "runs") -> "runs"."""
    return " ".join(reversed(leaf[1:]))


def matches(gold: Counter[Leaf], answer: Counter[Leaf], vectors_by_text: Vectors, threshold: float) -> int:
    """Return the number of one-to-one matches between two bags of one kind."""
    common = gold & answer
    a = [words(leaf) for leaf in (gold - common).elements()]
    b = [words(leaf) for leaf in (answer - common).elements()]
    if not a or not b:
        return common.total()
    table = (
        np.stack([vectors_by_text[text] for text in a]) @ np.stack([vectors_by_text[text] for text in b]).T
    )
    count = common.total()
    while table.size and table.max() >= threshold:
        row, column = np.unravel_index(int(table.argmax()), table.shape)
        table[row, :] = table[:, column] = -np.inf
        count += 1
    return count


def of_kind(bag: Counter[Leaf], kind: str) -> Counter[Leaf]:
    """Return the leaves of one kind."""
    return Counter({leaf: number for leaf, number in bag.items() if leaf[0] == kind})


def details(options: Options) -> dict[str, Any]:
    """Return the details that decide the numbers."""
    if options.model is None:
        return {}
    from dfkeval.metrics._embedding_cache import identity

    name = Path(options.model).name if Path(options.model).is_dir() else options.model
    facts: dict[str, Any] = options.model_dump(include={"threshold", "dtype"})
    return {"model": name, "weights_sha256": identity(options.model), **facts}
