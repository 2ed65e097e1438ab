"""The folder of the built-in model: a real Qwen3.5 vision-language model of 3.9 million parameters.

It lies inside the package, so that tests, examples and the demo need no network. `model: tiny` in any
configuration names it, `dfktrain.tiny.load()` loads it, and `tools/tiny_model` holds the code that trained
it."""

from __future__ import annotations

from pathlib import Path


def path() -> Path:
    """Return the model's folder: config, weights (bf16 safetensors), tokenizer, processor and chat
    template."""
    return Path(__file__).parent / "weights"
