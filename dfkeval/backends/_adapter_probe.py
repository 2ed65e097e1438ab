"""Find out whether an engine's adapter changes its answers, and whether as much as it does locally.

How it works: a few rows are asked greedily of the base, of the adapter, and of the base again. Two answers of
the base show how far an engine leaves its own numbers; the adapter has an effect if its texts differ, or if its
probabilities move further than that. With a local model and adapter, the moves of the first token's
log-probabilities are compared with those of the local model: an engine that leaves out part of an adapter moves
them otherwise.

Guarantees:
- A probe never ends a run; if a row cannot be asked, the record says so."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

#: Rows that are asked.
ROWS: Final = 3
#: Tokens of each answer.
TOKENS: Final = 16
#: A move counts if it is so many times the engine's own unrest, and so many nats.
_UNREST, _LEAST = 4.0, 0.01
#: Share of the local move by which the engine's may be off.
_OFF: Final = 0.3


@dataclass(frozen=True)
class Answered:
    """One short answer.

    Args:
        text: Its text.
        first: Token -> log-probability, of the likeliest first tokens; empty if the engine gives none.
    """

    text: str
    first: Mapping[Any, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ProbedRow:
    """The answers to one row: of the base, of the adapter, of the base again, and of the local model (base,
    adapter), if it was asked."""

    base: Answered
    adapted: Answered
    again: Answered
    local: tuple[Answered, Answered] | None = None

    @property
    def changed(self) -> bool:
        """Whether the adapter changes this row's answer."""
        if self.base.text == self.again.text and self.adapted.text != self.base.text:
            return True
        unrest = largest(moves(self.base, self.again))
        return largest(moves(self.base, self.adapted)) > max(_UNREST * unrest, _LEAST)


def moves(before: Answered, after: Answered) -> dict[Any, float]:
    """Return how far the log-probability of each token moves that both answers show."""
    return {
        token: after.first[token] - value for token, value in before.first.items() if token in after.first
    }


def largest(moved: Mapping[Any, float]) -> float:
    """Return the largest move, 0 for none."""
    return max(map(abs, moved.values()), default=0.0)


def off_by(rows: Iterable[ProbedRow]) -> float | None:
    """Return by which share of the local moves the engine's are off; None if nothing can be compared."""
    wrong = whole = 0.0
    for row in rows:
        if row.local is None:
            continue
        here, there = moves(*row.local), moves(row.base, row.adapted)
        shared = here.keys() & there.keys()
        wrong += sum((there[token] - here[token]) ** 2 for token in shared)
        whole += sum(here[token] ** 2 for token in shared)
    return math.sqrt(wrong / whole) if whole else None


def verdict(rows: Sequence[ProbedRow], base: str) -> str:
    """Return what the rows show, as words for the report.

    Args:
        rows: The rows that were asked.
        base: What the base is called.
    """
    changed = sum(row.changed for row in rows)
    told = f"{changed} of {len(rows)} probed rows against {base}"
    if not any(row.base.first for row in rows):
        told += " (texts alone: the engine shows no probabilities)"
    if changed == 0:
        return f"NO EFFECT: the adapter changes {told}"
    off = off_by(rows)
    if off is not None and off > _OFF:
        return f"NOT AS LOCALLY: the adapter changes {told}, but probabilities move {off:.0%} off the local moves"
    as_locally = "" if off is None else f", as locally (moves are {off:.0%} off)"
    return f"the adapter changes {told}{as_locally}"
