"""Load the base model with its adapter, processor and `dfk.json`, for evaluation and for training.

How it works: the whole vision-language class is loaded, also for text-only work, because an adapter that was
trained through the text-only class loads into the other one with no effect and only a warning.

Guarantees:
- torch and transformers are imported only inside functions.
- Nothing is downloaded if `model` is a folder.
- The class-level state of the image processor does not change."""

from __future__ import annotations

import ctypes
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError
from dfkdata.common.hashing import folder_sha256
from dfkeval.models import adapters, attention, fla_settings
from dfkeval.models import metadata as metadata_file
from dfkeval.models._packages import require_package
from dfkeval.models.fingerprint import kernels, model_shapes_sha256, template_sha256
from dfkeval.models.light_import import light_transformers
from dfkeval.models.loading import foreign_files
from dfkeval.models.metadata import ModelMetadata
from dfkeval.models.processor import TEMPLATE, load_processor, set_template
from dfkeval.models.quiet import quiet_loading
from dfkeval.models.source import TINY, model_source


@dataclass
class Loaded:
    """A loaded model.

    Args:
        model: The network in evaluation mode, on its device.
        processor: Tokenizer, image processor and chat template in one.
        metadata: The `dfk.json` of the adapter or the model folder; None if there is none.
        name: The model as the caller named it.
        info: Facts for the record of a run.
    """

    model: Any
    processor: Any
    metadata: ModelMetadata | None
    name: str
    info: dict[str, Any] = field(default_factory=dict)


def load(
    model: str | Path,
    *,
    adapter: str | Path | None = None,
    dtype: str = "auto",
    device: str = "auto",
    max_pixels: int | None = None,
    verify: bool = True,
) -> Loaded:
    """Load a model, with a LoRA adapter if given.

    Args:
        model: A model folder, a Hub name, or "tiny" for the built-in model.
        adapter: Folder of a LoRA adapter.
        dtype: "float32", "bfloat16", "float16", or "auto" (bfloat16 on a GPU, float32 on a CPU).
        device: "auto", "cpu", "cuda", or a card such as "cuda:1".
        max_pixels: Largest area of an image in pixels; None takes the limit of `dfk.json`, else the image
            processor's own.
        verify: Whether to check with one forward pass that the adapter changes the logits.

    Returns:
        The network, its processor, and the facts about both.

    Raises:
        ConfigError: Model, adapter, processor and `dfk.json` do not belong together.
        BackendError: The weights cannot be loaded.
    """
    source = model_source(model)
    folder = None if adapter is None else adapters.folder(adapter)
    with ThreadPoolExecutor(max_workers=2) as reader:  # while packages are imported
        weights = reader.submit(_weights_sha256, source)
        if device != "cpu":
            reader.submit(_wake_driver)
        return _load(str(model), source, folder, dtype, device, max_pixels, verify, weights)


def _load(
    model: str, source: str, folder: Path | None, dtype: str, device: str, max_pixels: int | None,
    verify: bool, weights: Future[str | None],
) -> Loaded:  # fmt: skip
    torch = require_package("torch")
    light_transformers()
    transformers = require_package("transformers")
    trained = metadata_file.read(folder) if folder is not None else _metadata_of(source)
    place = pick_device(torch, device)
    kind = _dtype(torch, dtype, place)
    with foreign_files(f"model {model!r} cannot be loaded"), quiet_loading():
        net = transformers.AutoModelForImageTextToText.from_pretrained(
            source, dtype=kind, attn_implementation="sdpa", trust_remote_code=False
        )
    net = net.to(place).eval()
    if net.device.type == "cuda":
        attention.leave_out_cudnn()
        fla_settings.keep_for(net)
    shapes = model_shapes_sha256(net)
    _check_base(trained, shapes, folder or source)
    processor = _processor_of(source, trained, folder, max_pixels)
    if folder is not None:
        net = adapters.attach(net, folder, processor, verify=verify)
    hashes = (weights.result(), shapes)
    info = _info(torch, transformers, net, processor, model, source, folder, kind, place, hashes)
    return Loaded(net, processor, trained, model, info)


def _wake_driver() -> None:
    """Start NVIDIA's driver, if there is one, in this process; that takes seconds on some machines and no memory
    of a card. torch finds it started."""
    try:
        ctypes.CDLL("libcuda.so.1").cuInit(0)
    except OSError:  # no such driver
        return


def _weights_sha256(source: str) -> str | None:
    """Return the hash of the weights in a folder; None for a Hub name."""
    return folder_sha256(Path(source)) if Path(source).is_dir() else None


def outline(model: str | Path, *, adapter: str | Path | None = None, max_pixels: int | None = None) -> Loaded:
    """Load everything but the weights, for an engine that loads them itself.

    Base, `dfk.json` and adapter are compared by names and shapes on a network without memory. `model` of the
    result is None. Raises as `load` does."""
    torch, transformers = require_package("torch"), require_package("transformers")
    source = model_source(model)
    folder = None if adapter is None else adapters.folder(adapter)
    trained = metadata_file.read(folder) if folder is not None else _metadata_of(source)
    with foreign_files(f"model {str(model)!r} cannot be loaded"):
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
        with torch.device("meta"):
            net = transformers.AutoModelForImageTextToText.from_config(config)
    shapes = model_shapes_sha256(net)
    _check_base(trained, shapes, folder or source)
    processor = _processor_of(source, trained, folder, max_pixels)
    if folder is not None:
        adapters.check_fits({name: tuple(weight.shape) for name, weight in net.named_parameters()}, folder)
    hashes = (_weights_sha256(source), shapes)
    info = _info(torch, transformers, net, processor, str(model), source, folder, "", "cuda", hashes)
    return Loaded(None, processor, trained, str(model), info)


def _processor_of(
    source: str, trained: ModelMetadata | None, folder: Path | None, max_pixels: int | None
) -> Any:
    """Return the processor with the adapter's template, and the requested pixels or those of `dfk.json`.
    Raises `ConfigError` if `dfk.json` records another template or other pixels."""
    budget = max_pixels if max_pixels is not None else (trained.max_pixels if trained else None)
    processor = load_processor(source, max_pixels=budget)
    if folder is not None and (folder / TEMPLATE).is_file():
        set_template(processor, (folder / TEMPLATE).read_text(encoding="utf-8"), str(folder / TEMPLATE))
    if trained is not None:
        requested = {"max_pixels": max_pixels, "template_sha256": template_sha256(processor)}
        metadata_file.check_matches(trained, f"{folder or source}/{metadata_file.NAME}", requested)
    return processor


def _metadata_of(source: str) -> ModelMetadata | None:
    return metadata_file.read(Path(source)) if Path(source).is_dir() else None


def pick_device(torch: Any, device: str) -> str:
    """Return the device to use; "auto" is a GPU if there is one. Raises `ConfigError` for a device that
    cannot be used here."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {device!r} cannot be used here ({reason}); choose auto or cpu") from error
    return device


def _dtype(torch: Any, dtype: str, device: str) -> Any:
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ConfigError(f"dtype {dtype!r}: choose float32, bfloat16, float16 or auto")
    return getattr(torch, dtype)


def _check_base(trained: ModelMetadata | None, shapes: str, where: Path | str) -> None:
    expected = trained.base.shapes_sha256 if trained is not None and trained.base is not None else None
    if expected is not None and expected != shapes:
        name = trained.base.name if trained is not None and trained.base is not None else "?"
        raise ConfigError(
            f"{where} was trained on another base model ({name!r}): parameter names and shapes differ; "
            "give that model or one with equal shapes"
        )


def _info(
    torch: Any, transformers: Any, net: Any, processor: Any, name: str, source: str, folder: Path | None,
    kind: Any, place: str, hashes: tuple[str | None, str],
) -> dict[str, Any]:  # fmt: skip
    local = Path(source).is_dir()
    return {
        "model": name if name == TINY or not local else Path(source).name,
        "weights_sha256": hashes[0],
        "revision": getattr(net.config, "_commit_hash", None),
        "adapter": folder.name if folder is not None else None,
        "adapter_sha256": folder_sha256(folder) if folder is not None else None,
        "shapes_sha256": hashes[1],
        "template_sha256": template_sha256(processor),
        "pixels": {key: processor.image_processor.size[key] for key in ("shortest_edge", "longest_edge")},
        "image_backend": type(processor.image_processor).__name__,
        "dtype": str(kind).removeprefix("torch."),
        "device": place,
        "attention": str(getattr(net.config, "_attn_implementation", None)),
        "kernels": kernels(net),
        "torch": str(torch.__version__),
        "transformers": str(transformers.__version__),
    }
