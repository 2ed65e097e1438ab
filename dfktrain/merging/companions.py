"""Copy what a model folder needs beside its weights: configuration, tokenizer, processor, chat template."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from pathlib import Path

from dfkdata.common.errors import ConfigError
from dfkdata.common.json_files import read_json_or_none, write_json
from dfkeval.models import families, metadata
from dfkeval.models.fingerprint import template_sha256
from dfkeval.models.processor import TEMPLATE
from dfktrain.merging.probes import is_vision_model, load_probe_processor

_SUFFIXES = (".json", ".jinja", ".txt", ".model", ".tiktoken")
_LEGAL = re.compile(r"^(?:LICENSE|LICENCE|NOTICE)", re.IGNORECASE)
_VIDEO_KEYS = ("patch_size", "merge_size", "temporal_patch_size", "image_mean", "image_std", "size")


def copy_companions(base: Path, target: Path, skip: Collection[str]) -> list[str]:
    """Copy the files of a model folder that are not weights.

    Args:
        base: The model folder.
        target: The new folder.
        skip: Names of files that are not copied.

    Returns:
        A note that names the files whose kind is unknown and that were left out, if there are any.
    """
    left_out = []
    for path in sorted(base.iterdir()):
        if path.suffix == ".safetensors" or path.name in skip or path.is_dir():
            continue
        if path.suffix in _SUFFIXES or _LEGAL.match(path.name):
            shutil.copyfile(path, target / path.name)
        elif not path.name.startswith("."):
            left_out.append(path.name)
    return [f"left out of the copy: {', '.join(left_out)}"] if left_out else []


def copy_template(adapter: Path, target: Path, template: Path | None) -> list[str]:
    """Put the chat template that an adapter was trained with in place of the base's.

    Args:
        adapter: Folder of the adapter, which may hold its template.
        target: The new model folder.
        template: File to take instead; None takes the adapter's.

    Returns:
        A note if the base's template was replaced.

    Raises:
        ConfigError: `template` is no file.
    """
    if template is not None and not template.is_file():
        raise ConfigError(f"--chat-template {template}: no such file")
    source = template if template is not None else adapter / TEMPLATE
    copy = target / TEMPLATE
    if not source.is_file() or (copy.is_file() and copy.read_bytes() == source.read_bytes()):
        return []
    shutil.copyfile(source, copy)
    return [f"the chat template is that of {source.name if template else 'the adapter'}, not the base's"]


def write_video_processor(folder: Path) -> None:
    """Write the settings of a video processor, those of the images, if the processor class needs one and the
    folder has none."""
    target = folder / "video_preprocessor_config.json"
    whole = read_json_or_none(folder / "processor_config.json") or {}
    images = whole.get("image_processor") or read_json_or_none(folder / "preprocessor_config.json") or {}
    classes = (str(settings.get("processor_class")) for settings in (whole, images))
    family = next((family for name in classes if (family := families.by_processor(name))), None)
    if target.exists() or "video_processor" in whole or family is None:
        return
    video = {key: images[key] for key in _VIDEO_KEYS if key in images}
    video |= {
        "processor_class": family.processor_class,
        "video_processor_type": family.video_processor_class,
    }
    write_json(target, video, floats="repr")


def check_template(card: metadata.ModelMetadata | None, folder: Path, adapter: Path) -> None:
    """Raise `ConfigError` unless the model in a folder renders prompts as the adapter's training did."""
    if card is None or card.template_sha256 is None or not is_vision_model(folder):
        return
    if template_sha256(load_probe_processor(folder)) != card.template_sha256:
        raise ConfigError(
            f"adapter {adapter}: was trained with another chat template than the base's; give it with "
            "--chat-template FILE"
        )
