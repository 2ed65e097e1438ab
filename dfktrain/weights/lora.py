"""Read a LoRA adapter from disk, and compute how it changes the weights of its base.

How it works: `dfkeval.models.adapters` reads keys and configuration; here is the arithmetic. With s = alpha / r
LoRA makes W + s B A of a weight W (arXiv:2106.09685); rsLoRA has s = alpha / sqrt(r) (arXiv:2312.03732); DoRA
makes m (W + s B A) / |W + s B A|, with norms of output rows (arXiv:2402.09353).

Guarantees:
    - Every key of the file has a meaning, or the adapter is refused with the name of the key.
    - So is every setting by which the weight would become something else than `merged` computes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfkdata.common.errors import ConfigError
from dfkeval.models import adapters
from dfktrain.weights.safetensors_io import TensorFile, open_tensors, read_tensor, require_finite

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
    "trainable_token_indices": "it changes rows of the embedding, which the head shares",  # nosec B105
    "target_parameters": "it changes bare parameters (mixtures of experts)",
    "layer_replication": "the adapted model has more layers than the base",
    "use_qalora": "its A matrix works on pooled inputs",
    "arrow_config": "which adapter is on depends on the input",
}

#: Initialisations that take a part out of the base, so that the saved factors fit the changed base only.
_CHANGED_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")


@dataclass(frozen=True)
class Factors:
    """The LoRA of one layer.

    Attributes:
        module: Plain name of the layer.
        a: Key of A, (rank, in).
        b: Key of B, (out, rank).
        rank: The inner dimension.
        scale: s of the formula.
        magnitude: Key of DoRA's row norms, (out,); None without DoRA.
        bias: Key of B's bias, (out,); None without one.
    """

    module: str
    a: str
    b: str
    rank: int
    scale: float
    magnitude: str | None = None
    bias: str | None = None


@dataclass(frozen=True)
class Adapter:
    """An adapter folder.

    Attributes:
        folder: The folder.
        config: Contents of adapter_config.json.
        file: Header of the weight file.
        factors: Plain module name -> LoRA of that layer.
        replaced: Plain tensor name -> key of the value that takes its place.
        copies: Plain tensor name -> key of a copy that should equal the base's tensor.
        module_names: Plain module name -> name as the adapter spells it.
        base: Model that the adapter was trained on; None if it is not recorded.
    """

    folder: Path
    config: dict[str, Any]
    file: TensorFile
    factors: dict[str, Factors]
    replaced: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    module_names: dict[str, str] = field(default_factory=dict)
    base: str | None = None

    def tensor(self, key: str) -> Tensor:
        """Return one tensor in fp32. Raises `DataError` for NaN and infinity."""
        tensor = read_tensor(self.file.path, key).float()
        require_finite(tensor, f"{self.file.path}: tensor {key}")
        return tensor

    def shape(self, module: str) -> tuple[int, int]:
        """Return (out, in) of the weight that the factors of a module change."""
        factors = self.factors[module]
        shapes = self.file.shapes
        return shapes[factors.b][0], shapes[factors.a][1]

    @property
    def four_bit_base(self) -> bool:
        """Return whether the recorded base is a model quantised to 4 bit."""
        return self.base is not None and bool(_FOUR_BIT.search(self.base))


def full_precision(name: str) -> str:
    """Return the name of the 16-bit model of which `name` is a 4-bit copy; any other name unchanged."""
    return _FOUR_BIT.sub("", name)


def read(folder: Path) -> Adapter:
    """Read the adapter in a folder.

    Raises:
        ConfigError: The folder holds no adapter, or one of a kind or with a setting that cannot be merged.
        DataError: A file is broken.
    """
    config = adapters.read_config(folder)
    _check_settings(folder, config)
    path = folder / adapters.WEIGHTS_FILE
    if not path.is_file():
        raise ConfigError(
            f"adapter {folder}: no {path.name} (pickled adapters are not loaded); save it with safetensors"
        )
    file = open_tensors(path)
    keys = adapters.AdapterKeys.read(folder, (entry.name for entry in file.entries), config)
    if keys.unexpected:
        raise ConfigError(f"adapter {folder}: {next(iter(keys.unexpected.values()))}")
    layer = _LayerReader(folder, config, file.shapes)
    factors = {
        module: layer.factors(module, keys.names[module], parts) for module, parts in keys.parts.items()
    }
    base = _recorded_base(config)
    return Adapter(folder, config, file, factors, keys.replaced, keys.copies, keys.names, base)


def _check_settings(folder: Path, config: dict[str, Any]) -> None:
    """Raise for a setting that is on and that the formula does not cover."""
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


@dataclass(frozen=True)
class _LayerReader:
    folder: Path
    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    def factors(self, module: str, name: str, parts: Mapping[str, str]) -> Factors:
        """Return the LoRA of one layer. parts: "lora_A.weight" and the like -> key of the file."""
        self._check_complete(name, parts)
        a_key, b_key = parts["lora_A.weight"], parts["lora_B.weight"]
        a, b = self.shapes[a_key], self.shapes[b_key]
        if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            raise ConfigError(
                f"adapter {self.folder}: {name}: A {a} and B {b} are no factors of a linear layer"
            )
        rank = int(_of_pattern(self.config.get("rank_pattern"), name, self.config.get("r", 8)))
        if rank != a[0]:
            raise ConfigError(f"adapter {self.folder}: {name} has rank {a[0]}, its configuration says {rank}")
        alpha = float(_of_pattern(self.config.get("alpha_pattern"), name, self.config.get("lora_alpha", 8)))
        scale = alpha / (rank**0.5 if self.config.get("use_rslora") else rank)
        return Factors(module, a_key, b_key, rank, scale, parts.get("magnitude"), parts.get("lora_B.bias"))

    def _check_complete(self, name: str, parts: Mapping[str, str]) -> None:
        missing = [part for part in ("lora_A.weight", "lora_B.weight") if part not in parts]
        if self.config.get("use_dora") and "magnitude" not in parts:
            missing.append("lora_magnitude_vector")
        if missing:
            raise ConfigError(
                f"adapter {self.folder}: {name} has no {missing[0]}; the file is incomplete, save it again"
            )


def _of_pattern(pattern: dict[str, Any] | None, name: str, otherwise: Any) -> Any:
    """Return the value of the first key that matches the end of the module's name, as PEFT reads it."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return otherwise


def change(adapter: Adapter, factors: Factors) -> Tensor:
    """Return s B A, (out, in), in fp32."""
    return factors.scale * (adapter.tensor(factors.b) @ adapter.tensor(factors.a))


def merged(adapter: Adapter, factors: Factors, weight: Tensor) -> Tensor:
    """Return the layer's weight (out, in) with the adapter in it, added in fp32 and rounded once to its type."""
    total = weight.float() + change(adapter, factors)
    if factors.magnitude is not None:
        magnitude = adapter.tensor(factors.magnitude)
        total = (magnitude / torch.linalg.norm(total, dim=1))[:, None] * total
    return total.to(weight.dtype)
