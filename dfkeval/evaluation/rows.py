"""The rows of an evaluation: read, checked, and made into what is asked."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dfkdata.common.errors import DataError
from dfkdata.common.hashing import file_sha256
from dfkdata.rows.messages import load_rows
from dfkdata.schemas import Schema
from dfkeval.evaluation import scaffold
from dfkeval.evaluation.grading import EvalItem, eval_item, with_draws
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Request, Sample


def read_rows(config: EvalConfig) -> list[dict[str, Any]]:
    """The rows to ask. Raises `DataError` for none, or for an id written twice."""
    everything = list(islice(load_rows(config.data), config.limit))
    place, count = config.part
    rows = everything[place - 1 :: count]
    if not rows:
        part = f" in shard {config.shard}" if config.shard else ""
        raise DataError(f"{config.data}: no rows to evaluate{part}")
    for row in rows:
        if not row["messages"] or not all(map(_is_turn, row["messages"])):
            raise DataError(
                f"{config.data}: row {str(row['id'])!r}: a turn is not {{role, content}} with a list of parts"
                " (dfkdata convert writes them)"
            )
    _refuse_twice(config.data, [str(row["id"]) for row in rows])
    return rows


def _refuse_twice(data: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{data}: {len(twice)} ids are written twice, for example {twice[0]!r}")


def _is_turn(turn: Any) -> bool:
    if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
        return False
    content = turn.get("content")
    if not isinstance(content, list):
        return content is None or isinstance(content, str)
    return all(isinstance(part, str | dict) for part in content)


def items_of(rows: Sequence[dict[str, Any]], config: EvalConfig, schema: Schema) -> list[EvalItem]:
    """What is asked: every row, under the scaffold where there is one, as often as it is drawn. Raises
    `DataError` when two draws share an id, and as `scaffold.read`."""
    replacement = scaffold.read_if_given(config.scaffold, schema)
    items = with_draws(
        [eval_item(scaffold.of_row(row, replacement), schema) for row in rows], config.sampling.repeats
    )
    _refuse_twice(config.data, [each.request.id for each in items])
    return items


def stored_item(sample: Sample) -> EvalItem:
    """The item of a sample, for a run whose data file is gone."""
    request = Request(id=sample.id, messages=[], images=sample.images, draw_index=sample.draw_index)
    return EvalItem(request, sample.group, sample.gold, sample.source_text, sample.prompt, sample.key)


def inputs_sha256(config: EvalConfig) -> str:
    """Hash of the data file; with a scaffold, of both hashes."""
    found = [file_sha256(path) for path in (config.data, config.scaffold) if path is not None]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()
