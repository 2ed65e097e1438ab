"""The built-in model: a small qwen3_5 vision-language model that runs on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfkeval.models.tiny import path

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["load", "path"]


def load() -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load the built-in model and its processor in fp32 on the CPU.

    Returns:
        The model and its processor.

    Raises:
        ConfigError: torch or transformers is missing.

    Example:
        >>> from dfktrain import tiny
        >>> model, processor = tiny.load()
        >>> model.config.model_type, model.num_parameters() < 10_000_000
        ('qwen3_5', True)
        >>> len(processor.tokenizer("Berita ini benar.")["input_ids"]) > 0
        True
    """
    from dfkeval.models.loader import load as load_model

    loaded = load_model("tiny", dtype="float32", device="cpu")
    return loaded.model, loaded.processor
