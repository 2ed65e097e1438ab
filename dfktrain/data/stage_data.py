"""Read the files of a stage as encoded samples, with a count of every row that is left out.

How it works: rows are read, filtered and encoded once, before the first step, so that a row that cannot be
trained on stops the run in seconds and not after an hour.

Guarantees:
    - Every row becomes samples or is counted as left out by modality, by its loss flags or as too long; otherwise
      the stage stops with an error that names the rows.
    - The order of samples depends on the files and the seed only."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from dfkdata.common.errors import DataError
from dfkdata.common.hashing import file_sha256
from dfkdata.rows.control_tokens import control_token
from dfkdata.rows.messages import check_row, load_rows, unreadable
from dfkeval.models.rendering import template_options, thinks
from dfktrain.config.stage import LabelWeights, Resample, Stage
from dfktrain.data import masking
from dfktrain.data.collator import Collator
from dfktrain.data.masking import EncodedSample

SHOWN = 5
"""Number of refused rows that a message names; the others are counted."""


SHAPES = 64
"""Shapes of rows that are told apart; rows of others are counted together."""


@dataclass
class RowShape:
    """Rows that ask alike: with one system text, the same tools and template options, and a question of one kind.

    Attributes:
        example: The first of them.
        rows: Their number.
    """

    example: dict[str, Any]
    rows: int = 0


@dataclass
class StageData:
    """Samples of a stage, and what its rows have in common.

    Attributes:
        samples: What the stage trains on.
        left_out: Reason -> number of rows.
        sha256: File -> hash of its bytes.
        schemas, variants, systems, tools, thinking, efforts: The distinct values in the rows, for `dfk.json`.
        controls: Id of a row -> control token that its text contains.
        shapes: What rows ask with -> the rows that ask so, the first `SHAPES` of them.
        shapeless: Number of rows of further shapes.
    """

    samples: list[EncodedSample] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    sha256: dict[str, str] = field(default_factory=dict)
    schemas: set[str | None] = field(default_factory=set)
    variants: set[str | None] = field(default_factory=set)
    systems: set[str | None] = field(default_factory=set)
    tools: set[str] = field(default_factory=set)
    thinking: set[bool] = field(default_factory=set)
    efforts: set[str | None] = field(default_factory=set)
    controls: dict[str, str] = field(default_factory=dict)
    shapes: dict[tuple[Any, ...], RowShape] = field(default_factory=dict)
    shapeless: int = 0

    def note(self, row: dict[str, Any]) -> None:
        """Note what inference must repeat, and control tokens that the tokenizer will obey."""
        if token := control_token(msgspec.json.encode(row["messages"])):
            self.controls[str(row["id"])] = token
        meta, options = row.get("meta") or {}, template_options(row)
        system, thinking = _system(row), thinks(row)
        tools = json.dumps(row.get("tools") or None, ensure_ascii=False, sort_keys=True)
        self.schemas.add(meta.get("schema"))
        self.variants.add(meta.get("variant"))
        self.systems.add(system)
        self.tools.add(tools)
        self.thinking.add(thinking)
        self.efforts.add(options.get("reasoning_effort"))
        asked = json.dumps(options, sort_keys=True, default=str)
        key = (meta.get("schema"), meta.get("variant"), system, tools, thinking, asked, _question_kinds(row))
        shape = self.shapes.get(key)
        if shape is None and len(self.shapes) < SHAPES:
            shape = self.shapes[key] = RowShape(row)
        if shape is None:
            self.shapeless += 1
        else:
            shape.rows += 1


def read_stage(stage: Stage, collator: Collator, seed: int, refused: list[str] | None = None) -> StageData:
    """Read the training samples of a stage.

    Args:
        stage: The stage.
        collator: Encodes the rows.
        seed: Decides which rows a fractional weight takes.
        refused: A list that gets the reasons why rows cannot be used, instead of an error.

    Raises:
        DataError: Rows cannot be used (the message names them), or no row is left.
    """
    data = StageData()
    reasons: list[str] = [] if refused is None else refused
    chooser = random.Random(seed)
    for source in stage.sources:
        data.sha256[source.path] = data_sha256(source.path)
        samples = list(_samples(source.path, stage, collator, data, reasons))
        data.samples += [samples[at] for at in _repeated(range(len(samples)), source.weight, chooser)]
    if refused is None:
        _check_refused(reasons, stage.name)
    if stage.resample is not None and data.samples:
        data.samples = _resampled(data.samples, stage.resample, chooser)
    if stage.label_weights is not None and data.samples:
        data.samples = _with_label_weights(data.samples, stage.label_weights)
    if not data.samples and not reasons:
        raise DataError(f"stage {stage.name}: no row is left to train on ({dict(data.left_out)})")
    return data


def read_validation(stage: Stage, collator: Collator) -> list[EncodedSample]:
    """Read the validation samples of a stage, without resampling or label weights; too long rows are left out.

    Raises:
        DataError: Rows cannot be used, or the stage names files and no row of them is left.
    """
    data, refused = StageData(), list[str]()
    plain = stage.model_copy(update={"on_too_long": "drop", "resample": None, "label_weights": None})
    samples = [
        sample for path in stage.validation for sample in _samples(path, plain, collator, data, refused)
    ]
    _check_refused(refused, stage.name)
    if stage.validation and not samples:
        raise DataError(f"stage {stage.name}: no validation row is left ({dict(data.left_out)})")
    return samples


def _samples(
    path: str, stage: Stage, collator: Collator, data: StageData, refused: list[str]
) -> Iterator[EncodedSample]:
    rows = 0
    for rows, row in enumerate(load_rows(path), start=1):  # noqa: B007
        if not is_of_modality(row, stage):
            data.left_out[f"modality is not {stage.modality}"] += 1
            continue
        try:
            yield from _row_samples(row, stage, collator, data)
        except DataError as error:
            refused.append(str(error))
    if not rows:
        raise no_rows(path, stage)


def no_rows(path: str, stage: Stage) -> DataError:
    """Return the error that a file of a stage is empty."""
    return DataError(f"{path}: holds no row; take it out of stage {stage.name}, or write the rows into it")


def is_of_modality(row: dict[str, Any], stage: Stage) -> bool:
    """Return whether a row is of the kind that the stage takes."""
    sees = bool(row["images"] or row.get("videos"))
    return stage.modality == "any" or (stage.modality == "image") == sees


def _row_samples(
    row: dict[str, Any], stage: Stage, collator: Collator, data: StageData
) -> Iterator[EncodedSample]:
    check_row(row)
    if reason := masking.without_loss(row, stage.turns):
        data.left_out[reason] += 1
        return
    data.note(row)
    for turn in masking.turns(row, stage.turns):
        sample = collator.encode(turn)
        if field := _grouping_field(stage):
            sample = replace(sample, value=_gold(row, field))
        if len(sample) <= stage.max_length:
            yield sample
        elif stage.on_too_long == "drop":
            data.left_out[f"longer than {stage.max_length} tokens"] += 1
        elif stage.on_too_long == "truncate_prompt":
            yield collator.shorten(sample, stage.max_length)
        else:
            raise DataError(
                f"row {sample.id}: {len(sample)} tokens, max_length is {stage.max_length}; raise it, lower "
                f"max_pixels, or choose on_too_long: drop or truncate_prompt"
            )


def _grouping_field(stage: Stage) -> str | None:
    """Return the field of meta.gold by whose value the stage groups rows."""
    plan = stage.resample or stage.label_weights
    return plan.field if plan is not None else None


def _gold(row: dict[str, Any], field: str) -> str:
    gold = (row.get("meta") or {}).get("gold") or {}
    if field not in gold:
        raise DataError(
            f"row {row['id']}: meta.gold has no {field!r}, which resample or label_weights asks for"
        )
    return str(gold[field])


def _repeated(places: Sequence[int], weight: float, chooser: random.Random) -> list[int]:
    """Return each place `weight` times; a fraction takes a seeded choice in file order."""
    whole, part = divmod(weight, 1.0)
    picked = sorted(chooser.sample(range(len(places)), round(part * len(places))))
    return [*places] * int(whole) + [places[at] for at in picked]


def _resampled(samples: list[EncodedSample], plan: Resample, chooser: random.Random) -> list[EncodedSample]:
    """Return the samples of each gold value as often as `plan` says."""
    groups: dict[str, list[int]] = {}
    for at, sample in enumerate(samples):
        groups.setdefault(sample.value, []).append(at)
    weights = _value_weights(plan, {value: len(places) for value, places in groups.items()}, "resample")
    chosen = [at for value, places in groups.items() for at in _repeated(places, weights[value], chooser)]
    return [samples[at] for at in sorted(chosen)]


def _with_label_weights(samples: list[EncodedSample], plan: LabelWeights) -> list[EncodedSample]:
    """Return the samples with the weight of their gold value, scaled to a mean of 1 over the scored tokens.

    It multiplies the weight that the sample's own turn asks for."""
    weights = _value_weights(plan, Counter(sample.value for sample in samples), "label_weights")
    tokens = sum(sample.scored for sample in samples)
    mean = sum(weights[sample.value] * sample.scored for sample in samples) / tokens
    return [replace(sample, weight=sample.turn_weight * (weights[sample.value] / mean)) for sample in samples]


def _value_weights(plan: Resample | LabelWeights, rows: Mapping[str, int], key: str) -> dict[str, float]:
    """Return gold value -> weight for the values in `rows`, which maps each value to its number of rows."""
    if plan.weights == "balanced":
        most = max(rows.values())
        return {value: most / count for value, count in rows.items()}
    if absent := sorted(set(plan.weights) - set(rows)):
        known = ", ".join(sorted(rows))
        raise DataError(f"{key}.weights: no row has {plan.field} {absent[0]!r} (there are {known})")
    return {**dict.fromkeys(rows, 1.0), **plan.weights}


def _check_refused(refused: list[str], stage: str) -> None:
    if refused:
        more = f"\n  and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
        raise DataError(
            f"stage {stage}: {len(refused)} rows cannot be trained on\n  "
            + "\n  ".join(refused[:SHOWN])
            + more
        )


def _system(row: dict[str, Any]) -> str | None:
    first = row["messages"][0]
    if first["role"] != "system":
        return None
    content = first["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())


def _question_kinds(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the kinds of the parts of the user's last turn; where a schema writes it, its pictures alone differ."""
    turns = [turn for turn in row["messages"] if turn["role"] == "user"]
    content = turns[-1].get("content") if turns else None
    if not isinstance(content, list):
        return ("text",) * bool(content)
    kinds = tuple(str(part.get("type")) for part in content)
    by_schema = bool((row.get("meta") or {}).get("schema"))
    return tuple(kind for kind in kinds if kind != "text") if by_schema else kinds


def data_sha256(path: str) -> str:
    """Return the hash of a file's bytes; raise `DataError` if it cannot be read."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise unreadable(path, error) from error
