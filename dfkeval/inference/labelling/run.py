"""Unlabelled captions -> training rows: a teacher is asked (`teacher`), and every row ends in one of the two
files of the folder of labels (`labelled`).

Promises: each input row ends in exactly one of the two files; a killed run loses what was in flight and goes
on; failed requests are asked again; copies of a caption are paid for once; a cap on the cost is kept
(`spending`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from dfkdata.common import locks
from dfkdata.common.errors import ConfigError
from dfkdata.common.jsonl import JsonlAppender
from dfkdata.rows.record import Record, Reject
from dfkeval.evaluation.grading import grade
from dfkeval.inference import backend_options
from dfkeval.inference.batch import name_of, numbered
from dfkeval.inference.labelling.budget import Purse, prompt_tokens
from dfkeval.inference.labelling.files import KEPT, REJECTED, Rejected, Totals, finished_ids, tidy, totals
from dfkeval.inference.labelling.teacher import Labeller
from dfkeval.inference.predictor import CHUNK, askable
from dfkeval.types import Completion, Request


def label(
    labeller: Labeller,
    rows: Iterable[Record | Reject],
    out: str | Path,
    *,
    cap: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Totals:
    """Label `rows` into the folder `out`; rows that are there already are not asked again.

    cap: the most that the folder's answers may cost together (`dfkeval.inference.labelling.budget`). progress: called with the
    number of finished rows. Raises `ConfigError` when the folder was begun with another teacher, prompt,
    schema, sampling or validators, or a cap cannot be kept, `DataError` when its files hold something
    else."""
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; --out is a folder")
    with locks.alone(folder / locks.LOCK, "labelling"):
        return _into(folder, labeller, rows, cap, progress)


def _into(
    folder: Path,
    labeller: Labeller,
    rows: Iterable[Record | Reject],
    cap: float | None,
    progress: Callable[[int], None] | None,
) -> Totals:
    done = finished_ids(folder)
    backend_options.begin(folder / "label", labeller.record(), begun=bool(done))
    tidy(folder)
    purse = _purse(cap, labeller, totals(folder))
    with JsonlAppender(folder / KEPT) as good, JsonlAppender(folder / REJECTED) as bad:
        for found in _labelled(labeller, rows, frozenset(done), purse):
            file = bad if isinstance(found, Rejected) else good
            file.put(found)
            done.add(found.id if isinstance(found, Rejected) else found["id"])
            if progress is not None:
                progress(len(done))
    found_in_all = totals(folder)
    found_in_all.stopped = purse.refused
    return found_in_all


def _purse(cap: float | None, labeller: Labeller, before: Totals) -> Purse:
    """The purse, what the folder's answers cost already taken out. Raises `ConfigError` where it is not
    known."""
    if cap is not None and before.untold:
        raise ConfigError(
            f"{before.untold} answers there do not tell their tokens, so a cap cannot count them; leave "
            "--max-cost out, or give another --out"
        )
    spent = labeller.prices.cost(before.prompt_tokens, before.output_tokens) or 0.0
    return Purse(cap, labeller.prices, labeller.sampling.limit, spent)


def _labelled(
    labeller: Labeller, rows: Iterable[Record | Reject], done: frozenset[str], purse: Purse
) -> Iterator[dict[str, Any] | Rejected]:
    """A task_1 row or a reject for each row that is not done, as answers come, until the purse is empty."""
    waiting = (row for row in distinct(askable(rows, labeller.schema)) if row.id not in done)
    while chunk := list(islice(waiting, CHUNK)):
        yield from (row for row in chunk if isinstance(row, Rejected))
        records = {row.id: row for row in chunk if isinstance(row, Record)}
        items = {name: labeller.item(record) for name, record in records.items()}
        requests = deque(item.request for item in items.values())
        for completion in _answers(labeller, requests, purse):
            item = items.pop(completion.id)
            sample = grade([item], {completion.id: completion}, labeller.schema)[0]
            yield labeller.verdict(records[sample.id], sample)
        for request in requests:
            del items[request.id]
        for sample in grade(items.values(), {}, labeller.schema):  # the engine left these out
            yield labeller.verdict(records[sample.id], sample)
        if requests:
            return


def _answers(labeller: Labeller, waiting: deque[Request], purse: Purse) -> Iterator[Completion]:
    """Answers while there is money; what is not asked stays in `waiting`. Asked in rounds, since answers free
    what was set aside for longer ones."""
    before = -1
    while waiting and len(waiting) != before:
        before = len(waiting)
        for completion in labeller.backend.generate(purse.admitted(waiting), labeller.sampling):
            purse.settle(completion)
            yield completion


def distinct(rows: Iterable[Record | Reject]) -> Iterator[Record | Rejected]:
    """The rows to ask, under names that occur once; unusable rows and copies as rejects."""
    seen: dict[bytes, str] = {}
    for row in numbered(rows):
        if isinstance(row, Reject):
            reason = f"{row.code}: {row.reason}"
            yield Rejected(id=name_of(row), outcome="rejected", reason=reason, source=row.source)
            continue
        content = msgspec.json.encode((row.fields, row.images), order="sorted")
        first = seen.setdefault(sha256(content).digest(), row.id)
        if first == row.id:
            yield row
        else:
            reason = f"duplicate: the same as {first}"
            yield Rejected(id=row.id, outcome="duplicate", reason=reason, source=row.source)


@dataclass(frozen=True)
class CostEstimate:
    """Before anything is asked. rows: to ask; total: with those that cannot be.

    prompt_tokens: about, at four bytes a token; output_tokens: at most. cost: at most, or None."""

    rows: int
    total: int
    prompt_tokens: int
    output_tokens: int
    cost: float | None


def estimate(labeller: Labeller, rows: Iterable[Record | Reject]) -> CostEstimate:
    """What labelling `rows` may take, without images."""
    asked = total = prompt = 0
    for row in distinct(askable(rows, labeller.schema)):
        total += 1
        if isinstance(row, Record):
            asked += 1
            prompt += prompt_tokens(labeller.item(row).request)
    output = asked * labeller.sampling.limit
    return CostEstimate(asked, total, prompt, output, labeller.prices.cost(prompt, output))
