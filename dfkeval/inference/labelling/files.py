"""What a folder of labels holds: training rows and rejects, line by line, and their totals.

    task_1.jsonl     {"id", "messages": [system, user, assistant with one tool call], "tools", "meta"}
    rejected.jsonl   one `Rejected` for every other row: why, and what the teacher said

Promises: a half-written last line, which a kill leaves, is not counted and is cut off before the folder goes
on; requests that failed are cut off too, since they are asked again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from dfkdata.common import jsonl
from dfkeval.types import NOT_ANSWERED

KEPT, REJECTED = "task_1.jsonl", "rejected.jsonl"
TASK, WHAT = "a task_1 row", "a rejected row"


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A row that was not kept. outcome: of the answer, or "rejected" for a row that cannot be asked,
    "duplicate" for a copy. reason: the validator's, or why. meta: as of a kept row."""

    id: str
    outcome: str
    reason: str
    source: str = ""
    caption: str = ""
    text: str = ""
    meta: dict[str, Any] = {}


@dataclass
class Totals:
    """What a folder of labels holds. reasons: first words of a rejection -> rows. cost: None where it is not
    known for every answered row. untold: answers that do not tell their tokens. stopped: a cap on the cost
    left rows unasked."""

    kept: int = 0
    rejected: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    untold: int = 0
    stopped: bool = False

    def add(self, meta: Mapping[str, Any]) -> None:
        """Count the tokens and the cost of one answer."""
        self.untold += None in (meta.get("input_tokens"), meta.get("output_tokens"))
        self.prompt_tokens += meta.get("input_tokens") or 0
        self.output_tokens += meta.get("output_tokens") or 0
        known = self.cost is not None and meta.get("cost") is not None
        self.cost = (self.cost or 0.0) + meta["cost"] if known else None


def finished_ids(folder: Path) -> set[str]:
    """The rows that are not asked again. Raises `DataError` for a line of another kind."""
    kept = {str(row.get("id")) for _, row in jsonl.read_finished(folder / KEPT, dict, TASK)}
    return kept | {each.id for each in _rejects(folder) if each.outcome not in NOT_ANSWERED}


def tidy(folder: Path) -> None:
    """Cut off half-written last lines and rejects that are asked again."""
    jsonl.rewrite(folder / KEPT, dict, TASK, lambda row: True)
    jsonl.rewrite(folder / REJECTED, Rejected, WHAT, lambda each: each.outcome not in NOT_ANSWERED)


def totals(folder: Path) -> Totals:
    """What the folder holds, counted from its files."""
    found = Totals()
    for _, row in jsonl.read_finished(folder / KEPT, dict, TASK):
        found.kept += 1
        found.add(row.get("meta") or {})
    for each in _rejects(folder):
        failed = each.outcome in NOT_ANSWERED
        found.failed += failed
        found.rejected += not failed
        found.reasons[each.reason.split(":")[0]] += 1
        if each.meta:
            found.add(each.meta)
    return found


def _rejects(folder: Path) -> Iterator[Rejected]:
    return (found for _, found in jsonl.read_finished(folder / REJECTED, Rejected, WHAT))
