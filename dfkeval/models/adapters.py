"""The files of a LoRA adapter: its keys, what they fit, who serves them, and how one is put on its base.

How it works: everything is read from adapter_config.json and the tensors' shapes, before any weight is
loaded. PEFT's own layout is read, and the one that Unsloth saves (a pattern instead of a list of modules, and
facts of its own in the config); their keys are alike. One adapter can come as
`base_model.model.model.language_model.layers.0...` (PEFT on the whole class),
`base_model.model.model.layers.0...` (trained through the text-only class, as Unsloth's language loader saves
it) or `base_model.model.language_model.model.layers.0...` (older class layouts), and with or without the
adapter's name in its keys, so modules are compared by their `plain_name`.

Guarantees:
- Pickled adapters are never loaded.
- An adapter is matched with a base by names and shapes, not by what the base is called.
- An attached adapter is complete: all its keys arrive, none is left over, and it changes the logits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError, missing_package
from dfkdata.common.json_files import read_json
from dfkeval.models import families
from dfkeval.models._packages import require_package
from dfkeval.models.loading import foreign_files

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"

_WRAP = re.compile(r"^(?:base_model\.model\.)+")
_FACTOR = re.compile(r"^(?P<module>.+)\.(?P<part>lora_[AB])(?:\.[^.]+)?\.(?P<kind>weight|bias)$")
_MAGNITUDE = re.compile(r"^(?P<module>.+)\.lora_magnitude_vector(?:\.[^.]+)??(?:\.weight)?$")
_SAVED = re.compile(r"\.modules_to_save(?:\.(?!weight$|bias$)[^.]+)?(?=\.)")
#: Any text of a few tokens; the check of an adapter looks at its logits.
_PROBE = "Label: netral"


@dataclass
class AdapterKeys:
    """The keys of an adapter's file by their meaning.

    Args:
        parts: Plain module name -> "lora_A.weight", "lora_B.weight", "lora_B.bias" or "magnitude" -> key.
        names: Plain module name -> the name that the adapter spells, without PEFT's prefix.
        replaced: Plain tensor name -> key of the value that takes its place.
        copies: Plain tensor name -> key of what should equal the base; PEFT adds these by itself.
        unexpected: Key -> why this project cannot apply it.
    """

    parts: dict[str, dict[str, str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    unexpected: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, keys: Iterable[str], config: Mapping[str, Any]) -> AdapterKeys:
        """Sort the keys of the adapter in `folder` by their meaning.

        Args:
            folder: Folder of the adapter, for messages.
            keys: Keys of its weight file.
            config: Its adapter_config.json.

        Raises:
            ConfigError: Two keys mean the same place.
        """
        table = cls()
        for key in keys:
            place, home = table._place(key, config)
            if place in home:
                raise ConfigError(
                    f"adapter {folder}: {home[place]} and {key} mean the same place; save one adapter"
                )
            home[place] = key if home is not table.unexpected else table._reason(key)
        return table

    def _place(self, key: str, config: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
        """Return (place, the table that it belongs to) of one key."""
        factor = _FACTOR.match(key)
        match = factor or _MAGNITUDE.match(key)
        if match is None:
            return self._whole(key, config)
        module = plain_name(match["module"])
        self.names[module] = _WRAP.sub("", match["module"])
        part = f"{factor['part']}.{factor['kind']}" if factor else "magnitude"
        return part, self.parts.setdefault(module, {})

    def _whole(self, key: str, config: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
        """Return the place of a tensor that is saved whole, if the configuration announces it."""
        name = plain_name(_SAVED.sub("", key))
        module, _, kind = name.rpartition(".")
        if "lora_" in key or "trainable_tokens" in key:
            return key, self.unexpected
        announced = config.get("modules_to_save") or ()
        inside = any(f".{end}." in f".{module}." for end in announced)
        if inside or (kind == "bias" and config.get("bias", "none") != "none"):
            return name, self.replaced
        if name in ("embed_tokens.weight", "lm_head.weight"):
            return name, self.copies
        return key, self.unexpected

    @staticmethod
    def _reason(key: str) -> str:
        if "lora_" in key or "trainable_tokens" in key:
            return f"{key} (an adapter of an embedding or a convolution) cannot be merged"
        return f"unexpected key {key}: neither LoRA, nor modules_to_save, nor a bias"


def plain_name(name: str) -> str:
    """Return a module's or tensor's name in the one spelling that all class layouts share."""
    return families.without_layout(_WRAP.sub("", name).replace(".base_layer.", "."))


def folder(adapter: str | Path) -> Path:
    """Return the adapter's folder. Raises `ConfigError` if it holds no adapter."""
    path = Path(adapter)
    if not (path / CONFIG_FILE).is_file():
        raise ConfigError(f"adapter {str(adapter)!r}: {_no_adapter(path)}")
    return path


def _no_adapter(path: Path) -> str:
    if not path.is_dir():
        return "no such folder; name the folder that PEFT saved, such as runs/first/adapter"
    if (path / "adapter" / CONFIG_FILE).is_file():
        return f"this is the folder of a run; its adapter is {path / 'adapter'}"
    return f"no {CONFIG_FILE} there; give the folder that PEFT saved"


def read_config(adapter: Path) -> dict[str, Any]:
    """Return the adapter_config.json of a folder.

    Raises:
        ConfigError: The folder holds no adapter.
        DataError: The file is not a JSON object.
    """
    return read_json(folder(adapter) / CONFIG_FILE, "give the folder that PEFT saved")


def shapes(adapter: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each key of the weight file. Raises `ConfigError` for a missing or broken file."""
    path = adapter / WEIGHTS_FILE
    if not path.is_file():
        raise ConfigError(f"adapter {adapter}: no {WEIGHTS_FILE} (pickled adapters are not loaded)")
    try:
        import safetensors
    except ModuleNotFoundError as error:
        raise missing_package("reading an adapter", "safetensors", "hf") from error
    try:
        with safetensors.safe_open(str(path), framework="numpy") as tensors:
            return {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigError(f"adapter {adapter}: {path.name} is broken ({error}); copy it again") from error


def read_keys(adapter: Path) -> AdapterKeys:
    """Return the keys of the adapter in a folder. Raises `ConfigError` and `DataError` for broken files."""
    return AdapterKeys.read(adapter, shapes(adapter), read_config(adapter))


def rank(adapter: Path) -> int:
    """Return the largest rank of the adapter's layers: the smaller side of its A matrices."""
    sizes = shapes(adapter)
    keys = [parts.get("lora_A.weight") for parts in read_keys(adapter).parts.values()]
    return max((min(sizes[key]) for key in keys if key is not None), default=1)


def modules(adapter: Path) -> list[str]:
    """Return the layers that carry the adapter, sorted, named as in the base."""
    return sorted(read_keys(adapter).names.values())


def check_served(adapter: Path, *, gated: bool = False) -> None:
    """Raise `ConfigError` for an adapter with layers that vLLM ignores.

    Args:
        adapter: Folder of the adapter.
        gated: Whether this vLLM serves adapters of Gated DeltaNet projections.
    """
    is_ignored = families.is_vision if gated else families.is_unserved
    ignored = [name for name in modules(folder(adapter)) if is_ignored(name)]
    if ignored:
        raise ConfigError(
            f"adapter {adapter}: {len(ignored)} of its layers are in the vision tower or the Gated DeltaNet "
            f"projections (for example {ignored[0]}), and this vLLM leaves them out without a word; merge first "
            "(dfktrain merge) and give the merged folder as model, or use the transformers backend"
        )


def check_fits(base: Mapping[str, tuple[int, ...]], adapter: Path) -> None:
    """Raise `ConfigError` if a matrix of the adapter does not fit its layer of the base.

    Args:
        base: Parameter name -> shape; a linear layer's weight is (out, in), A is (rank, in), B is (out,
            rank).
        adapter: Folder of the adapter.
    """
    faults = [fault for _, fault in sorted(_misfits(base, shapes(adapter), read_keys(adapter)))]
    if faults:
        raise ConfigError(
            f"adapter {adapter} does not fit this base model: {len(faults)} keys, for example {faults[0]}; "
            "it was trained on another model class or another base"
        )


def _misfits(
    base: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]], keys: AdapterKeys
) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong with it) for each key that does not fit."""
    for module, parts in keys.parts.items():
        weight = base.get(f"{keys.names[module]}.weight")
        for part, key in parts.items():
            if part not in ("lora_A.weight", "lora_B.weight"):
                yield key, f"{key} (not a LoRA matrix)"
            elif weight is None:
                yield key, f"{key} (no such layer)"
            else:
                a = part == "lora_A.weight"
                inner, outer = (shapes[key][1], weight[1]) if a else (shapes[key][0], weight[0])
                if inner != outer:
                    yield key, f"{key} ({inner} where the layer has {outer})"
    for key in (*keys.replaced.values(), *keys.copies.values(), *keys.unexpected):
        yield key, f"{key} (not a LoRA matrix)"


def attach(net: Any, folder: Path, processor: Any, *, verify: bool = True, trainable: bool = False) -> Any:
    """Put a LoRA adapter on its base.

    Args:
        net: The base network; PEFT changes it in place.
        folder: Folder of the adapter.
        processor: What tokenizes the text of the check; only its `tokenizer` is used.
        verify: Whether to check with one forward pass that the adapter changes the logits.
        trainable: Whether the adapter's weights are to be trained further.

    Returns:
        The PEFT model.

    Raises:
        ConfigError: A key of the file finds no place, a place gets no key, or the logits do not change.
    """
    peft = require_package("peft")
    saved = set(shapes(folder))
    with foreign_files(f"adapter {folder} does not fit this base model", ConfigError):
        adapted = peft.PeftModel.from_pretrained(net, str(folder), is_trainable=trainable)
    _check_keys(adapted, folder, saved, peft)
    if not trainable:
        adapted.eval()
    if verify:
        _check_effect(adapted, folder, processor)
    return adapted


def _check_keys(adapted: Any, folder: Path, saved: set[str], peft: Any) -> None:
    """Check that every tensor of the file has a place in the model, and every place a tensor."""
    placed = set(peft.get_peft_model_state_dict(adapted))
    unexpected, missing = sorted(saved - placed), sorted(placed - saved)
    if not unexpected and not missing:
        return
    lines = [f"{len(unexpected)} keys of the file have no place in the model"] if unexpected else []
    lines += [f"{len(missing)} places got no key"] if missing else []
    example = (unexpected or missing)[0]
    raise ConfigError(
        f"adapter {folder} does not fit this base model: {' and '.join(lines)}, for example {example}; "
        "it was trained on another model class or another base (the text-only class is the usual reason)"
    )


def _check_effect(adapted: Any, folder: Path, processor: Any) -> None:
    """Compare the logits of a short text with and without the adapter; an adapter of vision modules alone
    must have weights other than 0."""
    torch = require_package("torch")
    ids = processor.tokenizer(_PROBE, return_tensors="pt")["input_ids"].to(adapted.device)
    with torch.inference_mode():
        changed = _probe(adapted, ids, torch)
        with adapted.disable_adapter():
            plain = _probe(adapted, ids, torch)
    if not torch.equal(changed, plain):
        return
    vision = [p for name, p in adapted.named_parameters() if "lora_B" in name and families.is_vision(name)]
    if any(bool(p.detach().any()) for p in vision):
        return
    raise ConfigError(
        f"adapter {folder} does not change the model's logits: it is untrained (all its B matrices are 0) "
        "or was trained on another model class; there is nothing to evaluate"
    )


def _probe(adapted: Any, ids: Any, torch: Any) -> Any:
    return adapted(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
