"""A LoRA adapter as it lies on disk: which weight of the base it changes, and by how much.

Strategy: keys and files are read by `dfkeval.models.adapters`; here is the arithmetic. Promises: every key of the file has a meaning or is refused by name; so is every setting of
the configuration that would make the weight change something else than what `change` computes. Formulas: LoRA
W + s B A with s = alpha / r (arXiv:2106.09685), rsLoRA s = alpha / sqrt(r) (arXiv:2312.03732), DoRA m (W + s
B A) / |W + s B A| by output row (arXiv:2402.09353)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfkdata.common.errors import ConfigError
from dfkeval.models import adapters
from dfktrain.weights.safetensors_io import TensorFile, open_tensors, require_finite

_FOUR_BIT = re.compile(r"(?:-unsloth)?-(?:bnb-)?(?:4bit|nf4)$", re.IGNORECASE)

#: Settings that do not change what the saved tensors mean.
_NEUTRAL = frozenset(
    "task_type auto_mapping peft_type peft_version base_model_name_or_path revision inference_mode "
    "lora_dropout loftq_config eva_config corda_config lora_ga_config runtime_config megatron_core "
    "qalora_group_size "
    "exclude_modules layers_to_transform layers_pattern".split()
)

#: Settings that this module computes with.
_USED = frozenset(
    "r lora_alpha rank_pattern alpha_pattern use_rslora use_dora target_modules modules_to_save bias "
    "lora_bias "
    "init_lora_weights ensure_weight_tying".split()
)

_REASONS = {
    "fan_in_fan_out": "its layers keep their weights transposed",
    "alora_invocation_tokens": "an activated LoRA is on for a part of the text only",
    "trainable_token_indices": "it changes rows of the embedding, which the head shares",
    "target_parameters": "it changes bare parameters (mixtures of experts)",
    "layer_replication": "the adapted model has more layers than the base",
    "use_qalora": "its A matrix works on pooled inputs",
    "arrow_config": "which adapter is on depends on the input",
}

#: Starts of an adapter that take something away from the base, so that the saved factors fit the changed base
#: only.
_CHANGED_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")


@dataclass(frozen=True)
class Factors:
    """The LoRA of one layer. a, b, magnitude, bias: keys of the adapter's file. rank: width of A. scale:
    s."""

    module: str
    a: str
    b: str
    rank: int
    scale: float
    magnitude: str | None = None
    bias: str | None = None


@dataclass(frozen=True)
class Adapter:
    """An adapter folder. factors: plain module name -> LoRA. replaced: plain tensor name -> key of its new
    value.

    copies: plain tensor name -> key of what should equal the base. module_names: plain module name -> name as
    the adapter spells it. base: the model it was trained on, if recorded."""

    folder: Path
    config: dict[str, Any]
    file: TensorFile
    factors: dict[str, Factors]
    replaced: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    module_names: dict[str, str] = field(default_factory=dict)
    base: str | None = None

    def tensor(self, key: str) -> Tensor:
        """One tensor in fp32. Raises `DataError` for NaN and infinity."""
        import safetensors

        with safetensors.safe_open(str(self.file.path), framework="pt") as tensors:
            found = tensors.get_tensor(key).float()
        require_finite(found, f"{self.file.path}: tensor {key}")
        return found

    def shape(self, module: str) -> tuple[int, int]:
        """Return (out, in) of the weight that the factors of a module change."""
        factors = self.factors[module]
        shapes = {entry.name: entry.shape for entry in self.file.entries}
        return shapes[factors.b][0], shapes[factors.a][1]

    @property
    def four_bit_base(self) -> bool:
        """Whether the recorded base is one quantised to 4 bit."""
        return self.base is not None and bool(_FOUR_BIT.search(self.base))


def full_precision(name: str) -> str:
    """The 16-bit model behind the name of a 4-bit one; any other name as it is."""
    return _FOUR_BIT.sub("", name)


def read(folder: Path) -> Adapter:
    """The adapter in `folder`. Raises `ConfigError` for a kind that cannot be merged and `DataError` for
    broken files."""
    config = adapters.read_config(folder)
    _refuse_settings(folder, config)
    path = folder / adapters.WEIGHTS_FILE
    if not path.is_file():
        raise ConfigError(
            f"adapter {folder}: no {path.name} (pickled adapters are not loaded); save it with safetensors"
        )
    file = open_tensors(path)
    keys = adapters.AdapterKeys.read(folder, (entry.name for entry in file.entries), config)
    if keys.unexpected:
        raise ConfigError(f"adapter {folder}: {next(iter(keys.unexpected.values()))}")
    shapes = {entry.name: entry.shape for entry in file.entries}
    factors = {
        module: _factors(folder, module, keys.names[module], found, shapes, config)
        for module, found in keys.parts.items()
    }
    base = _recorded_base(config)
    return Adapter(folder, config, file, factors, keys.replaced, keys.copies, keys.names, base)


def _refuse_settings(folder: Path, config: dict[str, Any]) -> None:
    """Every setting is used, neutral, or off; one that is on and unknown is refused."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ConfigError(
            f"adapter {folder}: its kind is {kind}; only LoRA (with rsLoRA, DoRA) can be merged here"
        )
    start = str(config.get("init_lora_weights", True)).lower()
    if start.startswith(_CHANGED_BASE):
        raise ConfigError(
            f"adapter {folder}: started with {start}, which takes a part out of the base; its factors fit "
            "that changed base only. Convert it on saving (PEFT: path_initial_model_for_weight_conversion) "
            "and merge the result"
        )
    for name, value in config.items():
        if name in _NEUTRAL or name in _USED or not value:
            continue
        reason = _REASONS.get(name, "this version does not know what it changes")
        raise ConfigError(
            f"adapter {folder}: {name}={value!r:.80} cannot be merged: {reason}; serve base and adapter"
        )


def _recorded_base(config: dict[str, Any]) -> str | None:
    name = config.get("base_model_name_or_path")
    return str(name) if name else None


def _factors(
    folder: Path, module: str, spelled: str, found: dict[str, str], shapes: dict[str, tuple[int, ...]],
    config: dict[str, Any],
) -> Factors:  # fmt: skip
    lost = [name for name in ("lora_A.weight", "lora_B.weight") if name not in found]
    if config.get("use_dora") and "magnitude" not in found:
        lost.append("lora_magnitude_vector")
    if lost:
        raise ConfigError(
            f"adapter {folder}: {spelled} has no {lost[0]}; the file is not whole, save it again"
        )
    a, b = shapes[found["lora_A.weight"]], shapes[found["lora_B.weight"]]
    if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
        raise ConfigError(f"adapter {folder}: {spelled}: A {a} and B {b} are no factors of a linear layer")
    rank = int(_of_pattern(config.get("rank_pattern"), spelled, config.get("r", 8)))
    if rank != a[0]:
        raise ConfigError(f"adapter {folder}: {spelled} has rank {a[0]}, its configuration says {rank}")
    alpha = float(_of_pattern(config.get("alpha_pattern"), spelled, config.get("lora_alpha", 8)))
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    return Factors(
        module, found["lora_A.weight"], found["lora_B.weight"], rank, scale, found.get("magnitude"),
        found.get("lora_B.bias"),
    )  # fmt: skip


def _of_pattern(pattern: dict[str, Any] | None, name: str, otherwise: Any) -> Any:
    """The value of the first key that names the module: a regular expression over the end of its name, as
    PEFT reads it."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return otherwise


def change(adapter: Adapter, factors: Factors) -> Tensor:
    """s B A: (out, in) in fp32."""
    return factors.scale * (adapter.tensor(factors.b) @ adapter.tensor(factors.a))


def merged(adapter: Adapter, factors: Factors, weight: Tensor) -> Tensor:
    """The layer's weight (out, in) with the adapter in it, added in fp32 and rounded once to the weight's
    type."""
    total = weight.float() + change(adapter, factors)
    if factors.magnitude is not None:
        size = adapter.tensor(factors.magnitude)
        total = (size / torch.linalg.norm(total, dim=1))[:, None] * total
    return total.to(weight.dtype)
