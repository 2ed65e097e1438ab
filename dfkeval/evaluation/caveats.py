"""What limits the numbers of a run: rows that training has seen, and metrics that no row could be scored by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dfkdata.common import json_files
from dfkdata.common.errors import DataError
from dfkdata.common.hashing import file_sha256
from dfkdata.conversion.known_overlap import known_overlap
from dfkeval.runs import directory
from dfkeval.runs.config import EvalConfig
from dfkeval.runs.directory import RunDirectory
from dfkeval.runs.run import Run
from dfkeval.types import Sample


def overlap(
    run_dir: RunDirectory, config: EvalConfig, told: Mapping[str, int] | None
) -> dict[str, int] | None:
    """Return what the rows share with training: kind of `dfkdata.validation.overlap` -> number of rows.

    Args:
        run_dir: The run; what its summary says already is kept.
        config: Its configuration; the manifest beside its data is asked.
        told: What the caller knows.

    Returns:
        For each kind the largest number that anyone knows; None if nobody knows anything.
    """
    known = [_earlier(run_dir), _of_manifest(config), told]
    if all(counts is None for counts in known):
        return None
    merged: dict[str, int] = {}
    for counts in known:
        for kind, count in (counts or {}).items():
            merged[kind] = max(count, merged.get(kind, 0))
    return dict(sorted(merged.items()))


def _earlier(run_dir: RunDirectory) -> Mapping[str, int] | None:
    try:
        summary: Any = json_files.read_json_or_none(run_dir.path(directory.SUMMARY))
    except DataError:
        return None  # it is written anew
    return summary.get("overlap") if isinstance(summary, dict) else None


def _of_manifest(config: EvalConfig) -> dict[str, int] | None:
    place, count = config.part

    def is_asked(number: int) -> bool:
        return number <= (config.limit or number) and (number - place) % count == 0

    try:
        return known_overlap(config.data, file_sha256(config.data), is_asked)
    except OSError:
        return None  # the rows are gone; samples.jsonl is scored


def unscored(run: Run) -> dict[str, str]:
    """Return metric -> why it scored no row; empty if every metric scored one."""
    return {
        name: _reason(run.samples)
        for name, (_, measured) in run.measured.items()
        if run.samples and not measured.scored.any()
    }


def _reason(samples: Sequence[Sample]) -> str:
    if not any(sample.answered for sample in samples):
        return "no request was answered"
    if not any(sample.gold for sample in samples):
        return "no row has usable gold"
    return "no row holds what it scores"
