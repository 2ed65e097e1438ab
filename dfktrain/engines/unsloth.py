"""The Unsloth engine: its patched model on one GPU, with our batches, mask, target modules and loss.

How it works: Unsloth patches transformers and PEFT when it is imported, so this module alone imports it, and
before them. The processor is ours, because Unsloth's own collator silently resizes images to 512 pixels.

Guarantees:
    - Only the releases in `TESTED` are used.
    - The adapter sits on exactly the resolved modules, or the run stops."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

from dfkdata.common.errors import BackendError, ConfigError
from dfkdata.common.versions import release
from dfktrain.engines._base import LoadedBase
from dfktrain.engines._kernels import check_kernels
from dfktrain.engines._model_config import model_config, require_vision_family, shapes_without_weights
from dfktrain.engines._versions import UNSLOTH_LIMITS, UNSLOTH_TORCH
from dfktrain.engines._warm_start import attach_saved

if TYPE_CHECKING:
    from dfktrain.config.model import AdapterConfig
    from dfktrain.config.run import TrainConfig

TESTED = ("2026.10.7", "2026.10.8", "2026.10.9")
"""Releases whose interface this module was written against."""


def available() -> str | None:
    """Return None if a tested Unsloth, versions that it accepts and a GPU are here; else the reason."""
    if importlib.util.find_spec("unsloth") is None:
        return 'needs unsloth: pip install "dfk[unsloth]"; engine: transformers needs no more packages'
    version = importlib.metadata.version("unsloth")
    if version not in TESTED:
        return f"is written for unsloth {', '.join(TESTED)}, found {version}; use engine: transformers"
    if reason := _version_fault():
        return reason
    if importlib.util.find_spec("bitsandbytes") is None:
        return (
            "needs bitsandbytes, also for 16-bit LoRA: pip install bitsandbytes; or use engine: transformers"
        )
    import torch

    return None if torch.cuda.is_available() else "needs a CUDA device; use engine: transformers"


def _version_fault() -> str | None:
    newest = UNSLOTH_LIMITS["transformers"]
    transformers, torch = importlib.metadata.version("transformers"), importlib.metadata.version("torch")
    if release(transformers) > release(newest):
        return f"needs transformers<={newest}, found {transformers}; or use engine: transformers"
    if release(torch) >= release(UNSLOTH_TORCH):
        return f"needs torch<{UNSLOTH_TORCH}, found {torch}; install an older one or use engine: transformers"
    return None


def load(config: TrainConfig, precision: str) -> LoadedBase:
    """Load the base as Unsloth does, with our processor; see `dfktrain.engines`."""
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

    from dfkeval.models.loading import foreign_files
    from dfkeval.models.processor import load_processor
    from dfkeval.models.source import model_source

    source = model_source(config.model.name)
    require_vision_family(source)
    check_kernels(model_config(source), patched=True)
    with foreign_files(f"model {source!r} cannot be loaded"):
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
    return LoadedBase(model, load_processor(source), config.model.name, shapes, _checkpointing(config))


def _import_first() -> Any:
    """Import Unsloth before the libraries that it patches."""
    early = [name for name in ("transformers", "peft", "trl") if name in sys.modules]
    if early and "unsloth" not in sys.modules:
        raise BackendError(
            f"{', '.join(early)} was imported before unsloth, which then cannot patch it; "
            f"start dfktrain in a fresh process, or import unsloth first"
        )
    # its compiler costs minutes before the first step; its own kernels avoid a miscompilation on Hopper GPUs
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


def adapt(base: LoadedBase, modules: list[str], config: AdapterConfig) -> Any:
    """Attach the adapter to `modules`; see `dfktrain.engines`."""
    unsloth = _import_first()
    if config.kind == "full":
        return base.model
    if config.warm_start is not None:
        return attach_saved(base, config.warm_start)
    for key, configured in (
        ("dora", config.dora),
        ("loftq", config.loftq),
        ("kind: peft", config.kind == "peft"),
    ):
        if configured:
            raise ConfigError(f"adapter.{key} is not supported by engine unsloth; use engine: transformers")
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
    check_modules(model, modules)
    return model


def check_modules(model: Any, modules: list[str]) -> None:
    """Raise `BackendError` unless the adapter sits on exactly `modules`."""
    names = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}
    carriers = {name.removeprefix("base_model.model.") for name in names}
    if carriers != set(modules):
        unequal = sorted(carriers ^ set(modules))
        raise BackendError(
            f"the adapter sits on {len(carriers)} modules, {len(modules)} were asked for; e.g. {unequal[0]}"
        )
