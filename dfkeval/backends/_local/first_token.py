"""Compute the log-probabilities of the first answer token with and without an adapter, locally."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfkdata.common.errors import DataError
from dfkeval.backends._adapter_probe import Answered
from dfkeval.backends._local.prompts import open_images, render
from dfkeval.models import loader
from dfkeval.types import Request, Sampling

#: Likeliest tokens that are kept.
_KEPT = 100


def first_tokens(
    model: str, adapter: Path, requests: Sequence[Request], sampling: Sampling
) -> list[tuple[Answered, Answered] | None]:
    """Return the first token of the base and of the adapter for each request.

    Args:
        model: A model folder or a Hub name.
        adapter: Folder of the adapter.
        requests: What is asked.
        sampling: Whether a think block is opened.

    Returns:
        The pairs in order, without texts; None for a request that cannot be read.

    Raises:
        ConfigError: Model and adapter do not belong together.
        BackendError: They cannot be loaded.
    """
    loaded = loader.load(model, adapter=adapter)
    return [_pair(loaded, request, sampling) for request in requests]


def _pair(loaded: loader.Loaded, request: Request, sampling: Sampling) -> tuple[Answered, Answered] | None:
    import torch

    try:
        text = render(loaded.processor, request, sampling)
        images = open_images(request)
    except DataError:
        return None
    inputs = loaded.processor(text=[text], images=images or None, return_tensors="pt").to(loaded.model.device)
    with torch.inference_mode():
        adapted = _likeliest(loaded.model(**inputs).logits[0, -1], loaded.processor.tokenizer)
        with loaded.model.disable_adapter():
            base = _likeliest(loaded.model(**inputs).logits[0, -1], loaded.processor.tokenizer)
    return base, adapted


def _likeliest(logits: Any, tokenizer: Any) -> Answered:
    """Return the likeliest tokens by their text; of two with one text the likelier counts."""
    import torch

    values, ids = torch.log_softmax(logits.float(), -1).topk(min(_KEPT, logits.shape[-1]))
    pairs = zip(ids.tolist(), values.tolist(), strict=True)
    return Answered("", {tokenizer.decode([number]): value for number, value in reversed(list(pairs))})
