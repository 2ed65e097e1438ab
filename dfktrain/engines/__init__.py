"""FAMILY: engines, one a file; an engine loads the base model and attaches the adapter.

The name of a member's file is the value of `engine:` in a training configuration. A member defines three
functions (`TrainingEngine` is their type):

    available() -> str | None
        Return None if the engine can run on this machine, else the reason in one line that ends with what
        to install or to write instead. It must not import the engine's own library.

    load(config: TrainConfig, precision: str) -> LoadedBase
        Load the base model of `config.model` in `precision` ("fp32" or "bf16"), with our processor. Raise
        `ConfigError` for a setting that the engine does not support and `BackendError` if loading fails.

    adapt(base: LoadedBase, modules: list[str], config: AdapterConfig) -> model
        Attach a PEFT adapter to exactly the linear layers in `modules`, which are full names, and return the
        model ready to train. For `kind: full` return the base model itself with every parameter trainable.

Everything else is shared by all engines: the target modules are resolved once, and the batches, the loss and
the training loop are the same. Two runs that differ only in `engine:` therefore differ only in their kernels.
A setting that an engine cannot support belongs into `_support.py`, so that `dfktrain check` shows it."""

from dfktrain.engines._base import LoadedBase, TrainingEngine, bare, trainable
from dfktrain.engines._body import WIDTHS, recorded_layers
from dfktrain.engines._fused import CROSS_ENTROPY, KL_TO_BASE, fused_layers
from dfktrain.engines._kernels import GDN_LIMIT, Kernel, gdn_difference, kernels
from dfktrain.engines._model_config import model_config, outline, shapes_without_weights
from dfktrain.engines._select import adapt, load_base, require_engine, select_engine, select_precision
from dfktrain.engines._support import unsupported
from dfktrain.engines._targets import target_modules
from dfktrain.engines._versions import PackageVersion, check_versions, package_versions

#: Names that every member defines.
REQUIRED = ("available", "load", "adapt")

__all__ = [
    "CROSS_ENTROPY", "GDN_LIMIT", "KL_TO_BASE", "WIDTHS", "Kernel", "LoadedBase", "PackageVersion",
    "TrainingEngine", "adapt",
    "bare", "check_versions", "fused_layers", "gdn_difference", "kernels", "load_base", "model_config", "outline",
    "package_versions", "recorded_layers", "require_engine", "select_engine", "select_precision",
    "shapes_without_weights", "target_modules", "trainable", "unsupported",
]  # fmt: skip
