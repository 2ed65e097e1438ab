"""The files of a LoRA adapter: its keys, what they fit, and who serves them.

Strategy: everything is read from adapter_config.json and the tensors' shapes, before any weight is loaded.
Both layouts in use are read: PEFT's own and the one that Unsloth saves (a pattern instead of a list of
modules, and facts of its own in the config); their keys are alike. Promises: pickled adapters are never
loaded; an adapter is matched with a base by names and shapes, not by what the base is called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from dfkdata.common.errors import ConfigError, missing_package

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_KEY = re.compile(r"^(?P<module>.+)\.lora_(?P<side>A|B)(?:\.default)?\.weight$")
#: Layers that vLLM leaves out without a word: the vision tower with its merger, and the Gated DeltaNet.
UNSERVED = re.compile(r"(?:^|\.)(?:visual|vision_tower|vision_model|multi_modal_projector|linear_attn)\.")


def folder(adapter: str | Path) -> Path:
    """The adapter's folder. Raises `ConfigError` when it is none."""
    found = Path(adapter)
    if not (found / CONFIG).is_file():
        raise ConfigError(f"adapter {str(adapter)!r}: no {CONFIG} there; give the folder that PEFT saved")
    return found


def shapes(adapter: Path) -> dict[str, tuple[int, ...]]:
    """Key of the file -> shape. Raises `ConfigError` for a missing or broken file."""
    path = adapter / TENSORS
    if not path.is_file():
        raise ConfigError(f"adapter {adapter}: no {TENSORS} (pickled adapters are not loaded)")
    try:
        import safetensors
    except ModuleNotFoundError as error:
        raise missing_package("reading an adapter", "safetensors", "hf") from error
    try:
        with safetensors.safe_open(str(path), framework="numpy") as tensors:
            return {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigError(f"adapter {adapter}: {path.name} is broken ({error}); copy it again") from error


def rank(adapter: Path) -> int:
    """The largest rank of its layers: the smaller side of its A matrices."""
    found = [min(shape) for key, shape in shapes(adapter).items() if ".lora_A." in key]
    return max(found, default=1)


def modules(keys: Iterable[str]) -> list[str]:
    """The layers that a file's keys belong to, sorted, named as in the base."""
    found = {match["module"].removeprefix(_PREFIX) for key in keys if (match := _KEY.match(key))}
    return sorted(found)


def refuse_unserved(adapter: Path) -> None:
    """Raises `ConfigError` for an adapter with layers that vLLM ignores."""
    found = [name for name in modules(shapes(folder(adapter))) if UNSERVED.search(name)]
    if found:
        raise ConfigError(
            f"adapter {adapter}: {len(found)} of its layers are in the vision tower or the Gated DeltaNet "
            f"projections (for example {found[0]}), and vLLM leaves them out without a word; merge first "
            "(dfktrain merge) and give the merged folder as model, or use the transformers backend"
        )


def refuse_misfits(base: Mapping[str, tuple[int, ...]], adapter: Path) -> None:
    """Raises `ConfigError` where a matrix of the adapter does not fit its layer of the base.

    base: parameter name -> shape; a linear layer's weight is (out, in), A is (rank, in), B is (out, rank)."""
    found = (_misfit(key, shape, base) for key, shape in sorted(shapes(adapter).items()))
    faults = [fault for fault in found if fault is not None]
    if faults:
        raise ConfigError(
            f"adapter {adapter} does not fit this base model: {len(faults)} keys, for example {faults[0]}; "
            "it was trained on another model class or another base"
        )


def _misfit(key: str, shape: tuple[int, ...], base: Mapping[str, tuple[int, ...]]) -> str | None:
    match = _KEY.match(key)
    if match is None:
        return f"{key} (no LoRA matrix)"
    weight = base.get(f"{match['module'].removeprefix(_PREFIX)}.weight")
    if weight is None:
        return f"{key} (no such layer)"
    inner, outer = (shape[1], weight[1]) if match["side"] == "A" else (shape[0], weight[0])
    return None if inner == outer else f"{key} ({inner} where the layer has {outer})"
