"""Compute what identifies a stage (its fingerprint) and what inference must repeat (`dfk.json`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkdata.common.errors import ConfigError
from dfkdata.common.hashing import folder_sha256
from dfkeval.models import metadata
from dfktrain.config.model import AdapterConfig
from dfktrain.config.run import TrainConfig
from dfktrain.config.stage import Stage
from dfktrain.data.stage_data import StageData, data_sha256

if TYPE_CHECKING:
    from dfktrain.engines import LoadedBase


def fingerprint(*parts: Any) -> str:
    """Return a hash of plain data; equal parts give equal hashes on every machine.

    Raises:
        TypeError: A part is not plain data.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def run_facts(config: TrainConfig, base: LoadedBase, template: str, precision: str) -> dict[str, Any]:
    """Return what decides the weights of all stages: base, adapter, seed, precision and template.

    It contains hashes of files, never their paths.

    Args:
        config: The run's configuration, without addresses on the Hub.
        base: The loaded base.
        template: Hash of the chat template.
        precision: "fp32" or "bf16".

    Raises:
        ConfigError: The folder of `warm_start` does not exist.
    """
    adapter = config.adapter.model_dump(mode="json", exclude={"warm_start"})
    warm = config.adapter.warm_start
    return {
        "shapes": base.shapes_sha256,
        "base": _weights(base),
        "adapter": adapter,
        "warm_start": _warm_start_sha256(Path(warm)) if warm else None,
        "seed": config.seed,
        "precision": precision,
        "template": template,
    }


def _weights(base: LoadedBase) -> str | None:
    """Return the hash of a folder's weights or the commit of a hub model, None if neither is known."""
    from dfkeval.models import tiny
    from dfkeval.models.source import TINY

    folder = tiny.path() if base.name == TINY else Path(base.name)
    if folder.is_dir():
        return folder_sha256(folder)
    commit = getattr(base.model.config, "_commit_hash", None)
    return None if commit is None else str(commit)


def stage_facts(stage: Stage, data: StageData) -> dict[str, Any]:
    """Return what decides the weights of a stage: its settings and the contents of its files.

    Validation files count only if they choose the weights."""
    settings = stage.model_dump(
        mode="json", exclude={"data", "validation", "log_steps", "save_total_limit", "save_steps", "watch"}
    )
    weights = [source.weight for source in stage.sources]
    decides = stage.best or stage.patience is not None
    validation = [data_sha256(path) for path in stage.validation] if decides else []
    return {
        "settings": settings,
        "data": [*data.sha256.values()],
        "weights": weights,
        "validation": validation,
    }


def _warm_start_sha256(folder: Path) -> str:
    if not folder.is_dir():
        raise ConfigError(f"adapter.warm_start {folder}: no such folder")
    return folder_sha256(folder)


def model_metadata(
    data: StageData, stage: Stage, base: metadata.BaseRecord, template: str, adapter: AdapterConfig
) -> metadata.ModelMetadata:
    """Return the contents of `dfk.json`: what inference must repeat.

    A field on which the rows differ is left empty."""
    tools = _common(data.tools)
    return metadata.ModelMetadata(
        schema=_common(data.schemas),
        form=_common(data.variants),
        system_prompt=_common(data.systems),
        tools=json.loads(tools) if tools else None,
        template_sha256=template,
        max_pixels=stage.max_pixels,
        thinking=data.thinking == {True},
        reasoning_effort=_common(data.efforts),
        base=base,
        quantized=_quantized(adapter),
    )


def _quantized(adapter: AdapterConfig) -> str | None:
    if adapter.kind != "qlora":
        return None
    return "nf4+loftq" if adapter.loftq else "nf4"


def _common(values: Iterable[Any]) -> Any:
    distinct = list(values)
    return distinct[0] if len(distinct) == 1 else None
