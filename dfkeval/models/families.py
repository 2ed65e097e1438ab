"""Model families: one entry holds every fact about a family that the code depends on.

How it works: an entry is named by the model type that its vision-language class has in config.json. Code that
knows the model type asks for its family; code that sees only layer names (an adapter on disk) asks about the
names of all families together. A new family is one entry in `FAMILIES`."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Names of vision towers and their projectors in families that have no entry of their own.
_USUAL_VISION = ("visual", "vision_tower", "vision_model", "multi_modal_projector")
#: Modules outside the layers: PEFT's "all linear layers" never means them.
_OUTSIDE = ("embed_tokens", "lm_head")


@dataclass(frozen=True)
class ModelFamily:
    """Facts about one family.

    Args:
        vision: Names of the modules that hold the vision tower and its merger.
        linear_attention: Names of the modules with a gated delta rule; empty if all layers are attention.
        unserved: Names of modules whose adapters vLLM ignores without a message, besides the vision modules.
        unloaded: Names of modules in the checkpoint that the model class does not load.
        layout: Prefixes before the text layers' names, which differ between class layouts.
        processor: Processor class, as "module:class".
        processor_class: Name of the library's class that a saved processor records.
        video_processor_class: Name of the library's class that reads videos for this processor.
        packable: Whether tests prove that packed samples do not see each other.
        chat_template: File of the family's chat template beside the built-in model; empty if there is none.
    """

    vision: tuple[str, ...] = ("visual",)
    linear_attention: tuple[str, ...] = ()
    unserved: tuple[str, ...] = ()
    unloaded: tuple[str, ...] = ()
    layout: tuple[str, ...] = ("model", "language_model")
    processor: str = "dfkeval.models.image_text_processor:ImageTextProcessor"
    processor_class: str = "Qwen3VLProcessor"
    video_processor_class: str = "Qwen3VLVideoProcessor"
    packable: bool = False
    chat_template: str = ""

    @property
    def hybrid(self) -> bool:
        """Return whether some layers compute a gated delta rule instead of attention."""
        return bool(self.linear_attention)


#: Vision-language model types that pass the tests of collator, mask, adapter, reload and generation.
FAMILIES: dict[str, ModelFamily] = {
    "qwen3_5": ModelFamily(
        linear_attention=("linear_attn",),
        unserved=("linear_attn",),
        unloaded=("mtp",),
        packable=True,
        chat_template="chat_template.jinja",
    ),
    "qwen3_vl": ModelFamily(),
    "qwen2_5_vl": ModelFamily(),
    "qwen2_vl": ModelFamily(),
}
#: Names of the weight files of a model or an adapter, and of the index of a model in several files.
WEIGHT_FILE = re.compile(r"^(?:adapter_model|model)[\w.-]*\.safetensors$|^model\.safetensors\.index\.json$")
#: What holds for a model without an entry.
_UNKNOWN = ModelFamily(vision=_USUAL_VISION)


def family_of(model_type: str) -> ModelFamily:
    """Return the family of a model type, text-only and mixture-of-experts variants of an entry included.

    Args:
        model_type: `model_type` of a config.json, for example "qwen3_5" or "qwen3_5_text".

    Returns:
        The entry with the longest name that `model_type` begins with; usual facts if there is none.
    """
    names = [name for name in FAMILIES if model_type == name or model_type.startswith(f"{name}_")]
    return FAMILIES[max(names, key=len)] if names else _UNKNOWN


def is_packable(model_type: str) -> bool:
    """Return whether samples of exactly this model type may be packed; variants of an entry are not
    verified."""
    return model_type in FAMILIES and FAMILIES[model_type].packable


def is_vision(module: str) -> bool:
    """Return whether a module's or parameter's full name lies in a vision tower or its merger."""
    return not _vision().isdisjoint(_parents(module))


def is_unserved(module: str) -> bool:
    """Return whether vLLM ignores an adapter on the module of this full name, without a message."""
    return not (_vision() | _union("unserved")).isdisjoint(_parents(module))


def is_linear_attention(module: str) -> bool:
    """Return whether a module's full name lies in a layer with a gated delta rule."""
    return not _union("linear_attention").isdisjoint(_parents(module))


def without_layout(name: str) -> str:
    """Return a module's or tensor's name in the one spelling that all class layouts share."""
    prefixes = "|".join(map(re.escape, sorted(_union("layout"))))
    return re.sub(rf"^(?:(?:{prefixes})\.)+", "", name)


def is_outside_layers(plain_name: str, *, text_only: bool) -> bool:
    """Return whether a linear layer needs no adapter although "all linear layers" were chosen.

    Args:
        plain_name: Name of the layer, as `without_layout` gives it.
        text_only: Whether the adapter leaves the vision modules out.
    """
    start = plain_name.partition(".")[0]
    outside = _union("unloaded").union(_OUTSIDE)
    return start in outside or (text_only and start in _vision())


def by_processor(processor_class: str) -> ModelFamily | None:
    """Return the first family whose saved processors record this class; None if there is none."""
    return next((each for each in FAMILIES.values() if each.processor_class == processor_class), None)


def _vision() -> frozenset[str]:
    return _union("vision").union(_USUAL_VISION)


def _union(fact: str) -> frozenset[str]:
    return frozenset(name for family in FAMILIES.values() for name in getattr(family, fact))


def _parents(name: str) -> list[str]:
    return name.split(".")[:-1]
