"""The plain engine: transformers and PEFT, any device.

Promises: the vision-language class is loaded also for text-only work (an adapter trained through the
text-only class has no effect on the other); adapters are fp32 whatever the base; the head runs at scored
positions only."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkdata.common.errors import BackendError, ConfigError, missing_package
from dfkeval.models import families

if TYPE_CHECKING:
    from torch import nn

    from dfktrain.config.run import AdapterConfig, TrainConfig
    from dfktrain.engines._base import Base

_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def available() -> str | None:
    """None where transformers and PEFT are installed, else what is missing."""
    missing = [
        name for name in ("torch", "transformers", "peft", "accelerate") if not importlib.util.find_spec(name)
    ]
    return f'needs {", ".join(missing)}: pip install "dfk[train]"' if missing else None


def load(config: TrainConfig, precision: str) -> Base:
    """The base in `precision`, with its processor. Raises `ConfigError` or `BackendError`."""
    from dfktrain.engines._base import Base

    if config.model.kind == "llm":
        return _load_llm(config, precision)
    from dfkeval.models import loader
    from dfkeval.models.source import model_source

    source = model_source(config.model.name)
    known_family(source)
    check_kernels(model_config(source))
    if config.adapter.kind == "qlora":
        return _load_4bit(config)
    # all weights are trained in fp32 with bf16 arithmetic: steps of the usual size vanish in bf16 weights
    dtype = "float32" if config.adapter.kind == "full" else _DTYPES[precision]
    loaded = loader.load(config.model.name, dtype=dtype)
    if config.model.attention != "sdpa":
        loaded.model.set_attn_implementation(config.model.attention)
    return Base(loaded.model, loaded.processor, config.model.name, loaded.info["shapes_sha256"])


def _load_4bit(config: TrainConfig) -> Base:
    """The base in 4 bit (NF4, double quantisation), its small layers in bf16."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("adapter.kind qlora needs bitsandbytes: pip install bitsandbytes")
    import peft
    import torch
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    from dfkeval.models.processor import load_processor
    from dfkeval.models.source import model_source
    from dfktrain.engines._base import Base

    source = model_source(config.model.name)
    plan = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForImageTextToText.from_pretrained(
        source, quantization_config=plan, dtype=torch.bfloat16, attn_implementation=config.model.attention
    )
    model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return Base(model, load_processor(source), config.model.name, shapes_without_weights(source))


def shapes_without_weights(source: str) -> str:
    """Hash of the plain base's parameter shapes, from its config alone: what `dfk.json` is compared with."""
    import torch
    from transformers import AutoModelForImageTextToText

    from dfkeval.models.fingerprint import model_shapes_sha256

    with torch.device("meta"):
        return model_shapes_sha256(AutoModelForImageTextToText.from_config(model_config(source)))


def known_family(source: str) -> str:
    """The model type of a vision-language folder or hub name. Raises `ConfigError` for one that is not
    proved."""
    kind = model_config(source).model_type
    if kind not in families.FAMILIES:
        raise ConfigError(
            f"{source}: {kind} models are not supported as model.kind vlm; proved are {', '.join(families.FAMILIES)}"
            + (
                ""
                if hasattr(model_config(source), "vision_config")
                else "; for a text model write model.kind: llm"
            )
        )
    return str(kind)


def model_config(source: str) -> Any:
    """The model's own configuration. Raises `BackendError`."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise BackendError(f"model {source!r}: its config cannot be read: {error}") from error


def check_kernels(settings: Any, *, patched: bool = False) -> None:
    """A fast kernel that computes wrong gradients on this GPU stops the run before it costs anything.

    settings: the model's configuration. patched: kernels may have been bound without a package of theirs."""
    import torch

    from dfktrain.engines._kernels import require_gated_delta_rule

    fast = patched or importlib.util.find_spec("fla")
    if fast and families.family_of(settings.model_type).hybrid and torch.cuda.is_available():
        text = settings.get_text_config()
        require_gated_delta_rule("cuda", text.linear_num_value_heads, text.linear_value_head_dim)


def refuse_vision(source: str, settings: Any) -> None:
    """Raise `ConfigError` for a vision-language checkpoint that was asked for as a language model."""
    if hasattr(settings, "vision_config"):
        raise ConfigError(
            f"{source} is a vision-language model; as model.kind llm its adapter would have no effect on the "
            f"whole model. Write model.kind: vlm; it trains on text alone as well (modality: text)"
        )


def _load_llm(config: TrainConfig, precision: str) -> Base:
    """A causal language model and its tokenizer. A vision-language checkpoint is refused: an adapter trained
    through its text-only class would load into the whole model with no effect."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from dfkeval.models.fingerprint import model_shapes_sha256
    from dfkeval.models.source import model_source
    from dfktrain.engines._base import Base

    source = model_source(config.model.name)
    refuse_vision(source, model_config(source))
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=getattr(torch, _DTYPES[precision]), attn_implementation=config.model.attention
        )
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise BackendError(f"model {source!r} cannot be loaded: {error}") from error
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    _require_plain_head(model, source)
    return Base(model, tokenizer, config.model.name, model_shapes_sha256(model))


def _require_plain_head(model: Any, source: str) -> None:
    """Raise `ConfigError` unless the logits are the head's product with the body's last states, as the loss
    takes them: some models scale or cap theirs, and would be trained on another function without a word."""
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


def adapt(base: Base, modules: list[str], config: AdapterConfig) -> Any:
    """The base with a fresh or a warm adapter on `modules`, ready to train; for kind full the base itself."""
    from dfkeval.models import adapters

    if config.kind == "full":
        return base.model.requires_grad_(True)
    if config.warm_start is not None:
        holder = types.SimpleNamespace(tokenizer=getattr(base.processor, "tokenizer", base.processor))
        return adapters.attach(base.model, Path(config.warm_start), holder, trainable=True)
    return _fresh(base.model, modules, config)


def _fresh(model: nn.Module, modules: list[str], config: AdapterConfig) -> Any:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise missing_package("dfktrain", "peft", "train") from error
    if config.kind == "peft":
        return peft.get_peft_model(model, _method(modules, config))
    lora = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        bias=config.bias,
        use_rslora=config.rslora,
        use_dora=config.dora,
        target_modules=modules,
        task_type="CAUSAL_LM",
    )
    made = peft.get_peft_model(model, lora)
    if config.loftq:
        peft.replace_lora_weights_loftq(made)
    return made


def _method(modules: list[str], config: AdapterConfig) -> Any:
    """The PEFT configuration that `method` and `options` describe. Raises `ConfigError`."""
    import peft

    home, _, name = str(config.method).rpartition(".")
    try:
        method = getattr(importlib.import_module(home or "peft"), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(
            f"adapter.method {config.method!r}: no such class; for example peft.LoHaConfig"
        ) from error
    if not (isinstance(method, type) and issubclass(method, peft.PeftConfig)):
        raise ConfigError(f"adapter.method {config.method!r} is no PEFT configuration class")
    try:
        return method(**config.options, target_modules=modules, task_type="CAUSAL_LM")
    except (TypeError, ValueError) as error:
        raise ConfigError(f"adapter.options do not fit {config.method}: {error}") from error


def score_answers(model: Any) -> None:
    """Make `model(..., labels=...)` return the summed answer loss as `.loss`, with the head at scored
    positions only; `loss_weights` (B, T), if given, weigh its terms.

    Patches the instance, so wrappers (PEFT, DDP, FSDP) still see one forward call. Without labels nothing
    changes."""
    from dfktrain.engines._base import bare

    net = bare(model)
    plain = net.forward

    def forward(self: Any, *args: Any, labels: Any = None, loss_weights: Any = None, **inputs: Any) -> Any:
        if labels is None:
            return plain(*args, **inputs)
        return _scored(self, labels, loss_weights, inputs)

    forward.__signature__ = inspect.signature(type(net).forward)  # type: ignore[attr-defined] # `generate` reads it
    net.forward = types.MethodType(forward, net)


def _scored(net: Any, labels: Any, weights: Any, inputs: dict[str, Any]) -> Any:
    from dfktrain.losses.cross_entropy import answer_loss
    from dfktrain.losses.kl_to_base import preserving_loss
    from dfktrain.losses.output import AnswerOutput

    given = {name: value for name, value in inputs.items() if value is not None and name != "use_cache"}
    hidden = net.model(**given, use_cache=False).last_hidden_state
    head, keep = net.get_output_embeddings(), getattr(net, "dfk_keep", None)
    if keep is None:
        return AnswerOutput(loss=answer_loss(hidden, labels, head, weights=weights))
    base = keep.teacher.states(given)
    heads = head, keep.teacher.head
    loss, ce, kl = preserving_loss(hidden, base, labels, heads, keep, weights=weights)
    return AnswerOutput(loss=loss, ce=ce, kl=kl)
