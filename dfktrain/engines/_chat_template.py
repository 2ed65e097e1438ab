"""The chat template that `model.chat_template` means, put where prompts are rendered.

A name is looked up among the model's own named templates, then among ours; anything else is a file.
Promises: the template is read here and nowhere else; an adapter that was trained with it carries it along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError
from dfkeval.models import loader

BUILT_IN = {"qwen3_5": "chat_template.jinja"}
"""Name -> file beside the built-in model's weights."""


def replace(processor: Any, wanted: str) -> None:
    """Give `processor` the template that `wanted` names. Raises `ConfigError` that lists the names there
    are."""
    loader.set_template(processor, text(processor, wanted))


def text(processor: Any, wanted: str) -> str:
    """The template's source: by name, or from a file."""
    own = _named(processor)
    if wanted in own:
        return own[wanted]
    path = loader.tiny_path() / BUILT_IN[wanted] if wanted in BUILT_IN else Path(wanted)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        names = ", ".join(sorted({*own, *BUILT_IN}))
        raise ConfigError(
            f"model.chat_template {wanted}: cannot be read ({error.strerror}), and no template has that name "
            f"(there are {names})"
        ) from error


def _named(processor: Any) -> dict[str, str]:
    """The model's own templates where it has several, each under its name."""
    for holder in (processor, getattr(processor, "tokenizer", None)):
        templates = getattr(holder, "chat_template", None)
        if isinstance(templates, dict):
            return templates
    return {}
