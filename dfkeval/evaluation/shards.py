"""Merge the shards of one run.

Guarantees:

- Only all the shards of one configuration on the same data make a run.
- Its samples and its summary equal, byte for byte, those of a run that was not cut."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfkdata.common import json_files, media_roots
from dfkdata.common.errors import ConfigError
from dfkeval.evaluation.evaluate import finish
from dfkeval.evaluation.rows import items_of, read_rows
from dfkeval.runs import config as configs
from dfkeval.runs import directory
from dfkeval.runs.config import EvalConfig
from dfkeval.runs.directory import RunDirectory
from dfkeval.runs.run import Run, stored_config


def merge(folders: Sequence[str | Path], out: str | Path, *, overwrite: bool = False) -> Run:
    """Merge the shards of one run into one run in `out`, and score it as a whole.

    Args:
        folders: The run directories of all shards.
        out: Folder of the whole run.
        overwrite: Whether another run in `out` is thrown away.

    Returns:
        The scored run.

    Raises:
        ConfigError: The folders are not all the shards of one configuration on the same data.
    """
    parts = [RunDirectory(folder) for folder in folders]
    records = [part.config() for part in parts]
    shards = [stored_config(part) for part in parts]
    _check_shards(parts, records, shards)
    run_dir = RunDirectory(out)
    whole = shards[0].model_copy(update={"shard": None})
    with run_dir.alone():
        run_dir.begin(whole.record(), records[0]["data_sha256"], overwrite=overwrite)
        return _merge_into(run_dir, whole, parts)


def _merge_into(run_dir: RunDirectory, whole: EvalConfig, parts: Sequence[RunDirectory]) -> Run:
    completions = {name: completion for part in parts for name, completion in part.completions().items()}
    rows = read_rows(whole, opens_media=False)
    shows_media = all(media_roots.is_remembered(part.path(directory.SAMPLES)) for part in parts)
    whole, schema = configs.resolve(whole, rows[0])
    items = items_of(rows, whole, schema)
    done = run_dir.completions()
    ordered = (completions[item.request.id] for item in items if item.request.id in completions)
    for _ in run_dir.append(completion for completion in ordered if completion.id not in done):
        pass
    likelihoods = {name: likelihood for part in parts for name, likelihood in part.likelihoods().items()}
    missing = sorted(likelihoods.keys() - run_dir.likelihoods().keys())
    for _ in run_dir.append_likelihoods(likelihoods[name] for name in missing):
        pass
    _merge_environments(run_dir, parts)
    return finish(run_dir, whole, schema, items, shows_media=shows_media)


def _check_shards(
    parts: Sequence[RunDirectory], records: Sequence[Any], shards: Sequence[EvalConfig]
) -> None:
    counts = {config.part[1] for config in shards}
    places = sorted(config.part[0] for config in shards)
    if len(counts) != 1 or places != list(range(1, max(counts) + 1)):
        shown = ", ".join(
            f"{part.folder}: {config.shard}" for part, config in zip(parts, shards, strict=True)
        )
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
    """Write the first shard's facts, with every shard's throughput beside them."""
    environments = [json_files.read_json(part.path(directory.ENVIRONMENT)) for part in parts]
    shards = [environment.get("generation", {}) for environment in environments]
    json_files.write_json(
        run_dir.path(directory.ENVIRONMENT), environments[0] | {"generation": {}, "shards": shards}
    )
