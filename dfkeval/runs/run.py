"""Load a finished run: its configuration, samples and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dfkdata import schemas
from dfkdata.common import plugins
from dfkdata.common.config import bind
from dfkdata.common.media_roots import MediaRoots
from dfkdata.schemas import Schema
from dfkeval import metrics
from dfkeval.runs import directory
from dfkeval.runs.config import EvalConfig, named_members
from dfkeval.runs.directory import RunDirectory
from dfkeval.types import NOT_ANSWERED, Sample

#: A metric and what it measured on the samples of a run.
Scored = tuple[metrics.Metric, metrics.Measured]


@dataclass(kw_only=True)
class Run:
    """A scored run in memory.

    Attributes:
        folder: Its run directory.
        config: The configuration that it was run with.
        schema: The schema of the answers.
        samples: The graded answers, in the order of the data; those of a run directory are read when asked for.
        summary: As in summary.json: "n", "outcomes", "metrics" (name -> value, low, high, n), and "details".
        environment: As in environment.json: versions, facts of the backend, tokens and times.
        title: What reports call it; empty for the name of the directory.
        measured: Metric name -> the metric and its sufficient statistics, one row a sample; computed once.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from dfkeval import EvalConfig, evaluate
        >>> row = {"id": "1", "messages": [{"role": "user", "content": "The capital of Indonesia?"}],
        ...        "meta": {"schema": "answer", "gold": {"answer": "Jakarta"}}}
        >>> _ = Path("rows.jsonl").write_text(json.dumps(row))
        >>> _ = Path("answers.jsonl").write_text('{"id": "1", "text": "Jakarta"}')
        >>> backend = {"kind": "scripted", "completions": "answers.jsonl"}
        >>> run = evaluate(EvalConfig(data="rows.jsonl", backend=backend), "run")
        >>> run.name, [sample.outcome for sample in run.samples], run.failed_share
        ('run', ['ok'], 0.0)
    """

    folder: Path
    config: EvalConfig
    schema: Schema
    samples: Sequence[Sample]
    summary: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=dict)
    title: str = ""

    @cached_property
    def measured(self) -> dict[str, Scored]:
        """Metric name -> the metric and its sufficient statistics, one row a sample; computed once."""
        return measure(self.samples, self.config, self.schema)

    @cached_property
    def media(self) -> MediaRoots:
        """Which pictures of its samples a report may show."""
        return MediaRoots(self.folder / directory.SAMPLES)

    @property
    def name(self) -> str:
        """Return what reports call the run: its title, or the name of its directory."""
        return self.title or self.folder.name

    @property
    def failed_share(self) -> float:
        """Share of the requests that got no answer, in [0, 1]."""
        failed = sum(self.summary["outcomes"].get(name, 0) for name in NOT_ANSWERED)
        return float(failed / max(1, self.summary["n"]))


def measure(samples: Sequence[Sample], config: EvalConfig, schema: Schema) -> dict[str, Scored]:
    """Return the statistics of every metric of the configuration, by the metric's name."""
    scoring = metrics.Scoring(schema, config.metric_options)
    loaded = {name.rsplit(".", 1)[-1]: metrics.load(name) for name in config.metrics}
    return {name: (metric, metric.measure(samples, scoring)) for name, metric in loaded.items()}


def load_run(folder: str | Path) -> Run:
    """Load a finished run as it was scored.

    Args:
        folder: Its run directory.

    Returns:
        The run; its metrics are measured again only if they are asked for.

    Raises:
        DataError: The folder holds no scored run.
        ConfigError: Another version wrote its configuration.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from dfkeval import EvalConfig, evaluate, load_run
        >>> row = {"id": "1", "messages": [{"role": "user", "content": "The capital of Indonesia?"}],
        ...        "meta": {"schema": "answer", "gold": {"answer": "Jakarta"}}}
        >>> _ = Path("rows.jsonl").write_text(json.dumps(row))
        >>> _ = Path("answers.jsonl").write_text('{"id": "1", "text": "Jakarta"}')
        >>> backend = {"kind": "scripted", "completions": "answers.jsonl"}
        >>> _ = evaluate(EvalConfig(data="rows.jsonl", backend=backend), "run")
        >>> load_run("run").samples[0].value
        {'answer': 'Jakarta'}
    """
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
    """Return the configuration of a run.

    Raises:
        ConfigError: Another version wrote it, or it names a module outside this repository that the user does not
            trust.
    """
    record, path = run_dir.config().get("config") or {}, str(run_dir.path(directory.CONFIG))
    if isinstance(record, Mapping):
        record = {key: value for key, value in record.items() if key != "media_roots"}  # the user's alone
        for place, name in named_members(record):
            plugins.check_source(name, f"{path}, {place},")
    return bind(record, EvalConfig, path)
