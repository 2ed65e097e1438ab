"""What is checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dfkdata.schemas import Schema
from dfkeval.evaluation import scaffold
from dfkeval.models import metadata as cards
from dfkeval.runs.config import EvalConfig


def check_card(config: EvalConfig, schema: Schema, first: Mapping[str, Any]) -> None:
    """Refuse to ask an adapter or a merged model something else than its `dfk.json` says it was trained on.

    first: the first row; a scaffold speaks for the system turn and tools of all. Raises `ConfigError` listing
    every difference in schema, form, system prompt, tools and thinking."""
    folder = cards.folder_of(getattr(config.backend, "model", None), getattr(config.backend, "adapter", None))
    found = cards.read(folder) if folder is not None else None
    if found is None:
        return
    row = scaffold.of_row(first, scaffold.demand(config.scaffold, schema))
    asked = {
        "schema": schema.name,
        "form": schema.variant,
        "system_prompt": _system(row.get("messages") or []),
        "tools": row.get("tools"),
        "thinking": config.sampling.thinking,
    }
    cards.refuse_mismatch(found, f"{folder}/{cards.NAME}", asked)


def _system(messages: Sequence[Mapping[str, Any]]) -> str | None:
    if not messages or messages[0].get("role") != "system":
        return None
    content = messages[0].get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
