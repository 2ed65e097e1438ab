"""Choose the engine and the precision, load the base and attach the adapter.

The target modules are resolved to full names once and given to either engine, because engines read words
such as "all-linear" differently. The list is written into the run's record."""

from __future__ import annotations

import os
import sys
from typing import Any, cast

import torch

from dfkdata.common import plugins
from dfkdata.common.errors import ConfigError
from dfkdata.common.status_line import now
from dfktrain.config.model import AdapterConfig
from dfktrain.config.run import TrainConfig
from dfktrain.engines import _chat_template
from dfktrain.engines._base import LoadedBase, TrainingEngine
from dfktrain.engines._support import check_supported
from dfktrain.engines._targets import target_modules
from dfktrain.engines._warm_start import check_saved

FAMILY = "dfktrain.engines"


def select_engine(name: str) -> tuple[str, TrainingEngine]:
    """Return name and module of the engine; "auto" is Unsloth if it can run, else transformers.

    Raises:
        ConfigError: There is no such engine, or it cannot run on this machine.
    """
    if name == "auto":
        name = "unsloth" if "unsloth" in plugins.names(FAMILY) and _unsloth_can_run() else "transformers"
    engine = _engine(name)
    reason = engine.available()
    if reason is not None:
        raise ConfigError(f"engine {name!r} {reason}")
    return name, engine


def _engine(name: str) -> TrainingEngine:
    return cast(TrainingEngine, plugins.load(FAMILY, name))


def _unsloth_can_run() -> bool:
    if "transformers" in sys.modules and "unsloth" not in sys.modules:
        return False  # Unsloth patches transformers and has to be imported before it
    return _engine("unsloth").available() is None


def select_precision(name: str) -> tuple[str, str]:
    """Return (precision, reason); "auto" is bf16 on a GPU that computes it natively, else fp32.

    Raises:
        ConfigError: bf16 is asked of a GPU that only emulates it.
    """
    native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        return (
            ("bf16", "the GPU computes bf16 natively") if native else ("fp32", "no device with native bf16")
        )
    if name == "bf16" and torch.cuda.is_available() and not native:
        raise ConfigError(
            "precision bf16: this GPU only emulates it; use fp32 (fp16 makes Qwen3.5's gradients NaN)"
        )
    return name, "as configured"


def load_base(config: TrainConfig) -> tuple[LoadedBase, str, str]:
    """Load the base model of a configuration.

    Returns:
        The base, the engine's name and the precision.

    Raises:
        ConfigError: The engine cannot run here or does not support a setting.
        BackendError: The model cannot be loaded.
    """
    _use_own_gpu()
    name, engine, precision = require_engine(config)
    now(f"loads the model {config.model.name}")
    base = engine.load(config, precision)
    now("prepares the rows")
    if config.model.chat_template is not None:
        _chat_template.replace(base.processor, config.model.chat_template)
        base.own_template = True
    return base, name, precision


def require_engine(config: TrainConfig) -> tuple[str, TrainingEngine, str]:
    """Return the engine's name, the engine and the precision; raise `ConfigError` if it cannot run this here."""
    name, engine = select_engine(config.engine)
    precision, _ = select_precision(config.precision)
    check_supported(config, name, precision)
    return name, engine, precision


def _use_own_gpu() -> None:
    # "cuda" would be the first GPU in every process of a launch, and its memory would hold all their weights
    rank = os.environ.get("LOCAL_RANK")
    if rank is not None and torch.cuda.is_available():
        torch.cuda.set_device(int(rank) % torch.cuda.device_count())


def adapt(base: LoadedBase, config: AdapterConfig, engine: str = "transformers") -> tuple[Any, list[str]]:
    """Attach the adapter that `config` describes to `base`.

    Returns:
        The model in training mode, its adapter weights in fp32, and the names of the layers that carry them.

    Raises:
        ConfigError: `target_modules` names no layer, or `warm_start` is another adapter than configured.
        BackendError: The engine put the adapter elsewhere.
    """
    modules = [] if config.kind == "full" else target_modules(base.model, config.target_modules)
    model = _engine(engine).adapt(base, modules, config)
    if config.warm_start is not None:
        check_saved(model, modules, config)
    for parameter in model.parameters():
        if parameter.requires_grad and config.kind != "full":
            parameter.data = parameter.data.float()
    return model, modules
