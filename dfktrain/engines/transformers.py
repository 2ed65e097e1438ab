"""The plain engine: transformers and PEFT, on any device.

Guarantees:
    - A vision-language model is loaded with its vision-language class, also to train on text alone: an
      adapter that was trained through the text-only class has no effect on the other.
    - All weights are trained in fp32 if `kind: full` asks for all of them, whatever the precision."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from dfkdata.common.errors import ConfigError, missing_package
from dfktrain.engines._base import LoadedBase
from dfktrain.engines._kernels import check_kernels
from dfktrain.engines._model_config import (
    check_language_model,
    model_config,
    require_vision_family,
    shapes_without_weights,
)
from dfktrain.engines._warm_start import attach_saved

if TYPE_CHECKING:
    from torch import nn

    from dfktrain.config.model import AdapterConfig
    from dfktrain.config.run import TrainConfig

_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def available() -> str | None:
    """Return None if transformers and PEFT are installed, else what is missing."""
    missing = [
        name for name in ("torch", "transformers", "peft", "accelerate") if not importlib.util.find_spec(name)
    ]
    return f'needs {", ".join(missing)}: pip install "dfk[train]"' if missing else None


def load(config: TrainConfig, precision: str) -> LoadedBase:
    """Load the base in `precision`, with its processor; see `dfktrain.engines`."""
    if config.model.kind == "llm":
        return _load_llm(config, precision)
    from dfkeval.models import loader
    from dfkeval.models.light_import import light_transformers
    from dfkeval.models.source import model_source

    light_transformers()
    source = model_source(config.model.name)
    require_vision_family(source)
    check_kernels(model_config(source), fused=config.fused_layers is not False)
    if config.adapter.kind == "qlora":
        return _load_4bit(config)
    # all weights are trained in fp32 with bf16 arithmetic: steps of the usual size vanish in bf16 weights
    dtype = "float32" if config.adapter.kind == "full" else _DTYPES[precision]
    loaded = loader.load(config.model.name, dtype=dtype)
    if config.model.attention != "sdpa":
        loaded.model.set_attn_implementation(config.model.attention)
    return LoadedBase(loaded.model, loaded.processor, config.model.name, loaded.info["shapes_sha256"])


def _load_4bit(config: TrainConfig) -> LoadedBase:
    """Load the base in 4 bit (NF4, double quantisation), its small layers in bf16."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("adapter.kind qlora needs bitsandbytes: pip install bitsandbytes")
    import peft
    import torch
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    from dfkeval.models.loading import foreign_files
    from dfkeval.models.processor import load_processor
    from dfkeval.models.source import model_source

    source = model_source(config.model.name)
    plan = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    with foreign_files(f"model {source!r} cannot be loaded"):
        model = AutoModelForImageTextToText.from_pretrained(
            source,
            quantization_config=plan,
            dtype=torch.bfloat16,
            attn_implementation=config.model.attention,
            trust_remote_code=False,
        )
    model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return LoadedBase(model, load_processor(source), config.model.name, shapes_without_weights(source))


def _load_llm(config: TrainConfig, precision: str) -> LoadedBase:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from dfkeval.models.fingerprint import model_shapes_sha256
    from dfkeval.models.loading import foreign_files
    from dfkeval.models.source import model_source

    source = model_source(config.model.name)
    check_language_model(source, model_config(source))
    kind, attention = getattr(torch, _DTYPES[precision]), config.model.attention
    with foreign_files(f"model {source!r} cannot be loaded"):
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=kind, attn_implementation=attention, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    _check_plain_head(model, source)
    return LoadedBase(model, tokenizer, config.model.name, model_shapes_sha256(model))


def _check_plain_head(model: Any, source: str) -> None:
    """Raise `ConfigError` unless the logits are the head's product with the body's last hidden states."""
    # the loss computes them so; a model that scales or caps its logits would be trained on another function
    import torch

    kind = model.config.model_type
    if not hasattr(model, "model") or model.get_output_embeddings() is None:
        raise ConfigError(
            f"{source}: {kind} models are not supported: their body and head are not where needed"
        )
    ids = torch.arange(1, 5, device=model.device).unsqueeze(0)
    with torch.no_grad():
        theirs = model(input_ids=ids, use_cache=False).logits
        ours = model.get_output_embeddings()(model.model(input_ids=ids, use_cache=False).last_hidden_state)
    if theirs.shape != ours.shape or not torch.equal(theirs.float(), ours.float()):
        raise ConfigError(
            f"{source}: {kind} models are not supported: they change their logits after the head, and "
            f"the loss here would not"
        )


def adapt(base: LoadedBase, modules: list[str], config: AdapterConfig) -> Any:
    """Attach a new adapter, or the one of `warm_start`, to `modules`; see `dfktrain.engines`."""
    if config.kind == "full":
        return base.model.requires_grad_(True)
    if config.warm_start is not None:
        return attach_saved(base, config.warm_start)
    return _new_adapter(base.model, modules, config)


def _new_adapter(model: nn.Module, modules: list[str], config: AdapterConfig) -> Any:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise missing_package("dfktrain", "peft", "train") from error
    if config.kind == "peft":
        return peft.get_peft_model(model, _peft_config(modules, config))
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        bias=config.bias,
        use_rslora=config.rslora,
        use_dora=config.dora,
        target_modules=modules,
        task_type="CAUSAL_LM",
    )
    adapted = peft.get_peft_model(model, settings)
    if config.loftq:
        peft.replace_lora_weights_loftq(adapted)
    return adapted


def _peft_config(modules: list[str], config: AdapterConfig) -> Any:
    """Return the PEFT configuration that `method` and `options` describe."""
    import peft

    home, _, name = str(config.method).rpartition(".")
    try:
        method = getattr(importlib.import_module(home or "peft"), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(
            f"adapter.method {config.method!r}: no such class; for example peft.LoHaConfig"
        ) from error
    if not (isinstance(method, type) and issubclass(method, peft.PeftConfig)):
        raise ConfigError(f"adapter.method {config.method!r} is not a PEFT configuration class")
    try:
        return method(**config.options, target_modules=modules, task_type="CAUSAL_LM")
    except (TypeError, ValueError) as error:
        raise ConfigError(f"adapter.options do not fit {config.method}: {error}") from error
