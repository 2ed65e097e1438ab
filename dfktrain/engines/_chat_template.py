"""Replace a processor's chat template by the one that `model.chat_template` names.

A name is looked up among the model's own named templates, then among ours; anything else is a file. An
adapter that was trained with a replaced template carries it along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError
from dfkeval.models import tiny
from dfkeval.models.families import FAMILIES
from dfkeval.models.processor import set_template


def replace(processor: Any, name: str) -> None:
    """Set the chat template of `processor` to the one called `name`, or to the contents of the file `name`.

    Raises:
        ConfigError: There is no such template and no such file; the message lists the known names.
    """
    set_template(processor, text(processor, name), f"model.chat_template {name}")


def text(processor: Any, name: str) -> str:
    """Return the source of the template called `name`, or the contents of the file `name`."""
    own = _named_templates(processor)
    if name in own:
        return own[name]
    built_in = {
        model_type: family.chat_template for model_type, family in FAMILIES.items() if family.chat_template
    }
    path = tiny.path() / built_in[name] if name in built_in else Path(name)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        names = ", ".join(sorted({*own, *built_in}))
        raise ConfigError(
            f"model.chat_template {name}: cannot be read ({error.strerror}), and no template has that name "
            f"(there are {names})"
        ) from error


def _named_templates(processor: Any) -> dict[str, str]:
    for holder in (processor, getattr(processor, "tokenizer", None)):
        templates = getattr(holder, "chat_template", None)
        if isinstance(templates, dict):
            return templates
    return {}
