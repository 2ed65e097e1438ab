"""What a model's own configuration says about it, read without its weights."""

from __future__ import annotations

from typing import Any

from dfkdata.common.errors import ConfigError
from dfkeval.models.families import FAMILIES
from dfktrain.config.run import TrainConfig
from dfktrain.engines import _chat_template


def model_config(source: str) -> Any:
    """Return the transformers configuration of a folder or hub name.

    Raises:
        BackendError: It cannot be read.
    """
    from transformers import AutoConfig

    from dfkeval.models.loading import foreign_files

    with foreign_files(f"model {source!r}: its config cannot be read"):
        return AutoConfig.from_pretrained(source, trust_remote_code=False)


def require_vision_family(source: str) -> str:
    """Return the type of a vision-language model.

    Raises:
        ConfigError: The type is not among the tested `FAMILIES`.
    """
    settings = model_config(source)
    kind = settings.model_type
    if kind not in FAMILIES:
        text_only = not hasattr(settings, "vision_config")
        raise ConfigError(
            f"{source}: {kind} models are not supported as model.kind vlm; supported are {', '.join(FAMILIES)}"
            + ("; for a text model write model.kind: llm" if text_only else "")
        )
    return str(kind)


def check_language_model(source: str, settings: Any) -> None:
    """Raise `ConfigError` if a vision-language checkpoint is configured as a language model."""
    if hasattr(settings, "vision_config"):
        raise ConfigError(
            f"{source} is a vision-language model; as model.kind llm its adapter would have no effect on the "
            f"whole model. Write model.kind: vlm; it trains on text alone as well (modality: text)"
        )


def shapes_without_weights(source: str) -> str:
    """Return the hash of a vision-language model's parameter shapes, the value that `dfk.json` records."""
    import torch
    from transformers import AutoModelForImageTextToText

    from dfkeval.models.fingerprint import model_shapes_sha256

    with torch.device("meta"):
        return model_shapes_sha256(AutoModelForImageTextToText.from_config(model_config(source)))


def outline(config: TrainConfig) -> tuple[Any, Any]:
    """Return the processor and the network of a configuration, the network without weights.

    Raises:
        ConfigError: The model is of a type that cannot be trained as configured.
        BackendError: Its configuration cannot be read.
    """
    import torch

    from dfkeval.models.light_import import light_transformers
    from dfkeval.models.loading import foreign_files
    from dfkeval.models.processor import load_processor
    from dfkeval.models.source import model_source

    light_transformers()
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

    source = model_source(config.model.name)
    settings = model_config(source)
    if config.model.kind == "llm":
        check_language_model(source, settings)
        with foreign_files(f"the tokenizer of {source!r} cannot be loaded"):
            processor, auto = (
                AutoTokenizer.from_pretrained(source, trust_remote_code=False),
                AutoModelForCausalLM,
            )
    else:
        require_vision_family(source)
        processor, auto = load_processor(source), AutoModelForImageTextToText
    if config.model.chat_template is not None:
        _chat_template.replace(processor, config.model.chat_template)
    with foreign_files(f"model {source!r}: its config cannot be used"), torch.device("meta"):
        return processor, auto.from_config(settings)
