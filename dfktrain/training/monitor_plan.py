"""Prepare the monitoring of a model in training: the rows that it answers, and how they are scored.

Guarantees:
    - Importing this module loads no torch, and `check` finds what could not be asked or scored before a model
      is loaded.
    - The rows depend on the file and the seed only."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec

from dfkdata.common import json_files, media_roots
from dfkdata.rows.messages import load_rows
from dfkeval.evaluation.rows import read_rows
from dfkeval.runs import config as configs
from dfkeval.runs.config import EvalConfig
from dfktrain.config.run import TrainConfig
from dfktrain.config.sections import MonitorConfig

RESAMPLES = 1_000
LIVE = "the model in training"


def check(config: TrainConfig) -> None:
    """Raise `ConfigError` or `DataError` if rows of `watch:` cannot be asked or scored."""
    monitors = [monitor for stage in config.stages if (monitor := config.monitor_of(stage)) is not None]
    for monitor in {id(monitor): monitor for monitor in monitors}.values():
        settings = evaluation(monitor, Path(monitor.data))
        configs.resolve(settings, read_rows(settings)[0])


def evaluation(monitor: MonitorConfig, data: Path) -> EvalConfig:
    """Return the configuration of one evaluation of the rows in `data`."""
    return EvalConfig.model_validate(
        {
            "data": data,
            "schema": monitor.schema_name,
            "backend": {"kind": "transformers", "model": LIVE},
            "metrics": monitor.metrics,
            "sampling": monitor.sampling,
            "resamples": RESAMPLES,
        }
    )


def write_rows(monitor: MonitorConfig, seed: int, folder: Path) -> Path:
    """Draw the rows that the model answers, write them to `folder`/rows.jsonl and return that file.

    Paths of images become absolute. The same file and seed give the same rows.
    """
    rows = list(load_rows(monitor.data))
    count = min(monitor.limit, len(rows))
    places = sorted(random.Random(f"watch {seed}").sample(range(len(rows)), count))
    path = folder / "rows.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    json_files.write_bytes(path, b"".join(msgspec.json.encode(rows[at]) + b"\n" for at in places))
    media_roots.remember(path)
    return path
