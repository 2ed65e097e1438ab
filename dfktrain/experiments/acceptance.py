"""Accept or reject sampled answers, and make training rows of the accepted ones.

Guarantees:
    - Every draw is accepted, rejected with a reason, or failed; the three add up.
    - An accepted row is the row that was asked, with its own images, tools and group, and the accepted answer
      in the schema's own form as its last turn."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dfkdata.common.errors import DataError
from dfkdata.rows.messages import answer_turn, before_answer
from dfkdata.schemas import Schema
from dfkeval import validators
from dfkeval.types import Sample
from dfktrain.config.rft import RftConfig

_DECIMAL = re.compile(r"-?\d+\.\d+")
_REASONS = 20


@dataclass
class SortedDraws:
    """The draws of a round, each in the order of rows and draws.

    Attributes:
        accepted: Draws to train on.
        rejected: Draws with the reason.
        failed: Requests without an answer.
    """

    accepted: list[Sample] = field(default_factory=list)
    rejected: list[tuple[Sample, str]] = field(default_factory=list)
    failed: list[Sample] = field(default_factory=list)


@dataclass(frozen=True)
class Account:
    """The counts of a round: drawn = accepted + failed + the sum of rejected.

    Attributes:
        rows: Number of rows that were asked.
        drawn: Number of draws.
        accepted: Number of accepted draws.
        reached: Number of rows with an accepted draw.
        failed: Number of requests without an answer.
        rejected: Validator -> number of draws; also "duplicate" (the same answer of a row again), "over keep"
            and "no answer".
        reasons: The most frequent reasons -> number of draws, with # for decimal numbers.
        watched: Validator of `watch` -> number of accepted draws that it would have rejected.
        outcomes: Outcome of the evaluation -> number of draws.
    """

    rows: int
    drawn: int
    accepted: int
    reached: int
    failed: int
    rejected: dict[str, int]
    reasons: dict[str, int]
    watched: dict[str, int]
    outcomes: dict[str, int]


def sort_draws(samples: Sequence[Sample], validate: validators.Validator, config: RftConfig) -> SortedDraws:
    """Sort draws into accepted, rejected and failed ones.

    Args:
        samples: All draws, in the order of rows and draws.
        validate: Returns the reason to reject a draw, or None.
        config: Says how many different answers of a row are kept, and whether reasoning belongs to them.
    """
    draws = SortedDraws()
    kept: dict[str, list[Any]] = {}
    for sample in samples:
        if not sample.answered:
            draws.failed.append(sample)
            continue
        answers = kept.setdefault(row_id(sample, config.sample.sampling.repeats), [])
        reason = validate(sample) or _surplus(sample, answers, config)
        if reason is None:
            answers.append(_answer(sample, config))
            draws.accepted.append(sample)
        else:
            draws.rejected.append((sample, reason))
    return draws


def _surplus(sample: Sample, kept: list[Any], config: RftConfig) -> str | None:
    """Return why a valid draw is left out, None if it is kept. kept: earlier answers of the same row."""
    if sample.lenient is None:
        return f"no answer: {sample.outcome}"
    if _answer(sample, config) in kept:
        return "duplicate: the row's same answer again"
    if config.keep is not None and len(kept) >= config.keep:
        return f"over keep: {config.keep} of this row are kept"
    return None


def _answer(sample: Sample, config: RftConfig) -> tuple[Any, str | None]:
    return sample.lenient, sample.reasoning if config.traces == "keep" else None


def row_id(sample: Sample, repeats: int) -> str:
    """Return the id of the row behind a draw: "a#2" is the second draw of "a".

    A single draw has its row's own id, which may itself end like that."""
    return sample.id if repeats == 1 else sample.id.removesuffix(f"#{sample.draw_index + 1}")


def accepted_row(
    row: Mapping[str, Any], sample: Sample, schema: Schema, config: RftConfig, made_by: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a training row: the asked row with the accepted answer as its last turn.

    Args:
        row: The row that was asked.
        sample: The accepted draw.
        schema: Schema of the answer.
        config: Configuration of the run.
        made_by: Round, backend, validators and sampling; they go to `meta.rft` with row and draw.

    Raises:
        DataError: The draw was shown other images than the row's.
    """
    if tuple(row["images"]) != sample.images:
        raise DataError(
            f"draw {sample.id} was shown {sample.images}, its row has {row['images']}: not the same row"
        )
    if sample.lenient is None:
        raise ValueError(f"{sample.id} has no value")
    turn = answer_turn(sample.lenient, schema)
    name = row_id(sample, config.sample.sampling.repeats)
    origin: dict[str, Any] = {"row": name, "draw": sample.draw_index, "outcome": sample.outcome, **made_by}
    new = dict(row) | {"id": f"{name}#rft{made_by['round']}.{sample.draw_index + 1}"}
    if config.sample.sampling.thinking and config.traces == "keep":
        turn = turn | {"reasoning_content": sample.reasoning or ""}
        new["chat_template_kwargs"] = dict(row.get("chat_template_kwargs") or {}) | {"enable_thinking": True}
    new["messages"] = [*before_answer(row["messages"]), turn]
    facts = {"rft": origin, "schema": schema.name, "variant": schema.variant}
    new["meta"] = dict(row.get("meta") or {}) | facts
    return new


def count_draws(
    draws: SortedDraws, rows: int, config: RftConfig, schema: Schema, outcomes: dict[str, int]
) -> Account:
    """Return the account of a round.

    Args:
        draws: The sorted draws.
        rows: Number of rows that were asked.
        config: Configuration of the run, with the validators of `watch`.
        schema: Schema of the answers.
        outcomes: Outcome of the evaluation -> number of draws.
    """
    names = Counter(reason.partition(":")[0] for _, reason in draws.rejected)
    reasons = Counter(_DECIMAL.sub("#", reason) for _, reason in draws.rejected)
    repeats = config.sample.sampling.repeats
    return Account(
        rows=rows,
        drawn=len(draws.accepted) + len(draws.rejected) + len(draws.failed),
        accepted=len(draws.accepted),
        reached=len({row_id(sample, repeats) for sample in draws.accepted}),
        failed=len(draws.failed),
        rejected=dict(names.most_common()),
        reasons=dict(reasons.most_common(_REASONS)),
        watched=_watched(config, schema, draws.accepted),
        outcomes=outcomes,
    )


def _watched(config: RftConfig, schema: Schema, accepted: Sequence[Sample]) -> dict[str, int]:
    counts = {}
    for name, options in config.watch.items():
        validate = validators.build({name: options}, schema.name)
        counts[name] = sum(validate(sample) is not None for sample in accepted)
    return counts
