"""The chat template that `model.chat_template` means, put where prompts are rendered.

A name is looked up among the model's own named templates, then among ours; anything else is a file.
Promises: the template is read here and nowhere else; an adapter that was trained with it carries it along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError
from dfkeval.models import tiny
from dfkeval.models.families import FAMILIES
from dfkeval.models.processor import set_template


def replace(processor: Any, wanted: str) -> None:
    """Give `processor` the template that `wanted` names. Raises `ConfigError` that lists the names there
    are."""
    set_template(processor, text(processor, wanted))


def text(processor: Any, wanted: str) -> str:
    """The template's source: by name, or from a file."""
    own = _named(processor)
    if wanted in own:
        return own[wanted]
    built_in = {name: family.chat_template for name, family in FAMILIES.items() if family.chat_template}
    path = tiny.path() / built_in[wanted] if wanted in built_in else Path(wanted)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        names = ", ".join(sorted({*own, *built_in}))
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
