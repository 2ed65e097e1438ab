"""Find settings that an engine does not support, from the configuration alone.

How it works: one function for each concern yields a line that names the key, the reason and what to write
instead. `dfktrain check` shows all lines; `train` raises them before it loads weights or data.

Guarantees:
    - No key is silently ignored: one that is not reported here has its effect, or its engine raises."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from dfkdata.common.errors import ConfigError
from dfktrain.config.launch import process_count
from dfktrain.config.run import TrainConfig

EIGHT_BIT = ("adamw_8bit", "paged_adamw_8bit")
"""Optimisers of bitsandbytes, whose two moments take one byte a weight each."""


def unsupported(config: TrainConfig, engine: str, precision: str) -> list[str]:
    """Return one line for each key of `config` that does not work on this machine.

    Args:
        config: The training configuration.
        engine: Name of the engine that would run it.
        precision: "fp32" or "bf16".
    """
    by_engine = {"unsloth": _unsloth, "transformers": _transformers}
    lines = [*_packages(config), *_language_model(config)]
    if engine in by_engine:
        lines += by_engine[engine](config, precision)
    return lines


def check_supported(config: TrainConfig, engine: str, precision: str) -> None:
    """Raise `ConfigError` with all lines of `unsupported`, if there are any."""
    lines = unsupported(config, engine, precision)
    if lines:
        raise ConfigError("\n".join(lines))


def _packages(config: TrainConfig) -> Iterator[str]:
    """Yield a line for each package that a key needs and that is not installed."""
    for name in config.trackers:
        if not _installed(name):
            yield f"trackers: {name} needs {name}: pip install {name}"
    for stage in config.stages:
        if stage.optimizer in EIGHT_BIT:
            yield from _bitsandbytes(f"stages.{stage.name}.optimizer: {stage.optimizer}", "adamw_torch")
    if config.adapter.kind == "qlora":
        yield from _bitsandbytes("adapter.kind qlora", "kind: lora")
    if config.model.attention == "flash_attention_2" and not _installed("flash_attn"):
        yield (
            "model.attention flash_attention_2 needs flash_attn, which has no wheel: pip install flash-attn, "
            "or write sdpa"
        )


def _bitsandbytes(key: str, instead: str) -> Iterator[str]:
    if not _installed("bitsandbytes"):
        yield f"{key} needs bitsandbytes: pip install bitsandbytes; or write {instead}"
    elif not _has_gpu():
        yield f"{key} needs a GPU; write {instead} here"


def _language_model(config: TrainConfig) -> Iterator[str]:
    """Yield a line for each key that needs a model that sees images."""
    if config.model.kind != "llm":
        return
    for stage in config.stages:
        if stage.max_pixels is not None:
            yield f"stages.{stage.name}.max_pixels: model.kind llm sees no images; leave it out"
        if stage.modality == "image":
            yield f"stages.{stage.name}.modality image: model.kind llm sees no images; write model.kind: vlm"
    if config.adapter.target_modules == "vision":
        yield "adapter.target_modules vision: model.kind llm has no vision tower; write language"


def _transformers(config: TrainConfig, precision: str) -> Iterator[str]:
    if config.checkpointing == "unsloth":
        yield "checkpointing: unsloth needs engine: unsloth, the engine here is transformers; write torch"


def _unsloth(config: TrainConfig, precision: str) -> Iterator[str]:
    other = "; use engine: transformers"
    adapter = config.adapter
    unsupported_keys: dict[str, tuple[bool, str]] = {
        "model.kind": (config.model.kind == "llm", "llm is not built for engine unsloth here"),
        "model.attention": (config.model.attention != "sdpa", "engine unsloth chooses its own attention"),
        "precision": (precision != "bf16", f"engine unsloth trains in bf16, not in {precision}"),
        "adapter.kind": (adapter.kind == "peft", "peft methods are not supported by engine unsloth"),
        "fused_layers": (config.fused_layers is True, "engine unsloth has kernels of its own"),
        "cuda_graphs": (config.cuda_graphs is True, "engine unsloth has layers of its own"),
        "adapter.dora": (adapter.dora, "is not supported by engine unsloth"),
        "adapter.loftq": (adapter.loftq, "is not supported by engine unsloth"),
    }
    yield from (f"{key}: {reason}{other}" for key, (applies, reason) in unsupported_keys.items() if applies)
    if process_count() > 1:
        yield f"engine: unsloth trains on one GPU, here are {process_count()} processes{other}"


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())
