"""Compare what a run trains on with what it is validated and evaluated on, before the first step.

How it works: the files of all stages are training data together, whichever stage reads them. They are compared
(`dfkdata.validation.overlap`) with the validation files of all stages, with the rows of `evaluate:` and with
those of `watch:`.

Guarantees:
    - A file or an id that is trained on and held out is an error, unless `on_overlap: warn` is written.
    - Shared groups, prompts and pictures are warnings with counts.
    - A file without rows is an error that names it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.status_line import now
from dfkdata.rows.messages import load_rows
from dfkdata.validation.overlap import KINDS, LOOKED, SAYS, Overlap, RowFile, RowIndex
from dfktrain.config.run import TrainConfig
from dfktrain.config.stage import Stage
from dfktrain.data.stage_data import data_sha256, is_of_modality, no_rows
from dfktrain.training.evaluation_plan import evaluation_config

VALIDATION, EVALUATION, WATCH = "validation", "evaluate.data", "watch.data"

_WAY_OUT = "leave them out of one side, or write on_overlap: warn"


@dataclass
class SplitReport:
    """What the two sides of a run share.

    Attributes:
        faults: What stops the run.
        warnings: What the user should know.
        overlap: Held-out side -> kind of `dfkdata.validation.overlap` -> number of its rows.
    """

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    overlap: dict[str, dict[str, int]] = field(default_factory=dict)


def check(config: TrainConfig) -> SplitReport:
    """Check the files of a run and compare its sides.

    Returns:
        Warnings and counts; there are no faults.

    Raises:
        ConfigError: One file stands on both sides, or twice in one list.
        DataError: A file holds no row, or an id stands on both sides.
    """
    check_files(config)
    report = compare(config)
    if report.faults:
        raise DataError("\n".join(report.faults))
    return report


def check_files(config: TrainConfig) -> None:
    """Raise `ConfigError` if a stage names a file twice, `DataError` if a file holds no row for its stage."""
    for stage in config.stages:
        lists = {"data": [source.path for source in stage.sources], "validation": [*stage.validation]}
        for key, paths in lists.items():
            _check_twice(stage.name, key, paths)
            for path in paths:
                if next(load_rows(path), None) is None:
                    raise no_rows(path, stage)
            if paths and not _has_modality(paths, stage):
                raise DataError(
                    f"stage {stage.name}: no row of {key} is left (modality is {stage.modality}, and no row is)"
                )


def _has_modality(paths: Sequence[str], stage: Stage) -> bool:
    return any(is_of_modality(row, stage) for path in paths for row in load_rows(path))


def _check_twice(stage: str, key: str, paths: Sequence[str]) -> None:
    for one, other in combinations(paths, 2):
        if _is_same(one, other):
            way_out = (
                "write it once, with a weight: to take it more often" if key == "data" else "write it once"
            )
            raise ConfigError(f"stage {stage}: {key} names one file twice, {one} and {other}; {way_out}")


def _is_same(one: str, other: str) -> bool:
    """Return whether two paths lead to one file, or to files of the same bytes."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        same_size = Path(one).stat().st_size == Path(other).stat().st_size
    except OSError:
        return False  # whoever reads it says so
    return same_size and data_sha256(one) == data_sha256(other)


def compare(config: TrainConfig) -> SplitReport:
    """Compare the sides of a run; what would stop it is in `faults`.

    Raises:
        DataError: A file cannot be read.
    """
    sides = _sides(config)
    report = SplitReport()
    files = list(dict.fromkeys(file for side in sides.values() for file in side))
    if not any(sides[name] for name in (VALIDATION, EVALUATION, WATCH)):
        return report
    now("compares training rows with held-out rows")
    number = {file: at for at, file in enumerate(files)}
    train = [number[file] for file in sides["data"]]
    with RowIndex(files) as index:
        for name in (VALIDATION, EVALUATION, WATCH):
            if sides[name]:
                overlap = index.compare([number[file] for file in sides[name]], train)
                _report(report, config, name, sides, overlap, files)
        if sides[VALIDATION] and sides[EVALUATION]:
            tested, validated = ([number[file] for file in sides[side]] for side in (EVALUATION, VALIDATION))
            _report_choice(report, config, index.compare(tested, validated), files)
    if config.on_overlap == "warn":
        report.warnings, report.faults = report.faults + report.warnings, []
    return report


def _sides(config: TrainConfig) -> dict[str, list[RowFile]]:
    """Return side -> its files."""
    monitors = [monitor for stage in config.stages if (monitor := config.monitor_of(stage)) is not None]
    sides = {
        "data": [RowFile(source.path) for stage in config.stages for source in stage.sources],
        VALIDATION: [RowFile(path) for stage in config.stages for path in stage.validation],
        EVALUATION: [*_evaluated(config)],
        WATCH: [RowFile(monitor.data) for monitor in monitors],
    }
    return {name: list(dict.fromkeys(files)) for name, files in sides.items()}


def _evaluated(config: TrainConfig) -> Iterator[RowFile]:
    if config.evaluate is not None:
        settings = evaluation_config(config, config.evaluate, None)
        yield RowFile(str(settings.data), settings.limit)


def _report(
    report: SplitReport,
    config: TrainConfig,
    side: str,
    sides: dict[str, list[RowFile]],
    overlap: Overlap,
    files: Sequence[RowFile],
) -> None:
    """Report what a held-out side shares with training."""
    if overlap.counts:
        report.overlap[side] = overlap.counts
    stops = report.warnings if side == WATCH else report.faults
    same = [(held.path, path) for held in sides[side] for path in _twins(held.path, sides["data"])]
    for held, trained in same:
        stops.append(
            f"{side}: {held} is trained on: it is the file {trained} of stage {_stage_of(config, trained)}, or "
            f"has its contents; give the rows that were held out, or write on_overlap: warn"
        )
    for kind in KINDS:
        if kind in overlap.counts and not (same and kind == "ids"):
            line = (
                f"{side}: {overlap.counts[kind]} rows {SAYS[kind]}, such as {_example(overlap, kind, files)}"
            )
            (stops if kind == "ids" else report.warnings).append(
                f"{line}; {_WAY_OUT}" if kind == "ids" and side != WATCH else line
            )
    if not overlap.looked:
        report.warnings.append(
            f"{side}: pictures were compared by their bytes alone, because there are over {LOOKED}; "
            "dfkdata convert compares how they look"
        )


def _twins(held: str, train: Sequence[RowFile]) -> Iterator[str]:
    return (file.path for file in train if _is_same(held, file.path))


def _stage_of(config: TrainConfig, path: str) -> str:
    stages = (stage.name for stage in config.stages for source in stage.sources if source.path == path)
    return next(stages)


def _report_choice(
    report: SplitReport, config: TrainConfig, overlap: Overlap, files: Sequence[RowFile]
) -> None:
    """Report rows that are validated on and evaluated: an error if the validation chooses the weights."""
    count = overlap.counts.get("ids")
    if not count:
        return
    line = (
        f"{EVALUATION}: {count} rows are validated on, too, such as {_example(overlap, 'ids', files, 'as')}"
    )
    choosing = [stage.name for stage in config.stages if stage.best or stage.patience]
    if choosing:
        report.faults.append(
            f"{line}; stage {choosing[0]} chooses its weights by them (best, patience): evaluate other rows, "
            "leave best and patience out, or write on_overlap: warn"
        )
    else:
        report.warnings.append(f"{line}; choose no checkpoint and no setting by the validation loss then")


def _example(overlap: Overlap, kind: str, files: Sequence[RowFile], word: str = "like") -> str:
    shared = overlap.examples[kind]
    (held, name), (train, other) = shared.held, shared.train
    places = [Path(files[at].path).name for at in (held, train)]
    return f"{name!r} in {places[0]} {word} {other!r} in {places[1]}"
