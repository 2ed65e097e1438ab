"""A stage's files -> encoded samples, with an account of every row that is not among them.

Strategy: rows are read, filtered and encoded once, before the first step, so that a row which cannot be
trained on stops the run in seconds and not after an hour.
Promises: rows read = samples made from + left out by modality + dropped as too long, or the stage is refused
with the rows named; the order of samples depends on the files and the seed only."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from dfkdata.common.errors import DataError
from dfkdata.common.hashing import file_sha256
from dfkdata.common.plugins import suggestion
from dfkdata.rows.messages import load_rows
from dfkdata.validation.text import control_token
from dfktrain.config.run import LabelWeights, Resample, Stage
from dfktrain.data import masking, row_schema
from dfktrain.data.collator import Collator
from dfktrain.data.masking import EncodedSample

SHOWN = 5
"""Refused rows named in one message; the rest is counted."""


@dataclass
class StageData:
    """samples: what the stage trains on. left_out: reason -> rows. sha256: file -> hash of its bytes.

    schemas, variants, systems, tools, thinking: the distinct values met, for `dfk.json`. controls: row ->
    control token that its text says."""

    samples: list[EncodedSample] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    sha256: dict[str, str] = field(default_factory=dict)
    schemas: set[str | None] = field(default_factory=set)
    variants: set[str | None] = field(default_factory=set)
    systems: set[str | None] = field(default_factory=set)
    tools: set[str] = field(default_factory=set)
    thinking: set[bool] = field(default_factory=set)
    controls: dict[str, str] = field(default_factory=dict)

    def note(self, row: dict[str, Any]) -> None:
        """Remember what inference must repeat, and what the tokenizer will obey."""
        if token := control_token(msgspec.json.encode(row["messages"])):
            self.controls[str(row["id"])] = token
        meta = row.get("meta") or {}
        self.schemas.add(meta.get("schema"))
        self.variants.add(meta.get("variant"))
        self.systems.add(_system(row))
        self.tools.add(json.dumps(row.get("tools") or None, ensure_ascii=False, sort_keys=True))
        self.thinking.add(bool((row.get("chat_template_kwargs") or {}).get("enable_thinking", False)))


def read_stage(stage: Stage, collator: Collator, seed: int, refused: list[str] | None = None) -> StageData:
    """The training samples of `stage`. Raises `DataError` naming the rows that cannot be used, or if none is
    left.

    refused: a list to collect the reasons in instead; the other rows are then returned."""
    data = StageData()
    reasons: list[str] = [] if refused is None else refused
    chooser = random.Random(seed)
    for source in stage.sources:
        data.sha256[source.path] = data_sha256(source.path)
        found = list(_samples(source.path, stage, collator, data, reasons))
        data.samples += [found[at] for at in _weighted(range(len(found)), source.weight, chooser)]
    if refused is None:
        _refuse(reasons, stage.name)
    if stage.resample is not None and data.samples:
        data.samples = _resampled(data.samples, stage.resample, chooser)
    if stage.label_weights is not None and data.samples:
        data.samples = _weighed(data.samples, stage.label_weights)
    if not data.samples and not reasons:
        raise DataError(
            f"stage {stage.name}: no row is left to train on ({dict(data.left_out) or 'the files are empty'})"
        )
    return data


def read_validation(stage: Stage, collator: Collator) -> list[EncodedSample]:
    """The validation samples, never resampled or weighed; rows that are too long are left out, since scoring
    them is not the stage's aim."""
    data, refused = StageData(), list[str]()
    wanted = stage.model_copy(update={"on_too_long": "drop", "resample": None, "label_weights": None})
    samples = [
        sample for path in stage.validation for sample in _samples(path, wanted, collator, data, refused)
    ]
    _refuse(refused, stage.name)
    return samples


def _samples(
    path: str, stage: Stage, collator: Collator, data: StageData, refused: list[str]
) -> Iterator[EncodedSample]:
    for row in load_rows(path):
        if stage.modality != "any" and (stage.modality == "image") != _sees(row):
            data.left_out[f"modality is not {stage.modality}"] += 1
            continue
        try:
            yield from _row_samples(row, stage, collator, data)
        except DataError as error:
            refused.append(str(error))


def _sees(row: dict[str, Any]) -> bool:
    return bool(row["images"] or row.get("videos"))


def _row_samples(
    row: dict[str, Any], stage: Stage, collator: Collator, data: StageData
) -> Iterator[EncodedSample]:
    row_schema.require(row)
    data.note(row)
    for turn in masking.turns(row, stage.turns):
        sample = collator.encode(turn)
        if field := _asked_field(stage):
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


def _asked_field(stage: Stage) -> str | None:
    """The field of meta.gold that the stage groups rows by."""
    plan = stage.resample or stage.label_weights
    return plan.field if plan is not None else None


def _gold(row: dict[str, Any], field: str) -> str:
    gold = (row.get("meta") or {}).get("gold") or {}
    if field not in gold:
        raise DataError(
            f"row {row['id']}: meta.gold has no {field!r}, which resample or label_weights asks for"
        )
    return str(gold[field])


def _weighted(places: Sequence[int], weight: float, chooser: random.Random) -> list[int]:
    """`places` as often as `weight` says; of a fraction, a seeded choice in file order."""
    whole, part = divmod(weight, 1.0)
    picked = sorted(chooser.sample(range(len(places)), round(part * len(places))))
    return [*places] * int(whole) + [places[at] for at in picked]


def _resampled(samples: list[EncodedSample], plan: Resample, chooser: random.Random) -> list[EncodedSample]:
    """The samples with rows of each gold value as often as `plan` says. Raises `DataError` for a value that
    is absent."""
    groups: dict[str, list[int]] = {}
    for at, sample in enumerate(samples):
        groups.setdefault(sample.value, []).append(at)
    weights = _value_weights(plan, {value: len(places) for value, places in groups.items()}, "resample")
    kept = [at for value, places in groups.items() for at in _weighted(places, weights[value], chooser)]
    return [samples[at] for at in sorted(kept)]


def _weighed(samples: list[EncodedSample], plan: LabelWeights) -> list[EncodedSample]:
    """The samples with the weight of their gold value, scaled to a mean of 1 over the scored tokens."""
    weights = _value_weights(plan, Counter(sample.value for sample in samples), "label_weights")
    tokens = sum(sample.scored for sample in samples)
    mean = sum(weights[sample.value] * sample.scored for sample in samples) / tokens
    return [replace(sample, weight=weights[sample.value] / mean) for sample in samples]


def _value_weights(plan: Resample | LabelWeights, rows: Mapping[str, int], key: str) -> dict[str, float]:
    """Gold value -> weight for the values met, of which there are `rows`. Raises `DataError` for an absent
    one."""
    if plan.weights == "balanced":
        most = max(rows.values())
        return {value: most / count for value, count in rows.items()}
    if lost := sorted(set(plan.weights) - set(rows)):
        known = ", ".join(sorted(rows))
        raise DataError(f"{key}.weights: no row has {plan.field} {lost[0]!r} (there are {known})")
    return {**dict.fromkeys(rows, 1.0), **plan.weights}


def _refuse(refused: list[str], stage: str) -> None:
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


def data_sha256(path: str) -> str:
    """Hash of a file's bytes. Raises `DataError` if it cannot be read."""
    try:
        return file_sha256(path)
    except OSError as error:
        folder = Path(path).parent
        known = [each.name for each in folder.iterdir()] if folder.is_dir() else []
        raise DataError(
            f"{path}: cannot be read ({error.strerror}){suggestion(Path(path).name, known)}"
        ) from error
