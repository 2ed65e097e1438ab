"""Label captions: ask a teacher (`teacher`) for each, and write training rows and rejects (`files`).

Guarantees:
- Each input row ends in exactly one of the two files.
- A killed run loses only what was in flight, and goes on; failed requests are asked again.
- Copies of a caption are paid for once, and a cap on the cost is kept (`budget`)."""

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
from dfkeval.inference.inputs import CHUNK, askable, name_of, numbered
from dfkeval.inference.labelling.budget import Budget, prompt_tokens
from dfkeval.inference.labelling.files import KEPT, REJECTED, Rejected, Totals, finished_ids, tidy, totals
from dfkeval.inference.labelling.teacher import Labeller
from dfkeval.inference.resume import begin
from dfkeval.types import Completion, Request


def label(
    labeller: Labeller,
    rows: Iterable[Record | Reject],
    out: str | Path,
    *,
    cap: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Totals:
    """Label rows into a folder; rows that are there already are not asked again.

    Args:
        labeller: The teacher and its validators.
        rows: What to label.
        out: The folder.
        cap: The most that the folder's answers may cost together; None for no cap.
        progress: Called with the number of finished rows.

    Returns:
        What the folder holds.

    Raises:
        ConfigError: The folder was begun with another teacher, prompt, schema, sampling or validators, or a
            cap cannot be kept.
        DataError: Its files hold something else.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; --out is a folder")
    with locks.alone(folder / locks.LOCK, "labelling"):
        return _label_into(folder, labeller, rows, cap, progress)


def _label_into(
    folder: Path,
    labeller: Labeller,
    rows: Iterable[Record | Reject],
    cap: float | None,
    progress: Callable[[int], None] | None,
) -> Totals:
    done = finished_ids(folder)
    begin(folder / "label", labeller.record(), begun=bool(done))
    tidy(folder)
    budget = _budget(cap, labeller, totals(folder))
    with JsonlAppender(folder / KEPT) as good, JsonlAppender(folder / REJECTED) as bad:
        for row in _labelled(labeller, rows, frozenset(done), budget):
            file = bad if isinstance(row, Rejected) else good
            file.put(row)
            done.add(row.id if isinstance(row, Rejected) else row["id"])
            if progress is not None:
                progress(len(done))
    counts = totals(folder)
    counts.stopped = budget.refused
    return counts


def _budget(cap: float | None, labeller: Labeller, before: Totals) -> Budget:
    """Return the budget, less what the folder's answers cost. Raises `ConfigError` if that is not known."""
    if cap is not None and before.uncounted:
        raise ConfigError(
            f"{before.uncounted} answers there do not report their tokens, so a cap cannot count them; leave "
            "--max-cost out, or give another --out"
        )
    spent = labeller.prices.cost(before.prompt_tokens, before.output_tokens) or 0.0
    return Budget(cap, labeller.prices, labeller.sampling.limit, spent)


def _labelled(
    labeller: Labeller, rows: Iterable[Record | Reject], done: frozenset[str], budget: Budget
) -> Iterator[dict[str, Any] | Rejected]:
    """Yield a task_1 row or a reject for each row that is not done, as answers come, until the budget is
    spent."""
    waiting = (row for row in distinct(askable(rows, labeller.schema)) if row.id not in done)
    while chunk := list(islice(waiting, CHUNK)):
        yield from (row for row in chunk if isinstance(row, Rejected))
        records = {row.id: row for row in chunk if isinstance(row, Record)}
        items = {name: labeller.item(record) for name, record in records.items()}
        requests = deque(item.request for item in items.values())
        for completion in _answers(labeller, requests, budget):
            item = items.pop(completion.id)
            sample = grade([item], {completion.id: completion}, labeller.schema)[0]
            yield labeller.outcome(records[sample.id], sample)
        for request in requests:
            del items[request.id]
        for sample in grade(items.values(), {}, labeller.schema):  # the backend left these out
            yield labeller.outcome(records[sample.id], sample)
        if requests:
            return


def _answers(labeller: Labeller, waiting: deque[Request], budget: Budget) -> Iterator[Completion]:
    """Answers while the budget lasts; what is not asked stays in `waiting`.

    Requests go in rounds, because answers free what was reserved for longer ones."""
    before = -1
    while waiting and len(waiting) != before:
        before = len(waiting)
        for completion in labeller.backend.generate(budget.admitted(waiting), labeller.sampling):
            budget.settle(completion)
            yield completion


def distinct(rows: Iterable[Record | Reject]) -> Iterator[Record | Rejected]:
    """Yield the rows to ask, under names that occur once; unusable rows and copies come as rejects."""
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
    """What labelling may take.

    Args:
        rows: Rows to ask.
        total: Rows with those that cannot be asked.
        prompt_tokens: About how many, at four bytes a token, without pictures.
        output_tokens: At most.
        cost: At most; None if it is not known.
    """

    rows: int
    total: int
    prompt_tokens: int
    output_tokens: int
    cost: float | None


def estimate(labeller: Labeller, rows: Iterable[Record | Reject]) -> CostEstimate:
    """Return what labelling `rows` may take, before anything is asked."""
    requests = total = prompt = 0
    for row in distinct(askable(rows, labeller.schema)):
        total += 1
        if isinstance(row, Record):
            requests += 1
            prompt += prompt_tokens(labeller.item(row).request)
    output = requests * labeller.sampling.limit
    return CostEstimate(requests, total, prompt, output, labeller.prices.cost(prompt, output))
