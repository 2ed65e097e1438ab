"""Rejection-sampling fine-tuning: ask each row several times, keep the right answers, train on them, again.

    DIR/config.json              the configuration
    DIR/round-1/samples/         a run directory of the evaluation: every answer verbatim, graded
    DIR/round-1/data/            accepted.jsonl (rows like any other), rejected.jsonl, manifest.json
    DIR/round-1/train/           an ordinary training run
    DIR/adapter, DIR/rft.json    the newest adapter, and the account of all rounds

How it works: the evaluation samples, the validators accept or reject, the training run trains, all through
their public functions; `acceptance` makes the training rows.

Guarantees:
    - A run that was killed continues where it stopped, and a larger `rounds` adds to a finished run.
    - DIR/adapter appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkdata.common import media_roots
from dfkdata.common.credentials import public
from dfkdata.common.data_uri import is_data_uri
from dfkdata.common.errors import BackendError, ConfigError, DataError
from dfkdata.common.hashing import file_sha256
from dfkdata.common.json_files import read_json_or_none, write_json
from dfkdata.common.jsonl import write_lines
from dfkeval import validators
from dfkeval.evaluation import evaluate
from dfkeval.evaluation.rows import read_rows
from dfkeval.runs.config import EvalConfig
from dfkeval.runs.run import Run
from dfktrain.config.launch import process_count
from dfktrain.config.rft import RftConfig, with_accepted
from dfktrain.engines import package_versions
from dfktrain.experiments.acceptance import (
    Account,
    SortedDraws,
    accepted_row,
    count_draws,
    row_id,
    sort_draws,
)

if TYPE_CHECKING:
    from dfkeval.evaluation.generation import Progress
    from dfktrain.config.run import TrainConfig
    from dfktrain.training.state import OnProgress

Say = Callable[[str], None]


@dataclass(frozen=True)
class Round(Account):
    """A finished round.

    Attributes:
        adapter: Folder of the adapter that the round trained.
        accepted_sha256: Hash of accepted.jsonl.
        steps: Number of optimiser steps.
        loss: First and last training loss; None if no loss was logged.
    """

    adapter: Path
    accepted_sha256: str
    steps: int
    loss: tuple[float, float] | None


@dataclass(frozen=True)
class RftResult:
    """A finished run.

    Attributes:
        adapter: DIR/adapter, a copy of the last round's.
        rounds: The rounds in order.
    """

    adapter: Path
    rounds: tuple[Round, ...]


def rft(
    config: RftConfig,
    out: str | Path,
    *,
    on_answer: Progress | None = None,
    on_step: OnProgress | None = None,
    say: Say = lambda line: None,
) -> RftResult:
    """Sample, accept and train for `config.rounds` rounds; a call that was stopped continues.

    Args:
        config: The configuration.
        out: Folder of the run.
        on_answer: Called after each answer.
        on_step: Called after each optimiser step.
        say: Receives a line for each part of a round.

    Raises:
        ConfigError: The configuration or the folder cannot be used; raised before the first question.
        BackendError: More requests failed than `max_failures` allows.
        DataError: No answer was accepted, or the data are broken.
    """
    if process_count() > 1:
        raise ConfigError("rejection sampling runs in one process; start it without torchrun or accelerate")
    out = Path(out).resolve()
    _bind_folder(out, config)
    rounds: list[Round] = []
    for number in range(1, config.rounds + 1):
        folder = out / f"round-{number}"
        newest = rounds[-1].adapter if rounds else None
        finished = _finished_round(folder)
        rounds.append(finished or _round(config, folder, number, newest, on_answer, on_step, say))
        _write_report(out, rounds)
    adapter = _copy_adapter(out, rounds[-1].adapter)
    return RftResult(adapter, tuple(rounds))


def _bind_folder(out: Path, config: RftConfig) -> None:
    """Write config.json, or raise if the folder holds a run of another configuration.

    The number of rounds is left out: more rounds may be added later."""
    validators.build(config.accept | config.watch, config.sample.schema_name)
    record = public(config.model_dump(mode="json", by_alias=True, exclude={"rounds"}))
    earlier = read_json_or_none(out / "config.json")
    if earlier is None and out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out}: not empty and no rejection sampling; give another --out")
    if earlier is not None and earlier != record:
        changed = sorted(key for key in record if earlier.get(key) != record[key])
        raise ConfigError(
            f"{out}: holds a run of another configuration ({', '.join(changed)}); give another --out"
        )
    write_json(out / "config.json", record, floats="repr")


def _finished_round(folder: Path) -> Round | None:
    record = read_json_or_none(folder / "round.json")
    if record is None:
        return None
    loss = record["loss"] and tuple(record["loss"])
    return Round(**(record | {"adapter": folder / record["adapter"], "loss": loss}))


def _round(
    config: RftConfig,
    folder: Path,
    number: int,
    newest: Path | None,
    on_answer: Progress | None,
    on_step: OnProgress | None,
    say: Say,
) -> Round:
    say(f"round {number}: asking")
    run = _sample(config, folder / "samples", number, newest, on_answer)
    rows = {str(row["id"]): row for row in read_rows(run.config)}
    draws = sort_draws(run.samples, validators.build(config.accept, run.schema.name), config)
    account = count_draws(draws, len(rows), config, run.schema, run.summary["outcomes"])
    _write_data(config, folder / "data", run, rows, draws, account, number)
    say(
        f"round {number}: {account.accepted} of {account.drawn} answers accepted, {account.reached} "
        f"of {len(rows)} rows"
    )
    if not draws.accepted:
        raise DataError(
            f"{folder / 'data'}: no answer was accepted ({_top(account.reasons)}); nothing to train on"
        )
    return _train(config, folder, newest, account, on_step)


def _sample(
    config: RftConfig, folder: Path, number: int, newest: Path | None, on_answer: Progress | None
) -> Run:
    """Ask the rows. Raises `BackendError` if too many requests failed."""
    settings = sampling_config(config.sample, number, newest)
    run = evaluate.evaluate(settings, folder, progress=on_answer)
    if run.failed_share > settings.max_failures:
        raise BackendError(
            f"{folder}: {run.failed_share:.1%} of the requests got no answer (allowed: "
            f"max_failures {settings.max_failures:g}); the same command asks them again"
        )
    return run


def sampling_config(sample: EvalConfig, number: int, newest: Path | None) -> EvalConfig:
    """Return the evaluation of a round: each round has its own seed and, after the first, the newest adapter."""
    sampling = sample.sampling.model_copy(update={"seed": sample.sampling.seed + number - 1})
    backend = sample.backend if newest is None else sample.backend.model_copy(update={"adapter": newest})
    return sample.model_copy(update={"sampling": sampling, "backend": backend})


def _train(
    config: RftConfig,
    folder: Path,
    newest: Path | None,
    account: Account,
    on_step: OnProgress | None,
) -> Round:
    """Train on the accepted rows and write round.json."""
    from dfktrain.training.run import train

    settings = training_config(config, folder / "data", newest)
    result = train(settings, folder / "train", progress=on_step)
    losses = [line["loss"] for stage in result.stages for line in stage.history if "loss" in line]
    finished = Round(
        **asdict(account),
        adapter=result.adapter,
        accepted_sha256=file_sha256(folder / "data" / "accepted.jsonl"),
        steps=sum(stage.steps for stage in result.stages),
        loss=(losses[0], losses[-1]) if losses else None,
    )
    record = asdict(finished) | {"adapter": str(result.adapter.relative_to(folder))}
    write_json(folder / "round.json", record, floats="repr")
    return finished


def training_config(config: RftConfig, data: Path, newest: Path | None) -> TrainConfig:
    """Return the training run of a round, with the file of its accepted rows."""
    train = with_accepted(config.train, str(data / "accepted.jsonl"))
    if newest is None or config.start == "base":
        return train
    return train.model_copy(update={"adapter": train.adapter.model_copy(update={"warm_start": str(newest)})})


def _top(reasons: Mapping[str, int]) -> str:
    return "; ".join(f"{count} {reason}" for reason, count in list(reasons.items())[:3]) or "no draws"


def _write_data(
    config: RftConfig,
    folder: Path,
    run: Run,
    rows: Mapping[str, Mapping[str, Any]],
    draws: SortedDraws,
    account: Account,
    number: int,
) -> None:
    """Write accepted.jsonl, rejected.jsonl and, last, manifest.json; image paths start at the folder."""
    sampling = run.config.sampling
    made_by = {
        "round": number,
        "backend": run.environment.get("backend", {}),
        "accept": config.accept,
        "sampling": sampling.model_dump(mode="json"),
    }
    accepted = [
        accepted_row(rows[row_id(sample, sampling.repeats)], sample, run.schema, config, made_by)
        for sample in draws.accepted
    ]
    rejected = ({"id": sample.id, "reason": reason, "text": sample.text} for sample, reason in draws.rejected)
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "accepted.jsonl", (_portable(row, folder) for row in accepted))
    media_roots.remember(folder / "accepted.jsonl")
    write_lines(folder / "rejected.jsonl", rejected)
    outputs = [
        {"path": name, "sha256": file_sha256(folder / name)} for name in ("accepted.jsonl", "rejected.jsonl")
    ]
    record = {"format": 1, **asdict(account), "made_by": made_by, "outputs": outputs}
    write_json(folder / "manifest.json", record, floats="repr")


def _portable(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    images = [path if is_data_uri(path) else os.path.relpath(path, folder) for path in row["images"]]
    return row | {"images": [path.replace(os.sep, "/") for path in images]}


def _write_report(out: Path, rounds: Sequence[Round]) -> None:
    lines = [asdict(finished) | {"adapter": str(finished.adapter.relative_to(out))} for finished in rounds]
    report = {"format": 1, "rounds": lines, "versions": package_versions()}
    write_json(out / "rft.json", report, floats="repr")


def _copy_adapter(out: Path, adapter: Path) -> Path:
    """Copy the last round's adapter to DIR/adapter, whole or not at all."""
    target, part = out / "adapter", out / ".adapter.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(adapter, part)
    shutil.rmtree(target, ignore_errors=True)
    part.replace(target)
    return target


def table(result: RftResult) -> str:
    """Return the account of all rounds as lines for people."""
    lines = []
    for number, finished in enumerate(result.rounds, start=1):
        lines.append(
            f"round {number}: {finished.rows} rows, {finished.drawn} answers, {finished.accepted} accepted, "
            f"{finished.reached} rows reached"
        )
        lines += [f"  rejected {count}: {name}" for name, count in finished.rejected.items()]
        lines += [f"  failed {finished.failed}"] if finished.failed else []
        lines += [
            f"  would have rejected {count} of the accepted: {name}"
            for name, count in finished.watched.items()
        ]
        loss = f", loss {finished.loss[0]:.4f} -> {finished.loss[1]:.4f}" if finished.loss else ""
        lines.append(f"  {finished.steps} steps{loss}")
    return "\n".join([*lines, f"adapter: {result.adapter}", ""])
