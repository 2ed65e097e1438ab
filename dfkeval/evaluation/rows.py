"""Read and check the rows of an evaluation, and make them into items."""

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
    """Return the rows to ask. Raises `DataError` if there are none, or if an id stands twice."""
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
    _check_ids(config.data, [str(row["id"]) for row in rows])
    return rows


def _check_ids(data: Path, names: Sequence[str]) -> None:
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
    """Return the items to ask: every row, under the scaffold if there is one, once for each draw.

    Args:
        rows: Rows of the messages layout.
        config: The resolved configuration.
        schema: The schema of the answers.

    Raises:
        DataError: Two draws share an id, or the scaffold cannot be read.
        ConfigError: The scaffold's tool is not the one that the schema reads.
    """
    replacement = scaffold.read_if_given(config.scaffold, schema)
    items = with_draws(
        [eval_item(scaffold.of_row(row, replacement), schema) for row in rows], config.sampling.repeats
    )
    _check_ids(config.data, [item.request.id for item in items])
    return items


def stored_item(sample: Sample) -> EvalItem:
    """Return the item of a sample, for a run whose data file is gone."""
    request = Request(id=sample.id, messages=[], images=sample.images, draw_index=sample.draw_index)
    return EvalItem(request, sample.group, sample.gold, sample.source_text, sample.prompt, sample.key)


def inputs_sha256(config: EvalConfig) -> str:
    """Return the hash of the data file; with a scaffold, the hash of both hashes."""
    hashes = [file_sha256(path) for path in (config.data, config.scaffold) if path is not None]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
