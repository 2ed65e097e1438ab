"""What a watch asks: the slice of rows, and the evaluation of one point. Loads no torch.

Promises: `check` says before a model is loaded what could not be asked or scored; the slice is a function of
the file and the seed."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec

from dfkdata.common import json_files
from dfkdata.rows.messages import load_rows
from dfkeval.evaluation.rows import read_rows
from dfkeval.runs import config as configs
from dfkeval.runs.config import EvalConfig
from dfktrain.config.run import TrainConfig
from dfktrain.config.sections import MonitorConfig

RESAMPLES = 1_000
LIVE = "the model in training"


def check(config: TrainConfig) -> None:
    """Raise `ConfigError` or `DataError` for a slice that could not be asked or scored."""
    for watched in {id(each): each for each in map(config.watched, config.stages) if each}.values():
        settings = evaluation(watched, Path(watched.data))
        configs.resolve(settings, read_rows(settings)[0])


def evaluation(watched: MonitorConfig, data: Path) -> EvalConfig:
    """The evaluation of one point."""
    return EvalConfig.model_validate(
        {
            "data": data,
            "schema": watched.schema_name,
            "backend": {"kind": "transformers", "model": LIVE},
            "metrics": watched.metrics,
            "sampling": watched.sampling,
            "resamples": RESAMPLES,
        }
    )


def slice_of(watched: MonitorConfig, seed: int, folder: Path) -> Path:
    """Write the slice to `folder`/rows.jsonl, image paths absolute; the same file and seed give the same."""
    rows = list(load_rows(watched.data))
    kept = sorted(random.Random(f"watch {seed}").sample(range(len(rows)), min(watched.limit, len(rows))))
    path = folder / "rows.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    json_files.write_bytes(path, b"".join(msgspec.json.encode(rows[at]) + b"\n" for at in kept))
    return path
