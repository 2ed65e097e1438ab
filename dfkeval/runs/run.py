"""A finished run: its configuration, samples and numbers, as they lie in a run directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dfkdata import schemas
from dfkdata.common.config import bind
from dfkdata.schemas import Schema
from dfkeval import metrics
from dfkeval.runs import directory
from dfkeval.runs.config import EvalConfig
from dfkeval.runs.directory import RunDirectory
from dfkeval.types import NOT_ANSWERED, Sample

#: A metric and what it measured on the samples of a run.
Scored = tuple[metrics.Metric, metrics.Measured]


@dataclass(kw_only=True)
class Run:
    """A run directory in memory. summary: {"n", "outcomes", "metrics", "details"} as in summary.json."""

    folder: Path
    config: EvalConfig
    schema: Schema
    samples: list[Sample]
    summary: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def measured(self) -> dict[str, Scored]:
        """Every metric's sufficient statistics, rows in the order of `samples`; computed once."""
        return measure(self.samples, self.config, self.schema)

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.folder.name

    @property
    def failed_share(self) -> float:
        """Share of requests that got no answer."""
        failed = sum(self.summary["outcomes"].get(name, 0) for name in NOT_ANSWERED)
        return float(failed / max(1, self.summary["n"]))


def measure(samples: Sequence[Sample], config: EvalConfig, schema: Schema) -> dict[str, Scored]:
    """Every metric of the configuration on the samples, by member name."""
    scoring = metrics.Scoring(schema, config.metric_options)
    loaded = {name.rsplit(".", 1)[-1]: metrics.load(name) for name in config.metrics}
    return {name: (metric, metric.measure(samples, scoring)) for name, metric in loaded.items()}


def load_run(folder: str | Path) -> Run:
    """A finished run as it was scored. Raises `DataError` when it is none."""
    run_dir = RunDirectory(folder)
    config = stored_config(run_dir)
    return Run(
        folder=run_dir.folder,
        config=config,
        schema=schemas.load(config.schema_name or "", config.variant),
        samples=run_dir.samples(),
        summary=directory.read_summary(run_dir.folder),
        environment=run_dir.environment(),
    )


def stored_config(run_dir: RunDirectory) -> EvalConfig:
    """The configuration of a run. Raises `ConfigError` when another version of dfk wrote it."""
    return bind(run_dir.config().get("config") or {}, EvalConfig, str(run_dir.path(directory.CONFIG)))
