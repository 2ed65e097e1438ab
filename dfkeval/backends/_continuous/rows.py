"""One answer while it is written, on the host: what its next token may be, and whether it has ended.

How it works: the host knows a token while the device already computes the next logits, in time for a grammar's
mask or a forced token to be laid over them. The rules are those of `dfkeval.backends._local.logits` and
`grammar`, for one row instead of a batch."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from dfkeval.backends._continuous.prompts import PreparedPrompt
from dfkeval.backends._continuous.sampler import FREE
from dfkeval.backends._local.generate import Generator
from dfkeval.backends._local.prompts import is_late, late, opens_think
from dfkeval.types import Completion, Request, Sampling


class Rules:
    """What holds for all answers of one call.

    Args:
        generator: Knows tokenizer, constraints and what ends a turn.
        sampling: How text is drawn.
    """

    def __init__(self, generator: Generator, sampling: Sampling) -> None:
        self.generator, self.sampling = generator, sampling
        self.tokenizer = generator.processor.tokenizer
        self.ends = frozenset(generator.stop_ids(sampling))
        self.budget = sampling.thinking_budget
        self.closer = generator.closer() if self.budget is not None else []
        self.limit = sampling.limit + len(self.closer)
        self.stops = [stop for stop in sampling.stop if len(generator.token_ids(stop)) > 1]
        self.window = max((len(stop.encode()) for stop in self.stops), default=0)
        self.gap = generator.gap()
        self.think_end = generator.think_end() if self.budget is not None or sampling.thinking else FREE
        self._may_end: dict[int, bool] = {}

    def ends_stop(self, ids: list[int]) -> bool:
        """Return whether the last token completes a stop string."""
        token = ids[-1]
        if token not in self._may_end:
            piece = self._text([token])
            self._may_end[token] = "�" in piece or any(stop[-1] in piece for stop in self.stops)
        if not self._may_end[token]:
            return False
        tail = self._text(ids[-self.window :])
        return any(stop in tail for stop in self.stops)

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


@dataclass
class Row:
    """One answer.

    Args:
        rules: What holds for all answers.
        prepared: The prompt.
        request: The request, which may share its prompt with others.
        slot: Its slot.
        matcher: Keeps it to its grammar; None if it is free.
    """

    rules: Rules
    prepared: PreparedPrompt
    request: Request
    slot: int
    matcher: Any = None
    ids: list[int] = field(default_factory=list)
    coming: int = 0
    done: bool = False
    started: float = field(default_factory=time.monotonic)
    first: float | None = None

    def __post_init__(self) -> None:
        self.cut = self.closed = self.begun = self.late = False
        self.forced = 0
        self.waiting = opens_think(self.prepared.prompt.text)
        self.due: list[int] = []

    @property
    def full(self) -> bool:
        """Return whether the tokens on their way fill the limit."""
        return len(self.ids) + self.coming >= self.rules.limit

    def observe(self, token: int) -> bool:
        """Take a token that the device has chosen; return whether the answer has ended."""
        self.coming -= 1
        if self.first is None:
            self.first = time.monotonic() - self.started
        self.ids.append(token)
        self.done = (
            token in self.rules.ends
            or len(self.ids) >= self.rules.limit
            or (bool(self.rules.stops) and self.rules.ends_stop(self.ids))
        )
        return self.done

    def give_up_late(self) -> bool:
        """Return whether the time is up; the answer then ends where it is."""
        self.late = self.done = is_late(self.request)
        return self.late

    def next(self) -> tuple[int, bool]:
        """Return (the token that must come next or `FREE`, whether the grammar's mask binds it)."""
        last = self.ids[-1] if self.ids else self.prepared.ids[-1]
        forced = self._close_thinking(last) if self.rules.budget is not None else FREE
        if self.matcher is None:
            return forced, False
        if self.waiting:
            if last != self.rules.think_end:
                return forced, False
            self.waiting, self.due = False, list(self.rules.gap)
        if self.due:
            return self.due.pop(0), False
        if not self.begun:
            self.begun = True
            return forced, True
        if last in self.rules.ends or not self.matcher.accept_token(last):
            self.matcher = None
            return forced, False
        return forced, not self.matcher.is_terminated()

    def _close_thinking(self, last: int) -> int:
        """Return the next token that closes a think block whose budget is spent."""
        if self.ids and last == self.rules.think_end:
            self.closed = self.closed or not self.cut
        if self.closed or not (self.cut or len(self.ids) >= (self.rules.budget or 0)):
            return FREE
        self.cut = True
        token = self.rules.closer[self.forced]
        self.forced += 1
        self.closed = self.forced == len(self.rules.closer)
        return token

    def completion(self) -> Completion:
        """Return the finished answer, or why there is none."""
        if self.late:
            return late(self.request)
        seconds = time.monotonic() - self.started
        return self.rules.generator.completion(
            self.prepared.prompt, self.request.id, self.ids, len(self.prepared.ids), self.rules.sampling,
            (seconds, self.first), self.cut,
        )  # fmt: skip
