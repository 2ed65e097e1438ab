"""Rejection-sampling fine-tuning: ask each row several times, keep the answers that are right, train on them,
again.

    DIR/config.json              the configuration
    DIR/round-1/samples/         a run directory of the evaluation: every answer verbatim, judged
    DIR/round-1/data/            accepted.jsonl (rows like any other), rejected.jsonl, manifest.json
    DIR/round-1/train/           an ordinary training run
    DIR/adapter, DIR/rft.json    the newest adapter, and the account of all rounds

Strategy: nothing here samples, judges or trains; the evaluation, the validators and the training run do,
through their public doors.
Promises: an accepted row is the row that was asked, its images, tools and group
included, with the accepted answer in the schema's own form as its last turn: never another row's picture,
never a malformed text. Every draw is accepted, rejected with a reason, or failed, and the three add up. A run
that was killed goes on where it stopped."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkdata.common import json_files
from dfkdata.common.errors import BackendError, ConfigError, DataError
from dfkdata.common.hashing import file_sha256
from dfkdata.common.jsonl import write_lines
from dfkdata.rows.messages import answer_turn
from dfkdata.rows.prompt import before_answer
from dfkdata.schemas import Schema
from dfkeval import validators
from dfkeval.evaluation import evaluate
from dfkeval.evaluation.rows import read_rows
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Sample
from dfktrain.config.launch import process_count
from dfktrain.config.rft import RftConfig, with_accepted
from dfktrain.engines import package_versions

if TYPE_CHECKING:
    from dfkeval.evaluation.generation import Progress
    from dfktrain.training.trainer import OnProgress

_DECIMAL = re.compile(r"-?\d+\.\d+")
_EXAMPLES = 20


@dataclass(frozen=True)
class Round:
    """One round's account. drawn = accepted + failed + the sum of rejected.

    rows: asked. reached: rows with an accepted answer. rejected: validator -> draws; also `duplicate` (the
    row's same answer again), `over keep` and `no answer`. reasons: the most frequent, decimals written as #.
    watched: validator of `watch` -> accepted answers that it would have rejected. adapter: what the round
    ended with."""

    rows: int
    drawn: int
    accepted: int
    reached: int
    failed: int
    rejected: dict[str, int]
    reasons: dict[str, int]
    watched: dict[str, int]
    outcomes: dict[str, int]
    adapter: Path
    accepted_sha256: str
    steps: int
    loss: tuple[float, float] | None


@dataclass(frozen=True)
class RftResult:
    """A finished run. adapter: DIR/adapter."""

    adapter: Path
    rounds: tuple[Round, ...]


@dataclass
class Sorted:
    """The draws of a round. accepted: in row order, then in draw order."""

    accepted: list[Sample] = field(default_factory=list)
    rejected: list[tuple[Sample, str]] = field(default_factory=list)
    failed: list[Sample] = field(default_factory=list)


def rft(
    config: RftConfig,
    out: str | Path,
    *,
    asked: Progress | None = None,
    trained: OnProgress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> RftResult:
    """Sample, accept and train for `config.rounds` rounds into `out`; goes on where an earlier call stopped.

    asked, trained: called as answers come and steps are done. Raises `ConfigError` and `DataError` before the
    first question where it can be known, `BackendError` when too many requests failed, `DataError` when no
    answer was accepted."""
    if process_count() > 1:
        raise ConfigError("rejection sampling runs in one process; launch it without torchrun or accelerate")
    out = Path(out).resolve()
    _begin(out, config)
    rounds: list[Round] = []
    for number in range(1, config.rounds + 1):
        newest = rounds[-1].adapter if rounds else None
        rounds.append(_round(config, out / f"round-{number}", number, newest, asked, trained, say))
        _write_report(out, rounds)
    adapter = _newest(out, rounds[-1].adapter)
    return RftResult(adapter, tuple(rounds))


def _begin(out: Path, config: RftConfig) -> None:
    """Bind the folder to the configuration, less the number of rounds: more may be asked of the same folder
    later."""
    validators.build(config.accept | config.watch, config.sample.schema_name)
    record = config.model_dump(mode="json", by_alias=True, exclude={"rounds"})
    old = json_files.read_json_or_none(out / "config.json")
    if old is None and out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out}: not empty and no rejection sampling; give another --out")
    if old is not None and old != record:
        changed = sorted(key for key in record if old.get(key) != record[key])
        raise ConfigError(
            f"{out}: holds a run of another configuration ({', '.join(changed)}); give another --out"
        )
    json_files.write_json(out / "config.json", record, floats="repr")


def _round(
    config: RftConfig,
    folder: Path,
    number: int,
    newest: Path | None,
    asked: Progress | None,
    trained: OnProgress | None,
    say: Callable[[str], None],
) -> Round:
    done = json_files.read_json_or_none(folder / "round.json")
    if done is not None:
        return Round(
            **(done | {"adapter": folder / done["adapter"], "loss": done["loss"] and tuple(done["loss"])})
        )
    settings = asking(config.sample, number, newest)
    say(f"round {number}: asking")
    run = evaluate.evaluate(settings, folder / "samples", progress=asked)
    if run.failed_share > settings.max_failures:
        raise BackendError(
            f"{folder / 'samples'}: {run.failed_share:.1%} of the requests got no answer (allowed: "
            f"max_failures {settings.max_failures:g}); the same command asks them again"
        )
    rows = {str(row["id"]): row for row in read_rows(run.config)}
    repeats = run.config.sampling.repeats
    found = sort_draws(run.samples, validators.build(config.accept, run.schema.name), config)
    made_by = {"round": number, "backend": run.environment.get("backend", {}), "accept": config.accept}
    made_by["sampling"] = run.config.sampling.model_dump(mode="json")
    lines = [
        accepted_row(rows[row_id(each, repeats)], each, run.schema, config, made_by)
        for each in found.accepted
    ]
    account = _account(
        found, len(rows), repeats, run.summary["outcomes"], _watched(config, run.schema, found.accepted)
    )
    _write_data(folder / "data", lines, found, account | {"made_by": made_by})
    say(
        f"round {number}: {account['accepted']} of {account['drawn']} answers accepted, {account['reached']} "
        f"of {len(rows)} rows"
    )
    if not found.accepted:
        raise DataError(
            f"{folder / 'data'}: no answer was accepted ({_top(account['reasons'])}); nothing to train on"
        )
    from dfktrain.training.run import train

    result = train(training(config, folder / "data", number, newest), folder / "train", progress=trained)
    losses = [line["loss"] for stage in result.stages for line in stage.history if "loss" in line]
    report = Round(
        **account,
        adapter=result.adapter,
        accepted_sha256=file_sha256(folder / "data" / "accepted.jsonl"),
        steps=sum(stage.steps for stage in result.stages),
        loss=(losses[0], losses[-1]) if losses else None,
    )
    json_files.write_json(
        folder / "round.json",
        asdict(report) | {"adapter": str(result.adapter.relative_to(folder))},
        floats="repr",
    )
    return report


def asking(sample: EvalConfig, number: int, newest: Path | None) -> EvalConfig:
    """The evaluation of a round: another seed each round, and from the second on the newest adapter."""
    sampling = sample.sampling.model_copy(update={"seed": sample.sampling.seed + number - 1})
    backend = sample.backend if newest is None else sample.backend.model_copy(update={"adapter": newest})
    return sample.model_copy(update={"sampling": sampling, "backend": backend})


def training(config: RftConfig, data: Path, number: int, newest: Path | None) -> Any:
    """The training run of a round, its `accepted` rows filled in."""
    train = with_accepted(config.train, str(data / "accepted.jsonl"))
    if newest is None or config.start == "base":
        return train
    return train.model_copy(update={"adapter": train.adapter.model_copy(update={"warm_start": str(newest)})})


def sort_draws(samples: Sequence[Sample], judge: validators.Validator, config: RftConfig) -> Sorted:
    """Each draw where it belongs. The first rejection of `judge` counts; then a row's repeated answers and
    those beyond `keep` are left out."""
    found = Sorted()
    kept: dict[str, list[Any]] = {}
    for sample in samples:
        if not sample.answered:
            found.failed.append(sample)
            continue
        before = kept.setdefault(row_id(sample, config.sample.sampling.repeats), [])
        reason = judge(sample) or _left_out(sample, before, config)
        if reason is None:
            before.append(_taught(sample, config))
            found.accepted.append(sample)
        else:
            found.rejected.append((sample, reason))
    return found


def _left_out(sample: Sample, kept: list[Any], config: RftConfig) -> str | None:
    if sample.lenient is None:
        return f"no answer: {sample.outcome}"
    if _taught(sample, config) in kept:
        return "duplicate: the row's same answer again"
    if config.keep is not None and len(kept) >= config.keep:
        return f"over keep: {config.keep} of this row are kept"
    return None


def _taught(sample: Sample, config: RftConfig) -> tuple[Any, str | None]:
    return sample.lenient, sample.reasoning if config.traces == "keep" else None


def row_id(sample: Sample, repeats: int) -> str:
    """The id of the row behind a draw: "a#2" is the second of "a". A single draw has its row's own id, which
    may end like that."""
    return sample.id if repeats == 1 else sample.id.removesuffix(f"#{sample.draw_index + 1}")


def accepted_row(
    row: Mapping[str, Any], sample: Sample, schema: Schema, config: RftConfig, made_by: Mapping[str, Any]
) -> dict[str, Any]:
    """The asked row with the accepted answer as its last turn, and where it comes from in `meta.rft`.

    Raises `DataError` where the draw was shown other images than the row's."""
    if tuple(row["images"]) != sample.images:
        raise DataError(
            f"draw {sample.id} was shown {sample.images}, its row has {row['images']}: not the same row"
        )
    if sample.lenient is None:
        raise ValueError(f"{sample.id} has no value")
    turn = answer_turn(sample.lenient, schema)
    row_name = row_id(sample, config.sample.sampling.repeats)
    made: dict[str, Any] = {
        "row": row_name,
        "draw": sample.draw_index,
        "outcome": sample.outcome,
        **made_by,
    }
    new = dict(row) | {"id": f"{row_name}#rft{made_by['round']}.{sample.draw_index + 1}"}
    if config.sample.sampling.thinking and config.traces == "keep":
        turn = turn | {"reasoning_content": sample.reasoning or ""}
        new["chat_template_kwargs"] = dict(row.get("chat_template_kwargs") or {}) | {"enable_thinking": True}
    new["messages"] = [*before_answer(row["messages"]), turn]
    new["meta"] = dict(row.get("meta") or {}) | {
        "rft": made,
        "schema": schema.name,
        "variant": schema.variant,
    }
    return new


def _watched(config: RftConfig, schema: Schema, accepted: Sequence[Sample]) -> dict[str, int]:
    """Accepted answers that each watching validator would have rejected."""
    counts = {}
    for name, options in config.watch.items():
        judge = validators.build({name: options}, schema.name)
        counts[name] = sum(judge(sample) is not None for sample in accepted)
    return counts


def _account(
    found: Sorted, rows: int, repeats: int, outcomes: dict[str, int], watched: dict[str, int]
) -> dict[str, Any]:
    members = Counter(reason.partition(":")[0] for _, reason in found.rejected)
    reasons = Counter(_DECIMAL.sub("#", reason) for _, reason in found.rejected)
    return {
        "rows": rows,
        "drawn": len(found.accepted) + len(found.rejected) + len(found.failed),
        "accepted": len(found.accepted),
        "reached": len({row_id(sample, repeats) for sample in found.accepted}),
        "failed": len(found.failed),
        "rejected": dict(members.most_common()),
        "reasons": dict(reasons.most_common(_EXAMPLES)),
        "watched": watched,
        "outcomes": outcomes,
    }


def _top(reasons: Mapping[str, int]) -> str:
    return "; ".join(f"{count} {reason}" for reason, count in list(reasons.items())[:3]) or "no draws"


def _write_data(folder: Path, rows: Sequence[dict[str, Any]], found: Sorted, account: dict[str, Any]) -> None:
    """accepted.jsonl, rejected.jsonl and manifest.json; image paths as seen from the folder, the manifest
    last."""
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "accepted.jsonl", (_portable(row, folder) for row in rows))
    rejects = ({"id": each.id, "reason": reason, "text": each.text} for each, reason in found.rejected)
    write_lines(folder / "rejected.jsonl", rejects)
    outputs = [
        {"path": name, "sha256": file_sha256(folder / name)} for name in ("accepted.jsonl", "rejected.jsonl")
    ]
    json_files.write_json(
        folder / "manifest.json", {"format": 1, **account, "outputs": outputs}, floats="repr"
    )


def _portable(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    images = [path if path.startswith("data:") else os.path.relpath(path, folder) for path in row["images"]]
    return row | {"images": [path.replace(os.sep, "/") for path in images]}


def _write_report(out: Path, rounds: Sequence[Round]) -> None:
    lines = [asdict(each) | {"adapter": str(each.adapter.relative_to(out))} for each in rounds]
    json_files.write_json(
        out / "rft.json", {"format": 1, "rounds": lines, "versions": package_versions()}, floats="repr"
    )


def _newest(out: Path, adapter: Path) -> Path:
    """DIR/adapter: a copy of the last round's, whole or not at all."""
    target, part = out / "adapter", out / ".adapter.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(adapter, part)
    shutil.rmtree(target, ignore_errors=True)
    part.replace(target)
    return target


def table(result: RftResult) -> str:
    """The account of all rounds, for people."""
    lines = []
    for number, each in enumerate(result.rounds, start=1):
        lines.append(
            f"round {number}: {each.rows} rows, {each.drawn} answers, {each.accepted} accepted, "
            f"{each.reached} rows reached"
        )
        lines += [f"  rejected {count}: {name}" for name, count in each.rejected.items()]
        lines += [f"  failed {each.failed}"] if each.failed else []
        lines += [
            f"  would have rejected {count} of the accepted: {name}" for name, count in each.watched.items()
        ]
        loss = f", loss {each.loss[0]:.4f} -> {each.loss[1]:.4f}" if each.loss else ""
        lines.append(f"  {each.steps} steps{loss}")
    return "\n".join([*lines, f"adapter: {result.adapter}", ""])
