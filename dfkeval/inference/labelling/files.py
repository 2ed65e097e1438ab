"""Read and count the files of a folder of labels.

    task_1.jsonl     {"id", "messages": [system, user, assistant with one tool call], "tools", "meta"}
    rejected.jsonl   one `Rejected` for every other row: why, and what the teacher answered

Guarantees:
- A half-written last line, which a kill leaves, is not counted and is cut off before the folder goes on.
- Failed requests are cut off too, because they are asked again."""

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
_TASK, _REJECT = "a task_1 row", "a rejected row"


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A row that is not kept.

    Args:
        id: Id of the row.
        outcome: Outcome of the answer, "rejected" for a row that cannot be asked, or "duplicate" for a copy.
        reason: Why, in the words of the validator if one rejected the answer.
        source: Where the row comes from.
        caption: The text that the teacher was asked about.
        text: The raw answer.
        meta: Accounting, as in a kept row.
    """

    id: str
    outcome: str
    reason: str
    source: str = ""
    caption: str = ""
    text: str = ""
    meta: dict[str, Any] = {}


@dataclass
class Totals:
    """What a folder of labels holds.

    Args:
        kept: Training rows.
        rejected: Rows that are not kept.
        failed: Requests that failed, to be asked again.
        prompt_tokens: Tokens of all prompts.
        output_tokens: Tokens of all answers.
        cost: What they cost; None unless it is known for every answered row.
        reasons: First words of a rejection -> number of rows.
        uncounted: Answers that do not report their tokens.
        stopped: Whether a cap on the cost left rows unasked.
    """

    kept: int = 0
    rejected: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    uncounted: int = 0
    stopped: bool = False

    def add(self, meta: Mapping[str, Any]) -> None:
        """Count the tokens and the cost of one answer."""
        self.uncounted += None in (meta.get("input_tokens"), meta.get("output_tokens"))
        self.prompt_tokens += meta.get("input_tokens") or 0
        self.output_tokens += meta.get("output_tokens") or 0
        known = self.cost is not None and meta.get("cost") is not None
        self.cost = (self.cost or 0.0) + meta["cost"] if known else None


def finished_ids(folder: Path) -> set[str]:
    """Return the rows that are not asked again. Raises `DataError` for a line of another kind."""
    labelled = {str(row.get("id")) for _, row in jsonl.read_finished(folder / KEPT, dict, _TASK)}
    return labelled | {reject.id for reject in _rejects(folder) if reject.outcome not in NOT_ANSWERED}


def tidy(folder: Path) -> None:
    """Cut off half-written last lines and rejects that are asked again."""
    jsonl.rewrite(folder / KEPT, dict, _TASK, lambda row: True)
    jsonl.rewrite(folder / REJECTED, Rejected, _REJECT, lambda reject: reject.outcome not in NOT_ANSWERED)


def totals(folder: Path) -> Totals:
    """Count what the folder holds."""
    counts = Totals()
    for _, row in jsonl.read_finished(folder / KEPT, dict, _TASK):
        counts.kept += 1
        counts.add(row.get("meta") or {})
    for reject in _rejects(folder):
        failed = reject.outcome in NOT_ANSWERED
        counts.failed += failed
        counts.rejected += not failed
        counts.reasons[reject.reason.split(":")[0]] += 1
        if reject.meta:
            counts.add(reject.meta)
    return counts


def _rejects(folder: Path) -> Iterator[Rejected]:
    return (reject for _, reject in jsonl.read_finished(folder / REJECTED, Rejected, _REJECT))
