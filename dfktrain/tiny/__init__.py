"""The built-in model: a real Qwen3.5 vision-language model of 3.9 million parameters, trained from nothing by
`make`.

It lies inside the package, so tests, examples and the demo need no network. `dfktrain.tiny.load()` gives it;
`model: tiny` in any configuration names it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


def path() -> Path:
    """The model's folder: config, weights (bf16 safetensors), tokenizer, image processor and chat
    template."""
    return Path(__file__).parent / "weights"


def load() -> tuple[PreTrainedModel, ProcessorMixin]:
    """(model, processor) from the package, fp32 on the CPU. Raises `ConfigError` where torch or transformers
    is missing."""
    from dfkeval.loading import load as load_model

    loaded = load_model("tiny", dtype="float32", device="cpu")
    return loaded.model, loaded.processor
