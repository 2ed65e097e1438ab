"""Base + adapter -> one model folder that needs neither PEFT nor this project, and the proof that it is the
same model.

Strategy: the base's weight files are rewritten with the adapter added into its layers (`tensorfile`, `lora`),
everything else is copied byte for byte: tensors that the loaded class does not know (`mtp.*`), fp32 ones
among bf16 (`A_log`), the tied head. A model that is loaded and saved again would lose the first and round the
second. Promises: one tensor in memory while writing; the folder appears under its name only after
`verify_merge` has passed, and a refusal leaves nothing behind; what cannot be merged is refused by name before
anything is written."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dfkdata.common import json_files
from dfkdata.common.errors import BackendError, ConfigError, DataError
from dfkdata.common.hashing import folder_sha256
from dfkeval.models import adapters, families, loader
from dfkeval.models import metadata as cards
from dfkeval.models.fingerprint import template_sha256
from dfkeval.models.source import model_source
from dfktrain.engines import package_versions, shapes_without_weights
from dfktrain.merging import probes as probes_
from dfktrain.merging.plan import Changes, plan_changes, read_config
from dfktrain.merging.verification import verify_merge
from dfktrain.reports import model_card
from dfktrain.weights import lora
from dfktrain.weights.safetensors_io import TensorFile, rewrite, weight_files

REPORT = "merge-report.json"
_COMPANIONS = (".json", ".jinja", ".txt", ".model", ".tiktoken")
_LEGAL = re.compile(r"^(?:LICENSE|LICENCE|NOTICE)", re.IGNORECASE)
_ADAPTERS_OWN = (adapters.CONFIG_FILE, REPORT, "trainer_state.json")


@dataclass(frozen=True)
class MergeReport:
    """A finished merge, as in `merge-report.json`. out: the model's folder. changed: tensors with the adapter
    in them.

    kept: number of tensors that are byte for byte the base's. scales: s of the LoRA formula -> layers. notes:
    what the user should know. proof: see `dfktrain.merging.verification`."""

    out: Path
    base: str
    base_sha256: str
    adapter_sha256: str
    merged_sha256: str
    changed: tuple[str, ...]
    kept: int
    scales: dict[str, int]
    notes: tuple[str, ...]
    verification: dict[str, Any]
    seconds: float
    versions: dict[str, str]


Say = Callable[[str], None]


def merge_adapter(
    base_dir: str | Path | None,
    adapter_dir: str | Path,
    out_dir: str | Path,
    *,
    probes: Path | None = None,
    chat_template: Path | None = None,
    device: str = "auto",
    say: Say = lambda line: None,
) -> MergeReport:
    """Merge the LoRA adapter of `adapter_dir` into the model of `base_dir` and prove it; the result is
    `out_dir`.

    base_dir: a folder, "tiny" or a hub name; None takes the model that the adapter names, the 16-bit one
    where it was trained on a 4-bit one. probes: rows whose prompts the proof asks, instead of the built-in
    ones. chat_template: what the adapter was trained with, where that is neither in its folder nor the
    base's. say: called with each step.

    Raises `ConfigError` for what cannot be merged, `DataError` for broken files and for a merge that is not
    proved."""
    import torch

    started = time.perf_counter()
    device = loader.pick_device(torch, device)
    out = _free(Path(out_dir))
    adapter = lora.read(Path(adapter_dir))
    base, notes = _base(base_dir, adapter)
    _refuse_twice(base, adapter.folder)
    files = weight_files(base)
    changes = plan_changes(adapter, files, base)
    card = cards.read(adapter.folder)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        _make(part, files)
        notes += _companions(base, adapter.folder, part, chat_template)
        _check_card(card, part, adapter.folder)
        say("writing the weights")
        _write(files, part, changes)
        if card is not None:
            cards.write(part, card)
        asked = probes_.of_rows(probes) if probes is not None else probes_.built_in(part, card)
        found = verify_merge(base, adapter, part, set(changes), asked, device=device, say=say)
        if found.faults:
            raise DataError(
                f"{adapter.folder}: the merge is not faithful, nothing is kept: " + "; ".join(found.faults)
            )
        report = MergeReport(
            out=out,
            base=_public_name(base_dir, adapter, base),
            base_sha256=folder_sha256(base),
            adapter_sha256=folder_sha256(adapter.folder),
            merged_sha256=folder_sha256(part),
            changed=tuple(sorted(changes)),
            kept=found.weights["kept"],
            scales=_scales(adapter),
            notes=tuple(notes),
            verification=found.record(),
            seconds=round(time.perf_counter() - started, 3),
            versions=package_versions(),
        )
        model_card.write(adapter.folder.parent, part, merged=True)
        json_files.write_json(part / REPORT, _record(report), floats="repr")
        if out.is_dir():
            out.rmdir()
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return report


def _record(report: MergeReport) -> dict[str, Any]:
    """Return the contents of merge-report.json."""
    names = {"verification": "proof"}  # the name in files, which stays
    record = {names.get(name, name): value for name, value in asdict(report).items()}
    return record | {"format": 1, "out": report.out.name}


def _refuse_twice(base: Path, adapter: Path) -> None:
    """The base is not already this adapter's merge. Raises `ConfigError`."""
    before = json_files.read_json_or_none(base / REPORT)
    if before is not None and before.get("adapter_sha256") == folder_sha256(adapter):
        raise ConfigError(
            f"{base}: this adapter is merged into it already, twice would be {adapter} doubled; "
            f"merge into {before['base']}"
        )


def _free(out: Path) -> Path:
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists and is not empty; name a new folder with --out")
    return out


def _base(asked: str | Path | None, adapter: lora.Adapter) -> tuple[Path, list[str]]:
    """(folder of the base, notes). Raises `ConfigError` for a quantised base, naming the model to give
    instead."""
    card = cards.read(adapter.folder)
    named = _named(adapter, card)
    if asked is None and named is None:
        raise ConfigError(f"adapter {adapter.folder}: names no base model; give it with --base")
    notes = _quantisation(adapter, card)
    folder = _local(asked if asked is not None else str(named))
    if read_config(folder).get("quantization_config"):
        raise ConfigError(
            f"base {folder}: its weights are quantised, and a sum with them would be rounded to their few "
            f"bits; merge into the 16-bit model: --base {named or lora.full_precision(folder.name)}"
        )
    _check_shapes(card, folder, adapter.folder)
    if asked is not None and named and Path(named).name != Path(str(asked)).name:
        notes.append(
            f"the adapter names {Path(named).name} as its base, it is merged into {Path(asked).name}"
        )
    return folder, notes


def _named(adapter: lora.Adapter, card: cards.Card | None) -> str | None:
    """The base that the adapter was trained on, as `dfk.json` or PEFT recorded it; of a 4-bit one its 16-bit
    base."""
    name = card.base.name if card is not None and card.base is not None else adapter.base
    return lora.full_precision(name) if name else None


def _quantisation(adapter: lora.Adapter, card: cards.Card | None) -> list[str]:
    """What a 4-bit base in training means for the merged model. Raises `ConfigError` for LoftQ."""
    quantized = card.quantized if card is not None else None
    if quantized is not None and "loftq" in quantized:
        raise ConfigError(
            f"adapter {adapter.folder}: LoftQ started it as the error of the 4-bit base, which the 16-bit "
            "base does not have; serve it on the 4-bit base"
        )
    if not adapter.four_bit_base and quantized is None:
        return []
    how = f"{adapter.base}, a 4-bit model" if adapter.four_bit_base else f"{_named(adapter, card)}, in 4 bit"
    return [
        f"the adapter was trained on {how}; merged into the 16-bit base, it answers as that one does with "
        "the adapter, not as the 4-bit one did: score it again"
    ]


def _check_shapes(card: cards.Card | None, folder: Path, adapter: Path) -> None:
    """The base has the parameters that `dfk.json` knows. Raises `ConfigError`."""
    expected = card.base.shapes_sha256 if card is not None and card.base is not None else None
    if expected is None or not probes_.is_vision_model(folder):
        return
    if shapes_without_weights(str(folder)) != expected:
        raise ConfigError(f"adapter {adapter}: was trained on a model of other shapes than {folder}")


def _local(name: str | Path) -> Path:
    """The model's folder; a hub name is downloaded, because the user named one."""
    source = model_source(name)
    if Path(source).is_dir():
        return Path(source)
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(source))
    except HFValidationError as error:
        raise ConfigError(f"model {source!r}: no such folder, and no name of a hub model") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BackendError(f"model {source!r} cannot be downloaded: {error}") from error


def _make(part: Path, files: list[TensorFile]) -> None:
    """The partial folder. Raises `ConfigError` where it cannot be made or the disk is too small."""
    needed = sum(file.path.stat().st_size for file in files)
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(
            f"{part.parent}: cannot be written ({error.strerror}); give another --out"
        ) from error
    free = shutil.disk_usage(part).free
    if free < needed * 1.02:
        raise ConfigError(
            f"{part.parent}: {free >> 20} MiB free, the model needs {needed >> 20}; give another --out"
        )


def _companions(base: Path, adapter: Path, part: Path, template: Path | None) -> list[str]:
    """Copy everything beside the weights that a model folder needs; returns notes about what was left out."""
    left = []
    for path in sorted(base.iterdir()):
        if (
            path.suffix == ".safetensors"
            or path.name in (*_ADAPTERS_OWN, cards.NAME, "README.md")
            or path.is_dir()
        ):
            continue
        if path.suffix in _COMPANIONS or _LEGAL.match(path.name):
            shutil.copyfile(path, part / path.name)
        elif not path.name.startswith("."):
            left.append(path.name)
    notes = [f"left out of the copy: {', '.join(left)}"] if left else []
    notes += _template(adapter, part, template)
    _video_processor(part)
    return notes


def _template(adapter: Path, part: Path, given: Path | None) -> list[str]:
    """Put the chat template that the adapter was trained with in place of the base's."""
    own = given if given is not None else adapter / "chat_template.jinja"
    if given is not None and not given.is_file():
        raise ConfigError(f"--chat-template {given}: no such file")
    target = part / "chat_template.jinja"
    if not own.is_file() or (target.is_file() and target.read_bytes() == own.read_bytes()):
        return []
    shutil.copyfile(own, target)
    return [f"the chat template is that of {own.name if given else 'the adapter'}, not the base's"]


def _video_processor(part: Path) -> None:
    """Qwen3-VL's processor class asks for a video processor; a base without one gets the settings of its
    images."""
    target = part / "video_preprocessor_config.json"
    whole = json_files.read_json_or_none(part / "processor_config.json") or {}
    images = (
        whole.get("image_processor") or json_files.read_json_or_none(part / "preprocessor_config.json") or {}
    )
    named = (str(settings.get("processor_class")) for settings in (whole, images))
    family = next((family for name in named if (family := families.by_processor(name))), None)
    if target.exists() or "video_processor" in whole or family is None:
        return
    kept = ("patch_size", "merge_size", "temporal_patch_size", "image_mean", "image_std", "size")
    video = {key: images[key] for key in kept if key in images}
    kind = {"processor_class": family.processor_class, "video_processor_type": family.video_processor_class}
    json_files.write_json(target, video | kind, floats="repr")


def _check_card(card: cards.Card | None, part: Path, adapter: Path) -> None:
    """The merged folder renders prompts as training did."""
    if card is None or card.template_sha256 is None:
        return
    rendered = template_sha256(probes_.load_probe_processor(part)) if probes_.is_vision_model(part) else None
    if rendered is not None and rendered != card.template_sha256:
        raise ConfigError(
            f"adapter {adapter}: was trained with another chat template than the base's; give it with "
            "--chat-template FILE"
        )


def _write(files: list[TensorFile], part: Path, changes: Changes) -> None:
    for file in files:
        rewrite(
            file,
            part / file.path.name,
            lambda entry, old: changes[entry.name](old) if entry.name in changes else None,
        )


def _scales(adapter: lora.Adapter) -> dict[str, int]:
    found: dict[str, int] = {}
    for factors in adapter.factors.values():
        key = f"{factors.scale:g}"
        found[key] = found.get(key, 0) + 1
    return found


def _public_name(asked: str | Path | None, adapter: lora.Adapter, folder: Path) -> str:
    """The base as people know it: never a path of this machine."""
    name = str(asked) if asked is not None else _named(adapter, cards.read(adapter.folder)) or folder.name
    return Path(name).name if Path(name).is_dir() else name
