"""Accept an answer whose prose means what the gold's prose means.

How it works: the cosine of two sentence vectors is compared with a minimum. Each vector is the mean of an encoder's
token states in its last layer, as sentence encoders are trained to be used; the default encoder is multilingual. It is
loaded with the first answer. Texts beyond the encoder's length are cut, as in training."""

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
    """Options of the validator.

    Attributes:
        model: Hub name or folder of a sentence encoder.
        minimum: Smallest cosine that is accepted.
        field: Which text of the answer is compared; None joins all its texts.
        dtype: Number type of the encoder, "float32" or "bfloat16".
    """

    model: str = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
    minimum: float = Field(default=0.8, ge=-1.0, le=1.0)
    field: str | None = None
    dtype: str = Field(default="float32", pattern="^(float32|bfloat16)$")


def start(options: Options) -> Validator:
    """Return a validator that loads its encoder with the first answer that has a gold to compare with."""
    loaded: list[Any] = []

    @lru_cache(maxsize=4096)
    def vector(text: str) -> Vector:
        if not loaded:
            loaded.append(TextEncoder(options.model, None, options.dtype))
        return pooled(loaded[0], text)

    def validate(sample: Sample) -> str | None:
        answer, gold = text_of(sample.lenient, options.field), text_of(sample.gold, options.field)
        if not gold:
            return "the row has no gold text"
        if not answer:
            return f"the answer has no text ({sample.outcome})"
        similarity = cosine(vector(answer), vector(gold))
        if similarity >= options.minimum:
            return None
        return f"cosine {similarity:.3f} is below {options.minimum:g}"

    return validate


def text_of(value: dict[str, Any] | None, field: str | None) -> str:
    """Return the text of `field`, or all the texts at the top level in order."""
    chosen = (value or {}).values() if field is None else [(value or {}).get(field)]
    return "\n".join(text for text in chosen if isinstance(text, str) and text.strip())


def pooled(encoder: TextEncoder, text: str) -> Vector:
    """Return the mean of the token states, special tokens included, of shape (D,)."""
    torch = encoder.torch
    ids, _ = encoder.tokens([text])[0]
    row = torch.tensor([ids], device=encoder.device)
    with torch.inference_mode():
        states = encoder.net(row, attention_mask=torch.ones_like(row))[0][0].float()
    mean: Vector = states.mean(dim=0).cpu().numpy().astype(np.float64)
    return mean


def cosine(a: Vector, b: Vector) -> float:
    """Return the cosine of two vectors, in [-1, 1]; 0 if one is zero."""
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / size, -1.0, 1.0)) if size else 0.0
