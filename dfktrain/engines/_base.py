"""A trainable adapter on a loaded base; the one module that knows which engine is imported first.

Strategy: the target modules are resolved to full names once and handed to either engine, because engines read
words such as "all-linear" differently. The resolved list is written into the run.
Promises: nothing but linear layers gets an adapter, never the head; a spec that names no module is
refused."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dfkdata.common import plugins
from dfkdata.common.errors import BackendError, ConfigError
from dfkeval.models import families
from dfktrain.config.run import AdapterConfig, Switches, TrainConfig
from dfktrain.engines import _chat_template, _support


@dataclass
class Base:
    """A loaded base. shapes_sha256: hash of its parameter names and shapes, None where it has no such
    record. own_template: its chat template was replaced, so that the adapter must carry it along."""

    model: Any
    processor: Any
    name: str
    shapes_sha256: str | None = None
    checkpointing: bool | str = False
    own_template: bool = False


def pick_engine(wanted: str) -> Any:
    """The engine's module. "auto" is Unsloth where it can run, else transformers. Raises `ConfigError`."""
    if wanted == "auto":
        wanted = (
            "unsloth"
            if "unsloth" in plugins.names("dfktrain.engines") and _can("unsloth")
            else "transformers"
        )
    engine = plugins.load("dfktrain.engines", wanted)
    reason = engine.available()
    if reason is not None:
        raise ConfigError(f"engine {wanted!r} {reason}")
    return engine


def _can(name: str) -> bool:
    """Whether "auto" may take the engine: it can run, and nothing that it must patch is imported already."""
    if name == "unsloth" and "transformers" in sys.modules and "unsloth" not in sys.modules:
        return False
    return plugins.load("dfktrain.engines", name).available() is None


def pick_precision(wanted: str) -> tuple[str, str]:
    """(precision, why). "auto" is bf16 on a GPU that computes it natively, else fp32. Raises
    `ConfigError`."""
    native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "auto":
        return (
            ("bf16", "the GPU computes bf16 natively") if native else ("fp32", "no device with native bf16")
        )
    if wanted == "bf16" and torch.cuda.is_available() and not native:
        raise ConfigError(
            "precision bf16: this GPU only emulates it; use fp32 (fp16 makes Qwen3.5's gradients NaN)"
        )
    return wanted, "as configured"


def own_card() -> None:
    """Make this process's card the current one before anything is loaded. "cuda" would mean the first card in
    every process of a launch, and its memory would hold all their weights."""
    rank = os.environ.get("LOCAL_RANK")
    if rank is not None and torch.cuda.is_available():
        torch.cuda.set_device(int(rank) % torch.cuda.device_count())


def load_base(config: TrainConfig) -> tuple[Base, str, str]:
    """(base, engine name, precision) for a configuration."""
    own_card()
    engine = pick_engine(config.engine)
    precision, _ = pick_precision(config.precision)
    name = engine.__name__.rpartition(".")[2]
    _support.refuse(config, name, precision)
    base = engine.load(config, precision)
    if config.model.chat_template is not None:
        _chat_template.replace(base.processor, config.model.chat_template)
        base.own_template = True
    return base, name, precision


def outline(config: TrainConfig) -> tuple[Any, Any]:
    """(processor, network without weights) of a configuration. Raises `ConfigError` or `BackendError`."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

    from dfkeval.models.processor import load_processor
    from dfkeval.models.source import model_source
    from dfktrain.engines import transformers as plain

    source = model_source(config.model.name)
    settings = plain.model_config(source)
    if config.model.kind == "llm":
        plain.refuse_vision(source, settings)
        processor, auto = AutoTokenizer.from_pretrained(source), AutoModelForCausalLM
    else:
        plain.known_family(source)
        processor, auto = load_processor(source), AutoModelForImageTextToText
    if config.model.chat_template is not None:
        _chat_template.replace(processor, config.model.chat_template)
    with torch.device("meta"):
        return processor, auto.from_config(settings)


def adapt(base: Base, config: AdapterConfig, engine: str = "transformers") -> tuple[Any, list[str]]:
    """(model with its adapter in training mode and fp32 adapter weights, the modules that carry it)."""
    modules = [] if config.kind == "full" else target_modules(base.model, config.target_modules)
    model = plugins.load("dfktrain.engines", engine).adapt(base, modules, config)
    if config.warm_start is not None:
        _require_same(model, modules, config)
    for parameter in model.parameters():
        if parameter.requires_grad and config.kind != "full":
            parameter.data = parameter.data.float()
    return model, modules


def _require_same(model: Any, modules: list[str], config: AdapterConfig) -> None:
    """Raise `ConfigError` unless the warm adapter is the one that the configuration writes down."""
    found = model.peft_config["default"]
    pairs = {
        "rank": (config.rank, getattr(found, "r", None)),
        "alpha": (config.alpha, getattr(found, "lora_alpha", None)),
        "bias": (config.bias, getattr(found, "bias", None)),
        "rslora": (config.rslora, getattr(found, "use_rslora", None)),
        "dora": (config.dora, getattr(found, "use_dora", None)),
    }
    wrong = [f"{key} is {has}, written is {asked}" for key, (asked, has) in pairs.items() if asked != has]
    carriers = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}
    odd = sorted({name.removeprefix("base_model.model.") for name in carriers} ^ set(modules))
    if odd:
        wrong.append(
            f"it sits on {len(carriers)} modules, target_modules names {len(modules)}, e.g. {odd[0]}"
        )
    if wrong and config.kind != "peft":
        raise ConfigError(
            f"adapter.warm_start {config.warm_start} is not the adapter that is written here: "
            f"{'; '.join(wrong)}. Write what the adapter has, or start without it"
        )


def target_modules(model: nn.Module, spec: Switches | str | tuple[str, ...]) -> list[str]:
    """Full names of the linear layers that `spec` means (see `AdapterConfig`), in model order. Raises
    `ConfigError`."""
    linear = list(_linear(model))
    if isinstance(spec, tuple):
        chosen = [name for name in linear if any(name == end or name.endswith("." + end) for end in spec)]
        lost = [end for end in spec if not any(name == end or name.endswith("." + end) for name in linear)]
        if lost and lost[0].rpartition(".")[2] == _head_name(model):
            raise ConfigError(
                f"adapter.target_modules: {lost[0]!r} is the head, whose weight is the embedding's too; "
                f"an adapter there would change one of the two only"
            )
        if lost:
            ends = sorted({name.rpartition(".")[2] for name in linear})
            raise ConfigError(
                f"adapter.target_modules: no linear layer is called {lost[0]!r}"
                f"{plugins.suggestion(lost[0], ends)} (there are {', '.join(ends)})"
            )
        return chosen
    chosen = [name for name in linear if _chooses(spec, name)]
    if not chosen:
        raise ConfigError(f"adapter.target_modules {spec!r} names no linear layer of this model")
    return chosen


def _head_name(model: nn.Module) -> str:
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return next((name.rpartition(".")[2] for name, module in model.named_modules() if module is head), "")


def _switched(spec: Switches, name: str) -> bool:
    if "merger" in name:
        return spec.merger
    side = spec.vision if families.is_vision(name) else spec.language
    return side and (spec.attention if "attn" in name else spec.mlp)


def _chooses(spec: Switches | str, name: str) -> bool:
    if isinstance(spec, Switches):
        return _switched(spec, name)
    vision = families.is_vision(name)
    match spec:
        case "all-linear" | "all":
            return True
        case "vision":
            return vision
        case "language":
            return not vision
        case "servable":
            return not families.is_unserved(name)
        case _:
            return re.search(spec.removeprefix("re:"), name) is not None


def _linear(model: nn.Module) -> Iterator[str]:
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head:
            yield name


def bare(model: Any) -> Any:
    """The base network below PEFT and distributed wrappers."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Names and parameters that the optimiser will move."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


@contextmanager
def vision_frozen(model: nn.Module, freeze: bool) -> Iterator[None]:
    """Within, if `freeze`, no part of the vision tower or merger is trained; afterwards everything is as
    before."""
    frozen = [parameter for name, parameter in trainable(model) if freeze and families.is_vision(name)]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


@contextmanager
def adapters_in_bf16(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Within, if `wanted`, adapter products run in bf16 with fp32 master weights; needs autocast around the
    forward.

    PEFT would cast every activation to fp32 before the adapter and back after it."""
    layers = [layer for layer in model.modules() if wanted and hasattr(layer, "lora_A")]
    for layer in layers:
        layer.cast_input_dtype_enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.cast_input_dtype_enabled = True


def prove_effect(model: Any, batch: dict[str, Tensor]) -> None:
    """Raise `BackendError` unless the adapter changes what the model computes on `batch` (inputs without
    labels)."""
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "loss_weights")}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        changed = bare(model).model(**inputs, use_cache=False).last_hidden_state
        with model.disable_adapter():
            plain = bare(model).model(**inputs, use_cache=False).last_hidden_state
    model.train(was_training)
    if torch.equal(changed, plain):
        raise BackendError(
            "the trained adapter does not change the model's output; nothing was learned or it is not in use"
        )
