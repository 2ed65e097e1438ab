"""The configuration of the base model and of the adapter."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from dfkdata.common.config import Config, NonEmpty

HUB = "hf://"
"""The beginning of an address on the Hub."""

PRESETS = ("all-linear", "language", "vision", "all", "servable")


class ModelConfig(Config):
    """The base model.

    Args:
        name: "tiny" (the built-in model), a folder, or a hub name.
        kind: "vlm" loads the vision-language class, also for text-only data; "llm" loads a causal language
            model and refuses a vision-language checkpoint.
        chat_template: Replaces the model's own template: the path of a Jinja file, "qwen3_5" (the one in this
            package), or a named template of the model.
        attention: The attention implementation.
    """

    name: NonEmpty
    kind: Literal["vlm", "llm"] = "vlm"
    chat_template: NonEmpty | None = None
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"


class Switches(Config):
    """Target modules by part.

    Args:
        vision: Layers of the vision tower.
        language: Layers of the language model.
        attention: In both, the attention layers, gated delta rule included.
        mlp: In both, the MLP layers.
        merger: The merger between the two.
    """

    vision: bool = True
    language: bool = True
    attention: bool = True
    mlp: bool = True
    merger: bool = True


class AdapterConfig(Config):
    """What is trained.

    Args:
        kind: "lora", "qlora" (the base in 4 bit), "full" (every weight; the other keys must then be left out)
            or "peft" (any PEFT method).
        rank: Rank of the adapter.
        alpha: Scale of the adapter.
        dropout: Dropout before the adapter.
        bias: Which biases are trained.
        rslora: Scale by the square root of the rank.
        dora: Weight-decomposed adaptation.
        loftq: Start the adapter of a 4-bit base so that it makes up for the quantisation.
        method: With kind "peft", the dotted path of PEFT's configuration class.
        options: With kind "peft", the arguments of that class.
        target_modules: A word, a regular expression written "re:...", a list of endings of module names, or
            switches. "all-linear" and "all" are every linear layer but the head, vision tower and merger
            included; "language" those of the language model; "vision" those of the tower and the merger;
            "servable" those of the language model without the Gated DeltaNet projections, which servers
            silently leave out.
        warm_start: An adapter to go on from, a folder or hf://ORG/NAME[@REVISION]; its rank and modules must
            equal those written here.
    """

    kind: Literal["lora", "qlora", "full", "peft"] = "lora"
    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    bias: Literal["none", "all", "lora_only"] = "none"
    rslora: bool = False
    dora: bool = False
    loftq: bool = False
    method: NonEmpty | None = None
    options: dict[str, JsonValue] = Field(default_factory=dict)
    target_modules: Switches | str | tuple[str, ...] = "all-linear"
    warm_start: NonEmpty | None = None

    @field_validator("target_modules")
    @classmethod
    def _known_or_regex(cls, value: Switches | str | tuple[str, ...]) -> Switches | str | tuple[str, ...]:
        if isinstance(value, str) and value not in PRESETS and not value.startswith("re:"):
            raise ValueError(
                f"{value!r} is not one of {', '.join(PRESETS)}; write a list of names, or re:PATTERN"
            )
        if not value:
            raise ValueError("names no module; write all-linear, or kind: full to train every weight")
        return value

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        written = self.model_fields_set - {"kind"}
        if self.kind == "full" and written:
            raise ValueError(f"kind full trains every weight and has no {', '.join(sorted(written))}")
        if (self.kind == "peft") != (self.method is not None):
            raise ValueError("kind: peft and method: package.ConfigClass belong together")
        lost = written & {"rank", "alpha", "dropout", "bias", "rslora", "dora", "loftq"}
        if self.kind == "peft" and lost:
            raise ValueError(f"kind peft takes its settings from options, not from {', '.join(sorted(lost))}")
        if self.kind != "peft" and self.options:
            raise ValueError("options belong to kind: peft")
        if self.loftq and self.kind != "qlora":
            raise ValueError("loftq makes up for a 4-bit base; it needs kind: qlora")
        return self
