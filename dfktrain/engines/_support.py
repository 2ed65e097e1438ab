"""What an engine cannot honour, seen from the configuration alone: before weights, data or a GPU are touched.

Strategy: one pure function a concern, each yielding a line that names the key, the reason and the way out.
Promises: a key that is not named here has its effect on the engine, or its engine raises; nothing is ignored.
`dfktrain check` shows the lines, `train` refuses to start on the first look."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from dfkdata.common.errors import ConfigError
from dfktrain.config.launch import process_count
from dfktrain.config.run import TrainConfig

EIGHT_BIT = ("adamw_8bit", "paged_adamw_8bit")
"""Optimisers of bitsandbytes, whose two moments take one byte a weight each."""


def refusals(config: TrainConfig, engine: str, precision: str) -> list[str]:
    """Every key of `config` that `engine` cannot honour in `precision` on this machine, one line each."""
    own = {"unsloth": _unsloth, "transformers": _transformers}
    found = [*_packages(config), *_language_model(config)]
    if engine in own:
        found += own[engine](config, precision)
    return found


def refuse(config: TrainConfig, engine: str, precision: str) -> None:
    """Raise `ConfigError` with all `refusals` at once."""
    found = refusals(config, engine, precision)
    if found:
        raise ConfigError("\n".join(found))


def _packages(config: TrainConfig) -> Iterator[str]:
    """Packages that a key needs and that are not here."""
    for name in config.trackers:
        if not _here(name):
            yield f"trackers: {name} needs {name}: pip install {name}"
    for stage in config.stages:
        if stage.optimizer in EIGHT_BIT:
            yield from _bitsandbytes(f"stages.{stage.name}.optimizer: {stage.optimizer}", "adamw_torch")
    if config.adapter.kind == "qlora":
        yield from _bitsandbytes("adapter.kind qlora", "kind: lora")
    if config.model.attention == "flash_attention_2" and not _here("flash_attn"):
        yield (
            "model.attention flash_attention_2 needs flash_attn, which has no wheel: pip install flash-attn, "
            "or write sdpa"
        )


def _bitsandbytes(key: str, instead: str) -> Iterator[str]:
    if not _here("bitsandbytes"):
        yield f"{key} needs bitsandbytes: pip install bitsandbytes; or write {instead}"
    elif not _cuda():
        yield f"{key} needs a GPU; write {instead} here"


def _language_model(config: TrainConfig) -> Iterator[str]:
    """What only a model that sees images could honour."""
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
    unable: dict[str, tuple[bool, str]] = {
        "model.kind": (config.model.kind == "llm", "llm is not built for engine unsloth here"),
        "model.attention": (config.model.attention != "sdpa", "engine unsloth chooses its own attention"),
        "precision": (precision != "bf16", f"engine unsloth trains in bf16, not in {precision}"),
        "adapter.kind": (adapter.kind == "peft", "peft methods are not honoured by engine unsloth"),
        "adapter.dora": (adapter.dora, "is not honoured by engine unsloth"),
        "adapter.loftq": (adapter.loftq, "is not honoured by engine unsloth"),
    }
    yield from (f"{key}: {reason}{other}" for key, (lost, reason) in unable.items() if lost)
    if process_count() > 1:
        yield f"engine: unsloth trains on one GPU, here are {process_count()} processes{other}"


def _here(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())
