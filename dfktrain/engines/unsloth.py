"""The Unsloth engine: its patched model on one GPU, with our batches, mask, module list and loss.

Unsloth patches transformers and PEFT when it is imported, so it is imported here and nowhere else, before
them.
Promises: only releases that were looked at are used; the processor is ours, because Unsloth's own collator
resizes images to 512 pixels without a word; the adapter sits on exactly the modules that were resolved, or
the run stops."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

from dfkdata.common.errors import BackendError, ConfigError
from dfkdata.common.versions import release

if TYPE_CHECKING:
    from dfktrain.config.run import AdapterConfig, TrainConfig
    from dfktrain.engines._base import Base

TESTED = ("2026.10.7", "2026.10.8", "2026.10.9")
"""Releases whose interface this module was written against."""

LIMITS = {"transformers": "5.17.0", "torch": "2.15"}
"""Newest transformers that these releases accept, and the first torch that they refuse."""


def available() -> str | None:
    """None where a tested Unsloth, versions that it accepts and a GPU are here; else the reason."""
    if importlib.util.find_spec("unsloth") is None:
        return 'needs unsloth: pip install "dfk[unsloth]"; engine: transformers needs no more packages'
    found = importlib.metadata.version("unsloth")
    if found not in TESTED:
        return f"is written for unsloth {', '.join(TESTED)}, found {found}; use engine: transformers"
    if reason := _versions():
        return reason
    if importlib.util.find_spec("bitsandbytes") is None:
        return (
            "needs bitsandbytes, also for 16-bit LoRA: pip install bitsandbytes; or use engine: transformers"
        )
    import torch

    return None if torch.cuda.is_available() else "needs a CUDA device; use engine: transformers"


def _versions() -> str | None:
    newest, refused = LIMITS["transformers"], LIMITS["torch"]
    transformers = importlib.metadata.version("transformers")
    if release(transformers) > release(newest):
        return f"needs transformers<={newest}, found {transformers}; or use engine: transformers"
    torch = importlib.metadata.version("torch")
    if release(torch) >= release(refused):
        return f"needs torch<{refused}, found {torch}; install an older one or use engine: transformers"
    return None


def load(config: TrainConfig, precision: str) -> Base:
    """The base as Unsloth loads it, and our processor. Raises `ConfigError` or `BackendError`."""
    if config.model.kind == "llm":
        raise ConfigError(
            "engine unsloth trains vision-language models here; use engine: transformers for llm"
        )
    if precision != "bf16":
        raise ConfigError(
            f"engine unsloth trains in bf16, precision is {precision}; use engine: transformers"
        )
    unsloth = _import_first()
    import torch

    from dfkeval.models.processor import load_processor
    from dfkeval.models.source import model_source
    from dfktrain.engines._base import Base
    from dfktrain.engines.transformers import (
        check_kernels,
        known_family,
        model_config,
        shapes_without_weights,
    )

    source = model_source(config.model.name)
    known_family(source)
    check_kernels(model_config(source), patched=True)
    model, _ = unsloth.FastVisionModel.from_pretrained(
        model_name=source,
        max_seq_length=max(stage.max_length for stage in config.stages),
        dtype=torch.bfloat16,
        load_in_4bit=config.adapter.kind == "qlora",
        full_finetuning=config.adapter.kind == "full",
        use_gradient_checkpointing=_checkpointing(config),
        use_exact_model_name=True,
    )
    shapes = shapes_without_weights(source)
    return Base(model, load_processor(source), config.model.name, shapes, _checkpointing(config))


def _import_first() -> Any:
    """Unsloth, imported before the libraries that it patches; its compiler off, which costs minutes before a
    step, and with the kernels that it carries itself, which work around a miscompilation on Hopper GPUs."""
    early = [name for name in ("transformers", "peft", "trl") if name in sys.modules]
    if early and "unsloth" not in sys.modules:
        raise BackendError(
            f"{', '.join(early)} was imported before unsloth, which then cannot patch it; "
            f"start dfktrain in a fresh process, or import unsloth first"
        )
    os.environ.setdefault("UNSLOTH_COMPILE_DISABLE", "1")
    os.environ.setdefault("UNSLOTH_FORCE_VENDORED_FLA", "1")
    return importlib.import_module("unsloth")


def _checkpointing(config: TrainConfig) -> bool | str:
    match config.checkpointing:
        case "none":
            return False
        case "torch":
            return True
        case "unsloth":
            return "unsloth"


def adapt(base: Base, modules: list[str], config: AdapterConfig) -> Any:
    """The base with its adapter on `modules`. Raises `BackendError` if Unsloth put it anywhere else."""
    unsloth = _import_first()
    if config.kind == "full":
        return base.model
    if config.warm_start is not None:
        from dfktrain.engines import transformers

        return transformers.adapt(base, modules, config)
    for key, wanted in (
        ("dora", config.dora),
        ("loftq", config.loftq),
        ("kind: peft", config.kind == "peft"),
    ):
        if wanted:
            raise ConfigError(f"adapter.{key} is not honoured by engine unsloth; use engine: transformers")
    import torch

    model = unsloth.FastVisionModel.get_peft_model(
        base.model,
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        bias=config.bias,
        use_rslora=config.rslora,
        target_modules=modules,
        use_gradient_checkpointing=base.checkpointing,
        random_state=torch.initial_seed() % 2**31,  # it would seed with a number of its own
    )
    prove_modules(model, modules)
    return model


def prove_modules(model: Any, modules: list[str]) -> None:
    """Raise `BackendError` unless the adapter sits on exactly `modules`."""
    names = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}
    carriers = {name.removeprefix("base_model.model.") for name in names}
    if carriers != set(modules):
        odd = sorted(carriers ^ set(modules))
        raise BackendError(
            f"the adapter sits on {len(carriers)} modules, {len(modules)} were asked for; e.g. {odd[0]}"
        )
