"""Accepts an answer whose prose means what the gold's prose means.

Strategy: cosine of two sentence vectors, each the mean of an encoder's token states in its last layer, which
is how sentence encoders are trained to be used; a multilingual one by default. The encoder is loaded with the
first answer. Texts beyond the encoder's length are cut, as in training."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dfkdata.common.config import Config
from dfkeval.models.text_encoder import TextEncoder
from dfkeval.types import Sample
from dfkeval.validators import Validator

Vector = NDArray[np.float64]


class Options(Config):
    """model: hub name or folder of a sentence encoder. minimum: smallest cosine. field: which text of the
    answer; None joins all its texts. dtype: of the encoder."""

    model: str = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
    minimum: float = Field(default=0.8, ge=-1.0, le=1.0)
    field: str | None = None
    dtype: str = Field(default="float32", pattern="^(float32|bfloat16)$")


def start(options: Options) -> Validator:
    """A judge that loads its encoder with the first answer that has a gold to compare with."""
    loaded: list[Any] = []

    @lru_cache(maxsize=4096)
    def vector(text: str) -> Vector:
        if not loaded:
            loaded.append(TextEncoder(options.model, None, options.dtype))
        return pooled(loaded[0], text)

    def judge(sample: Sample) -> str | None:
        said, gold = text_of(sample.lenient, options.field), text_of(sample.gold, options.field)
        if not gold:
            return "the row has no gold text"
        if not said:
            return f"the answer has no text ({sample.outcome})"
        found = cosine(vector(said), vector(gold))
        return None if found >= options.minimum else f"cosine {found:.3f} is below {options.minimum:g}"

    return judge


def text_of(value: dict[str, Any] | None, field: str | None) -> str:
    """The text of `field`, or all the texts on the top level in order."""
    chosen = (value or {}).values() if field is None else [(value or {}).get(field)]
    return "\n".join(text for text in chosen if isinstance(text, str) and text.strip())


def pooled(encoder: TextEncoder, text: str) -> Vector:
    """(D,): the mean of the token states, special tokens included."""
    torch = encoder.torch
    ids, _ = encoder.tokens([text])[0]
    row = torch.tensor([ids], device=encoder.device)
    with torch.inference_mode():
        states = encoder.net(row, attention_mask=torch.ones_like(row))[0][0].float()
    found: Vector = states.mean(dim=0).cpu().numpy().astype(np.float64)
    return found


def cosine(a: Vector, b: Vector) -> float:
    """In [-1, 1]; 0 where a vector is 0."""
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / size, -1.0, 1.0)) if size else 0.0
