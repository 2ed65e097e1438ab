"""The shards of one run, put together again.

Promises: only all the shards of one configuration on the same data make a run, and it equals, byte for byte
in its samples and summary, the run that was not cut."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfkdata.common import json_files
from dfkdata.common.errors import ConfigError
from dfkeval.evaluation.evaluate import finish
from dfkeval.evaluation.rows import items_of, read_rows
from dfkeval.runs import config as configs
from dfkeval.runs import directory
from dfkeval.runs.config import EvalConfig
from dfkeval.runs.directory import RunDirectory
from dfkeval.runs.run import Run


def merge(folders: Sequence[str | Path], out: str | Path, *, overwrite: bool = False) -> Run:
    """The shards of one run as one run in `out`, scored as a whole.

    Raises `ConfigError` when the folders are not all the shards of one configuration on the same data."""
    parts = [RunDirectory(folder) for folder in folders]
    records = [part.config() for part in parts]
    configs_found = [EvalConfig.model_validate(record["config"]) for record in records]
    _refuse_other_shards(parts, records, configs_found)
    run_dir = RunDirectory(out)
    whole = configs_found[0].model_copy(update={"shard": None})
    with run_dir.alone():
        run_dir.begin(whole.record(), records[0]["data_sha256"], overwrite=overwrite)
        return _joined(run_dir, whole, parts)


def _joined(run_dir: RunDirectory, whole: EvalConfig, parts: Sequence[RunDirectory]) -> Run:
    found = {name: each for part in parts for name, each in part.completions().items()}
    rows = read_rows(whole)
    whole, schema = configs.resolve(whole, rows[0])
    items = items_of(rows, whole, schema)
    done = run_dir.completions()
    ordered = (found[each.request.id] for each in items if each.request.id in found)
    for _ in run_dir.append(each for each in ordered if each.id not in done):
        pass
    likelihoods = {name: each for part in parts for name, each in part.likelihoods().items()}
    missing = sorted(likelihoods.keys() - run_dir.likelihoods().keys())
    for _ in run_dir.append_likelihoods(likelihoods[name] for name in missing):
        pass
    _merge_environments(run_dir, parts)
    return finish(run_dir, whole, schema, items)


def _refuse_other_shards(
    parts: Sequence[RunDirectory], records: Sequence[Any], found: Sequence[EvalConfig]
) -> None:
    counts = {config.part[1] for config in found}
    places = sorted(config.part[0] for config in found)
    if len(counts) != 1 or places != list(range(1, max(counts) + 1)):
        shown = ", ".join(f"{part.folder}: {config.shard}" for part, config in zip(parts, found, strict=True))
        raise ConfigError(f"merge-runs needs every shard of one run exactly once; got {shown or 'none'}")
    facts = [
        (record["data_sha256"], configs.answer_identity(record["config"] | {"shard": None}))
        for record in records
    ]
    other = [str(part.folder) for part, fact in zip(parts, facts, strict=True) if fact != facts[0]]
    if other:
        raise ConfigError(
            f"merge-runs: {', '.join(other)} ran with another configuration or data than {parts[0].folder}"
        )


def _merge_environments(run_dir: RunDirectory, parts: Sequence[RunDirectory]) -> None:
    """The first shard's facts, with every shard's throughput beside it."""
    found = [json_files.read_json(part.path(directory.ENVIRONMENT)) for part in parts]
    shards = [each.get("generation", {}) for each in found]
    json_files.write_json(
        run_dir.path(directory.ENVIRONMENT), found[0] | {"generation": {}, "shards": shards}
    )
