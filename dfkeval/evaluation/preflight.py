"""Checks before a model is loaded: what the backend, the adapter, the trackers and the metrics cannot do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfkdata.common.config import Config
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.rows.messages import before_answer
from dfkdata.schemas import Schema
from dfkeval import backends
from dfkeval.backends import Backend
from dfkeval.evaluation import likelihood
from dfkeval.evaluation.rows import config_scaffold, scaffolded_row
from dfkeval.models import metadata
from dfkeval.models.rendering import THINKING, template_options
from dfkeval.reports import trackers
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Constraint, media_of


def check_run(
    config: EvalConfig,
    schema: Schema,
    constraint: Constraint | None,
    first_row: Mapping[str, Any],
    backend: Backend | None,
) -> None:
    """Check everything about a run that can be checked without its model.

    Args:
        config: The resolved configuration.
        schema: The schema of the answers.
        constraint: What answers are held to; None for free answers.
        first_row: The first row of the data.
        backend: A loaded backend; None for the one that the configuration names.

    Raises:
        ConfigError: The run could not be finished; the message says why and what to change."""
    check_constraint(config, constraint, backend)
    check_scaling(config, backend)
    if backend is None:
        check_cache(config.cache, config.backend)
    check_metadata(config, schema, first_row)
    trackers.check(config.trackers)
    check_likelihoods(config, backend)


def check_media(
    data: Path, rows: Sequence[Mapping[str, Any]], config: Config, backend: Backend | None
) -> None:
    """Check that the model will see what the rows hold.

    Args:
        data: The data file, for messages.
        rows: The rows to ask.
        config: The configuration of the backend.
        backend: A loaded backend; None for the configured one.

    Raises:
        DataError: A row holds audio, or a video that is not read; the message names the row.
    """
    held = {str(row["id"]): media_of(before_answer(row["messages"]), row.get("videos") or ()) for row in rows}
    video = [name for name, kinds in held.items() if "video" in kinds]
    audio = [name for name, kinds in held.items() if "audio" in kinds]
    if audio:
        raise DataError(f"{data}: row {audio[0]!r} holds audio, which no backend reads; leave it out")
    if not video:
        return
    if backend is None:
        fault = backends.video_fault(config)
    else:
        fault = None if backend.capabilities.videos else "this backend does not read it; leave it out"
    if fault is not None:
        raise DataError(f"{data}: row {video[0]!r} holds video: {fault}")


def check_thinking(data: Path, rows: Sequence[Mapping[str, Any]], thinking: bool) -> None:
    """Raise `ConfigError` if every row that says whether the model thinks says otherwise than the run."""
    said = map(template_options, rows)
    wanted = {bool(options[THINKING]) for options in said if THINKING in options}
    if wanted == {not thinking}:
        raise ConfigError(
            f"{data}: the rows say enable_thinking: {str(not thinking).lower()}, and sampling.thinking is "
            f"{str(thinking).lower()}; set it as the rows do, or leave it out of their chat_template_kwargs"
        )


def check_constraint(config: EvalConfig, constraint: Constraint | None, backend: Backend | None) -> None:
    """Raise `ConfigError` if the backend cannot do what the configuration wants of it."""
    can = backends.capabilities_of(config.kind) if backend is None else backend.capabilities
    if constraint is not None and not can.constrained:
        raise ConfigError(
            f"mode {config.mode}: backend {config.kind!r} cannot constrain what is written; "
            "use transformers, vllm or openai, or mode free"
        )
    if backend is None:
        backends.check(config.backend, config.sampling, constraint)


def check_scaling(config: EvalConfig, backend: Backend | None) -> None:
    """Raise `ConfigError` if images are to be scaled down and the backend would show them as they are."""
    can = backends.capabilities_of(config.kind) if backend is None else backend.capabilities
    if config.max_image_side is not None and not can.scales_images:
        raise ConfigError(
            f"max_image_side: backend {config.kind!r} shows images as they are; use transformers, vllm or "
            "openai, or leave it out"
        )


def check_cache(folder: Path | None, backend: Config) -> None:
    """Raise `ConfigError` if answers of a server without a declared revision are to be cached."""
    if folder is None:
        return
    if "revision" in type(backend).model_fields and getattr(backend, "revision", None) is None:
        raise ConfigError(
            "cache: a server's answers are kept only when you say what it runs; set backend.revision, and "
            "change it whenever the server's model, adapter or template changes"
        )


def check_likelihoods(config: EvalConfig, backend: Backend | None) -> None:
    """Raise `ConfigError` if a metric needs likelihoods of gold answers that the backend cannot compute."""
    names = likelihood.needed_by(config.metrics)
    if not names:
        return
    can = backends.capabilities_of(config.kind) if backend is None else backend.capabilities
    if not can.likelihoods:
        raise ConfigError(
            f"metric {names[0]!r} needs the likelihood of the gold answers, which the backend "
            f"{config.kind!r} cannot give; use the transformers backend, or leave the metric out"
        )


def check_metadata(config: EvalConfig, schema: Schema, first_row: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if an adapter or a merged model was trained on something else than is asked here.

    Its `dfk.json` is compared in schema, form, system prompt, tools and thinking; the message lists every
    difference. A scaffold speaks for the system turn and the tools of all rows."""
    folder = metadata.folder_of(
        getattr(config.backend, "model", None), getattr(config.backend, "adapter", None)
    )
    trained = metadata.read(folder) if folder is not None else None
    if trained is None:
        return
    row = scaffolded_row(first_row, config_scaffold(config, schema))
    asked = {
        "schema": schema.name,
        "form": schema.variant,
        "system_prompt": _system_text(row.get("messages") or []),
        "tools": row.get("tools"),
        "thinking": config.sampling.thinking,
        "reasoning_effort": config.sampling.reasoning_effort,
    }
    metadata.check_matches(trained, f"{folder}/{metadata.NAME}", asked)


def _system_text(messages: Sequence[Mapping[str, Any]]) -> str | None:
    if not messages or messages[0].get("role") != "system":
        return None
    content = messages[0].get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
