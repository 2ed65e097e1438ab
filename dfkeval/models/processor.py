"""The processor: tokenizer, image processor and chat template in one object."""

from __future__ import annotations

import copy
import importlib
import threading
from pathlib import Path
from typing import Any

from dfkdata.common.errors import BackendError, ConfigError
from dfkeval.models._packages import require_package
from dfkeval.models.families import ModelFamily, family_of
from dfkeval.models.loading import foreign_files
from dfkeval.models.source import model_source

#: File beside an adapter that was trained with another chat template than the base's.
TEMPLATE = "chat_template.jinja"
LONGEST_TEMPLATE = 20
"""Seconds in which a chat template must have written a short question; some take milliseconds, none a second."""
_PARTS = [{"type": "text", "text": "?"}]
_QUESTIONS = (
    ({"role": "user", "content": "?"},),
    ({"role": "user", "content": _PARTS},),
    ({"role": "system", "content": "!"}, {"role": "user", "content": "?"}),
    (
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "!"},
        {"role": "user", "content": "?"},
    ),
)
"""Turns of which a usable template takes at least one."""


def load_processor(path: str | Path, *, max_pixels: int | None = None, min_pixels: int | None = None) -> Any:
    """Load the processor of a vision-language model; works without torchvision.

    Args:
        path: A model folder, a Hub name, or "tiny".
        max_pixels: Largest area of an image in pixels after resizing; set on this instance only.
        min_pixels: Smallest area of an image in pixels after resizing.

    Returns:
        A processor with `tokenizer`, `image_processor` and `chat_template`.

    Raises:
        BackendError: The folder has no processor, or it cannot be loaded.
        ConfigError: There is no such folder, or `min_pixels` is above `max_pixels`.
    """
    require_package("transformers")
    source = model_source(path)
    family = _family(source)
    module, _, name = family.processor.partition(":")
    kind = getattr(importlib.import_module(module), name)
    with foreign_files(f"the processor of {str(path)!r} cannot be loaded"):
        processor = kind.from_pretrained(source, trust_remote_code=False)
    check_template(processor, str(path))
    processor.add_video(source, family.video_processor_class)
    if max_pixels is not None or min_pixels is not None:
        set_pixels(processor, max_pixels=max_pixels, min_pixels=min_pixels)
    return processor


def _family(source: str) -> ModelFamily:
    """Return the family that the model's config.json names; the usual one without such a file."""
    from transformers import PretrainedConfig

    try:
        settings, _ = PretrainedConfig.get_config_dict(source)
    except OSError:
        return family_of("")
    except (TypeError, ValueError, AttributeError) as error:
        raise BackendError(f"model {source!r}: its config.json is no object of settings") from error
    return family_of(str(settings.get("model_type", "")))


def check_template(processor: Any, where: str) -> None:
    """Check that a chat template writes at least one of a few short questions, and comes to an end.

    Args:
        processor: A processor or a tokenizer; one without a template is left alone.
        where: What it comes from, for the message.

    Raises:
        BackendError: The template's syntax is broken, it refuses every question, or it takes longer than
            `LONGEST_TEMPLATE` seconds for one. What it says about single rows is told of these.
    """
    if not getattr(processor, "chat_template", None):
        return
    faults: list[BackendError | None] = []
    thread = threading.Thread(target=lambda: faults.append(_template_fault(processor, where)), daemon=True)
    thread.start()
    thread.join(LONGEST_TEMPLATE)
    if thread.is_alive():
        raise BackendError(
            f"{where}: the chat template takes longer than {LONGEST_TEMPLATE} seconds for one short question"
        )
    if faults and faults[0] is not None:
        raise faults[0]


def _template_fault(processor: Any, where: str) -> BackendError | None:
    """Return why a chat template writes none of the questions; None if it writes one."""
    from jinja2.exceptions import TemplateSyntaxError

    fault = None
    for question in _QUESTIONS:
        try:
            with foreign_files(f"{where}: the chat template refuses every question"):
                processor.apply_chat_template([*question], tokenize=False, add_generation_prompt=True)
        except BackendError as error:
            cause, fault = error.__cause__, fault or error
            if isinstance(cause, TemplateSyntaxError):
                return BackendError(
                    f"{where}: the chat template is broken in line {cause.lineno} ({cause.message})"
                )
        else:
            return None
    return fault


def set_pixels(processor: Any, *, max_pixels: int | None = None, min_pixels: int | None = None) -> None:
    """Bound the area of resized images, in pixels.

    The limits go into a copy of `size`, because the library shares that dict between instances."""
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


def set_template(processor: Any, template: str, where: str) -> None:
    """Render prompts with `template` from now on; a processor and its tokenizer hold one each.

    Raises:
        BackendError: Its syntax is broken; `where` tells what it comes from.
    """
    processor.chat_template = template
    getattr(processor, "tokenizer", processor).chat_template = template
    check_template(processor, where)
