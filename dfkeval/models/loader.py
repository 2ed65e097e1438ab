"""Base model, adapter, processor and `dfk.json`: the one place that loads them, for evaluation and for
training.

Strategy: always load the whole vision-language class, also for text-only work, because an adapter that was
trained through the text-only class loads into the other one with no effect and only a warning. Every
adapter is proved: all its keys arrive, none is left over, and it changes the logits. Promises: torch and
transformers are imported only inside functions; nothing is downloaded when `model` is a folder; no
class-level state of the image processor is changed."""

from __future__ import annotations

import base64
import copy
import importlib
import inspect
import io
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfkdata.common.errors import BackendError, ConfigError, DataError, missing_package
from dfkeval.models import adapters, tiny
from dfkeval.models import metadata as cards
from dfkeval.models.quiet import quiet_loading

TINY = "tiny"
TEMPLATE = "chat_template.jinja"  # beside an adapter that was trained with another template than the base's
PROBE = "Label: netral"  # any text with a few tokens; the proof of an adapter looks at its logits


@dataclass
class Loaded:
    """model: in eval mode, on its device. processor: tokenizer, image processor and chat template in one.

    card: the `dfk.json` of the adapter or the model folder. info: facts for the record."""

    model: Any
    processor: Any
    card: cards.Card | None
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
    """Load a model folder, hub name, or "tiny"; with a LoRA adapter if given.

    dtype: "float32", "bfloat16", "float16", or "auto" (bfloat16 on a GPU, float32 on a CPU). device:
    "auto", "cpu", "cuda", "cuda:1". max_pixels: largest image in pixels; None takes the card's, else the
    image processor's own. verify: prove the adapter (one forward pass). Raises `ConfigError` for what
    cannot fit together and `BackendError` for weights that cannot be loaded."""
    torch = _require("torch")
    transformers = _require("transformers")
    source = model_source(model)
    folder = None if adapter is None else adapters.folder(adapter)
    card = cards.read(folder) if folder is not None else _card_of(source)
    place = pick_device(torch, device)
    kind = _dtype(torch, dtype, place)
    try:
        with quiet_loading():
            net = transformers.AutoModelForImageTextToText.from_pretrained(
                source, dtype=kind, attn_implementation="sdpa"
            )
    except (OSError, ValueError, KeyError, _require("safetensors").SafetensorError) as error:
        raise BackendError(f"model {str(model)!r} cannot be loaded: {error}") from error
    net = net.to(place).eval()
    shapes = model_shapes_sha256(net)
    _check_base(card, shapes, folder or source)
    processor = _processor_of(source, card, folder, max_pixels)
    if folder is not None:
        net = attach(net, folder, processor, verify=verify)
    info = _info(torch, transformers, net, processor, str(model), source, folder, kind, place, shapes)
    return Loaded(net, processor, card, str(model), info)


def outline(model: str | Path, *, adapter: str | Path | None = None, max_pixels: int | None = None) -> Loaded:
    """All but the weights: processor, card and facts, for an engine that loads the weights itself.

    Base, card and adapter are matched by names and shapes on a model without memory. `model` of the result
    is None. Raises as `load`."""
    torch, transformers = _require("torch"), _require("transformers")
    source = model_source(model)
    folder = None if adapter is None else adapters.folder(adapter)
    card = cards.read(folder) if folder is not None else _card_of(source)
    try:
        config = transformers.AutoConfig.from_pretrained(source)
        with torch.device("meta"):
            net = transformers.AutoModelForImageTextToText.from_config(config)
    except (OSError, ValueError, KeyError) as error:
        raise BackendError(f"model {str(model)!r} cannot be loaded: {error}") from error
    shapes = model_shapes_sha256(net)
    _check_base(card, shapes, folder or source)
    processor = _processor_of(source, card, folder, max_pixels)
    if folder is not None:
        adapters.refuse_misfits({name: tuple(each.shape) for name, each in net.named_parameters()}, folder)
    info = _info(torch, transformers, net, processor, str(model), source, folder, "", "cuda", shapes)
    return Loaded(None, processor, card, str(model), info)


def _processor_of(source: str, card: cards.Card | None, folder: Path | None, max_pixels: int | None) -> Any:
    """The processor with the adapter's template and the asked or the card's pixels. Raises `ConfigError`
    where the card says another template or other pixels."""
    budget = max_pixels if max_pixels is not None else (card.max_pixels if card else None)
    processor = load_processor(source, max_pixels=budget)
    if folder is not None and (folder / TEMPLATE).is_file():
        set_template(processor, (folder / TEMPLATE).read_text(encoding="utf-8"))
    if card is not None:
        asked = {"max_pixels": max_pixels, "template_sha256": template_sha256(processor)}
        cards.refuse_mismatch(card, f"{folder or source}/{cards.NAME}", asked)
    return processor


def model_source(model: str | Path) -> str:
    """What transformers is asked for: a folder's path, or a hub name. "tiny" is the model inside dfktrain."""
    if str(model) == TINY:
        return str(tiny_path())
    path = Path(model)
    if path.is_dir():
        return str(path)
    if path.is_absolute() or str(model).startswith((".", "~")) or str(model).count("/") != 1:
        raise ConfigError(
            f"model {str(model)!r}: no such folder; give a model folder, a hub name owner/name, or {TINY!r}"
        )
    return str(model)


def tiny_path() -> Path:
    """Return the folder of the built-in model."""
    return tiny.path()


def _card_of(source: str) -> cards.Card | None:
    return cards.read(Path(source)) if Path(source).is_dir() else None


def pick_device(torch: Any, device: str) -> str:
    """The device that is meant, "auto" included. Raises `ConfigError` for one that cannot be used here."""
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


def _check_base(card: cards.Card | None, shapes: str, where: Path | str) -> None:
    expected = card.base.shapes_sha256 if card is not None and card.base is not None else None
    if expected is not None and expected != shapes:
        name = card.base.name if card is not None and card.base is not None else "?"
        raise ConfigError(
            f"{where} was trained on another base model ({name!r}): parameter names and shapes differ; "
            "give that model or one with equal shapes"
        )


def model_shapes_sha256(net: Any) -> str:
    """Hash of a bare base model's parameter names and shapes; compares bases whatever their folder is
    called."""
    return cards.shapes_sha256({name: tuple(tensor.shape) for name, tensor in net.named_parameters()})


def template_sha256(processor: Any) -> str:
    """Hash of the chat template that the processor renders prompts with."""
    template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
    return cards.text_sha256(template if isinstance(template, str) else json.dumps(template, sort_keys=True))


def set_template(processor: Any, template: str) -> None:
    """Render prompts with `template` from now on; both halves of a processor may be asked."""
    processor.chat_template = template
    getattr(processor, "tokenizer", processor).chat_template = template


def load_processor(path: str | Path, *, max_pixels: int | None = None, min_pixels: int | None = None) -> Any:
    """Processor of a Qwen3-VL or Qwen3.5 folder or hub name; works without torchvision.

    max_pixels, min_pixels: bounds of an image's area in pixels after resizing; set on this instance only.
    Raises `BackendError` when the folder has no processor."""
    _require("transformers")
    from dfkeval.models.processor import ImageTextProcessor, add_video

    try:
        processor = ImageTextProcessor.from_pretrained(model_source(path))
    except (OSError, ValueError, TypeError) as error:
        raise BackendError(f"the processor of {str(path)!r} cannot be loaded: {error}") from error
    add_video(processor, model_source(path))
    if max_pixels is not None or min_pixels is not None:
        set_pixels(processor, max_pixels=max_pixels, min_pixels=min_pixels)
    return processor


def set_pixels(processor: Any, *, max_pixels: int | None = None, min_pixels: int | None = None) -> None:
    """Bound the area of resized images. Works on a copy of `size`: the library shares that dict between
    instances."""
    images = processor.image_processor
    size = copy.deepcopy(dict(images.size))
    if max_pixels is not None:
        size["longest_edge"] = max_pixels
        size["shortest_edge"] = min(size["shortest_edge"], max_pixels)
    if min_pixels is not None:
        size["shortest_edge"] = min_pixels
    if size["shortest_edge"] > size["longest_edge"]:
        raise ConfigError(f"min_pixels {size['shortest_edge']} is above max_pixels {size['longest_edge']}")
    images.size = size


def attach(net: Any, folder: Path, processor: Any, *, verify: bool = True, trainable: bool = False) -> Any:
    """The base with the LoRA adapter of `folder` on it, as a PEFT model.

    Raises `ConfigError` when a key of the file finds no place, a place gets no key, or the logits do not
    change."""
    peft = _require("peft")
    saved = set(adapters.shapes(folder))
    try:
        adapted = peft.PeftModel.from_pretrained(net, str(folder), is_trainable=trainable)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ConfigError(f"adapter {folder} does not fit this base model: {error}") from error
    _check_keys(adapted, folder, saved, peft)
    if not trainable:
        adapted.eval()
    if verify:
        _check_effect(adapted, folder, processor)
    return adapted


def _check_keys(adapted: Any, folder: Path, saved: set[str], peft: Any) -> None:
    """Every tensor of the file has its place in the model and the other way round."""
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
    """The logits of a short text with and without the adapter; vision-only adapters are judged by their
    weights."""
    torch = _require("torch")
    ids = processor.tokenizer(PROBE, return_tensors="pt")["input_ids"].to(adapted.device)
    with torch.inference_mode():
        changed = _probe(adapted, ids, torch)
        with adapted.disable_adapter():
            plain = _probe(adapted, ids, torch)
    if not torch.equal(changed, plain):
        return
    vision = [p for name, p in adapted.named_parameters() if "lora_B" in name and "visual" in name]
    if any(bool(p.detach().any()) for p in vision):
        return
    raise ConfigError(
        f"adapter {folder} does not change the model's logits: it is untrained (all its B matrices are 0) "
        "or was trained on another model class; there is nothing to evaluate"
    )


def _probe(adapted: Any, ids: Any, torch: Any) -> Any:
    return adapted(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits


def open_image(path: str | Path) -> Any:
    """The image as RGB. Raises `DataError` naming the file when it is missing or broken."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(_file(path)) as image:
            return image.convert("RGB")
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise DataError(f"image {path!s:.200}: cannot be read ({error})") from error


def _file(path: str | Path) -> Any:
    """What Pillow opens: the path, or the bytes of an image that the row carries as a data URI."""
    if not str(path).startswith("data:"):
        return path
    return io.BytesIO(base64.b64decode(str(path).partition(",")[2], validate=True))


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) in pixels, from the header alone. Raises `DataError` naming the file."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(_file(path)) as image:
            width, height = image.size
            return int(width), int(height)
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise DataError(f"image {path!s:.200}: cannot be read ({error})") from error


def weights_sha256(folder: Path) -> str:
    """Hash of the weight files of a folder, in name order; the identity of a model or an adapter in
    caches."""
    import hashlib

    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _info(
    torch: Any, transformers: Any, net: Any, processor: Any, name: str, source: str, folder: Path | None,
    kind: Any, place: str, shapes: str,
) -> dict[str, Any]:  # fmt: skip
    local = Path(source).is_dir()
    return {
        "model": name if name == TINY or not local else Path(source).name,
        "weights_sha256": weights_sha256(Path(source)) if local else None,
        "revision": getattr(net.config, "_commit_hash", None),
        "adapter": folder.name if folder is not None else None,
        "adapter_sha256": weights_sha256(folder) if folder is not None else None,
        "shapes_sha256": shapes,
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


def kernels(net: Any) -> dict[str, str]:
    """Which package computes the Gated DeltaNet layers, read off what transformers bound at import:
    function -> "fla", "causal_conv1d", or "torch" for the reference; empty without such layers."""
    layer = next((each for each in net.modules() if type(each).__name__.endswith("GatedDeltaNet")), None)
    if layer is None:
        return {}
    bound = vars(sys.modules[type(layer).__module__])
    found = {}
    for name in _KERNELS:
        outer = bound.get(f"torch_{name}", bound.get(name))
        if inspect.isfunction(outer):
            inner = inspect.getclosurevars(outer).nonlocals.get("implementation", outer)
            package = str(getattr(inner, "__module__", "")).partition(".")[0]
            found[name] = "torch" if package == "transformers" else package
    return found


_KERNELS = (
    "chunk_gated_delta_rule",
    "recurrent_gated_delta_rule",
    "causal_conv1d_fn",
    "causal_conv1d_update",
)

#: Facts of `info` that decide what a loaded model answers.
_IDENTITY = (
    "weights_sha256", "revision", "adapter_sha256", "template_sha256", "dtype", "attention", "kernels",
    "image_backend", "torch", "transformers",
)  # fmt: skip


def identity(info: dict[str, Any]) -> dict[str, Any] | None:
    """What a loaded model is, for the response cache; None when neither a hash nor a revision says it."""
    if not info.get("weights_sha256") and not info.get("revision"):
        return None
    return {key: info.get(key) for key in _IDENTITY} | {"device": str(info.get("device")).partition(":")[0]}


def _require(package: str) -> Any:
    """Import a heavy package, or say which extra brings it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise missing_package("loading a model", package, "hf") from error
