"""Change the logits of each step: take the time of the first token, close the think block, and draw.

How it works: transformers calls these processors between the model and a plain argmax (the grammar stands
before the draw). Each keeps a state for each row, and one set serves one call of `generate`. Drawing uses the
Gumbel maximum: argmax(logits + noise) has exactly the softmax's distribution (E. J. Gumbel, Statistical
Theory of Extreme Values and Some Practical Applications, 1954).

Guarantees:
- A row's draw depends on its own key and on nothing of its neighbours, so drawn answers depend on batch and
  order as little as greedy ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from dfkeval.backends._local.noise import gumbel, words_of
from dfkeval.backends._local.prompts import is_late
from dfkeval.types import Request, Sampling

Step = Any  # (ids (B, T), logits (B, V)) -> logits (B, V)


class FirstToken:
    """Measure the seconds from `started` until the first logits are there, which is the end of the
    prefill."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.seconds: float | None = None

    def __call__(self, ids: Any, logits: Any) -> Any:
        if self.seconds is None:
            if logits.is_cuda:
                import torch

                torch.cuda.synchronize(logits.device)
            self.seconds = time.monotonic() - self.started
        return logits


class AnswerListener:
    """Tell what a row has written so far.

    Args:
        width: Tokens of the prompt.
        tell: Gets the ids of the answer so far.
    """

    def __init__(self, width: int, tell: Callable[[list[int]], None]) -> None:
        self.width, self.tell = width, tell

    def __call__(self, ids: Any, logits: Any) -> Any:
        if ids.shape[1] > self.width:
            self.tell(ids[0, self.width :].tolist())
        return logits


class Thinking:
    """Close a think block that the prompt opened when its budget is spent.

    Args:
        rows: Number of rows.
        budget: Tokens of reasoning.
        closer: The ids that close a block.
        end: The id of the closing tag.

    Attributes:
        cut: For each row, whether the block was closed for the model.
    """

    def __init__(self, rows: int, budget: int, closer: Sequence[int], end: int) -> None:
        self.budget, self.closer, self.end = budget, list(closer), end
        self.cut = [False] * rows
        self.closed = [False] * rows
        self.forced = [0] * rows
        self.steps = 0

    def __call__(self, ids: Any, logits: Any) -> Any:
        last = ids[:, -1].tolist()
        for row in range(len(self.cut)):
            if self.steps and last[row] == self.end:
                self.closed[row] = self.closed[row] or not self.cut[row]
            if not self.closed[row] and (self.cut[row] or self.steps >= self.budget):
                self._force(row, logits)
        self.steps += 1
        return logits

    def _force(self, row: int, logits: Any) -> None:
        self.cut[row] = True
        only(logits, row, self.closer[self.forced[row]])
        self.forced[row] += 1
        self.closed[row] = self.forced[row] == len(self.closer)


def only(logits: Any, row: int, token: int) -> None:
    """Leave one token as the only choice of a row, in place."""
    logits[row, :] = float("-inf")
    logits[row, token] = 0.0


class Draw:
    """Apply temperature, top-k, top-p and min-p in the library's order, then add each row's own noise."""

    def __init__(self, sampling: Sampling, keys: Sequence[str], device: Any) -> None:
        import torch

        self.warpers = warpers(sampling)
        self.words = torch.tensor(words_of(keys), dtype=torch.int32, device=device)
        self.steps = torch.zeros(len(keys), dtype=torch.int32, device=device)

    def __call__(self, ids: Any, logits: Any) -> Any:
        for warper in self.warpers:
            logits = warper(ids, logits)
        logits = logits + gumbel(self.words, self.steps, logits.shape[1])
        self.steps += 1
        return logits


def warpers(sampling: Sampling) -> list[Step]:
    """Return the library's filters for these settings, in its order."""
    from transformers.generation import logits_process as library

    filters: list[Step] = []
    if sampling.temperature != 1.0:
        filters.append(library.TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        filters.append(library.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        filters.append(library.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        filters.append(library.MinPLogitsWarper(sampling.min_p))
    return filters


class Deadlines:
    """End the answers whose time is up: their next token is one that ends a turn.

    Args:
        requests: The requests of the batch.
        ends: The tokens that end a turn.
        pad: The token that stands behind the end.

    Attributes:
        late: For each row, whether it was ended.
    """

    def __init__(self, requests: Sequence[Request], ends: Sequence[int], pad: int | None) -> None:
        self.requests, self.end, self.ended = requests, ends[0], {*ends, pad}
        self.late = [False] * len(requests)

    def __call__(self, ids: Any, logits: Any) -> Any:
        last = ids[:, -1].tolist()
        for at, request in enumerate(self.requests):
            if last[at] not in self.ended and is_late(request):
                self.late[at] = True
                logits[at] = float("-inf")
                logits[at, self.end] = 0.0
        return logits
