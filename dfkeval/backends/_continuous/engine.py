"""Continuous batching: rows come into free slots and leave them one by one, and every step serves all of them.

How it works: questions are prefilled in groups, without padding, each into its slot; what they begin with in
common is read once and its state copied. One step then computes the logits of all rows, while the host takes
the tokens of the step before: it sees which rows have ended, lets grammars accept the token, and fills their
masks. The masks are laid over the logits when they are there, so the device waits for the host only where the
host is slower. A row that ended is in one step more, whose token is thrown away.

Guarantees:
- A row's tokens depend on its own prompt and key (`sampler`, `decoder`), not on its company.
- A question that does not fit into memory is a failed request with its reason; the others go on."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from dfkeval.backends._continuous.caches import Caches, slot_bytes
from dfkeval.backends._continuous.decoder import Decoder
from dfkeval.backends._continuous.device import Arriving, Bounds, Reading, Stepper
from dfkeval.backends._continuous.prompts import PREFIXES, PreparedPrompt, Preparer, questions
from dfkeval.backends._continuous.rows import Row, Rules
from dfkeval.backends._continuous.sampler import FREE
from dfkeval.backends._continuous.weights import AttentionLayer, base_of, read
from dfkeval.backends._local.generate import Generator
from dfkeval.backends._local.prompts import RenderedPrompt, failed, is_late, late
from dfkeval.types import Completion, Sampling

ROUND = 256
"""Slots hold a multiple of so many tokens, so that another call finds them large enough."""

MEMORY = 0.6
"""Share of a GPU's free memory that slots may take; prefill and logits need some, too."""

REFILL = 8
"""New rows are let in when one in so many slots is free: a prefill of few tokens takes as long as a larger
one."""


class Engine:
    """A model with its slots.

    Args:
        model: The network, with or without an adapter.
        generator: What is known of its tokenizer and constraints.
        dtype: Type of the matrix products.
        workers: Threads that prepare pictures.
    """

    def __init__(self, model: Any, generator: Generator, *, dtype: Any, workers: int) -> None:
        self.model, self.generator = model, generator
        self.weights = read(model, dtype)
        self.device = self.weights.embed.device
        self.preparer = Preparer(model, generator.processor, workers)
        self.stepper: Stepper | None = None

    def answer(
        self, prompts: Sequence[RenderedPrompt], sampling: Sampling, rows: int, prefill_tokens: int
    ) -> Iterator[Completion]:
        """Yield one completion for each prompt, as they end.

        Args:
            prompts: The prompts.
            sampling: How text is drawn.
            rows: Answers under way at most.
            prefill_tokens: Tokens of one prefill at most; a longer prompt comes alone.
        """
        if not prompts:
            return
        rules = Rules(self.generator, sampling)
        capacity = max(prompt.tokens for prompt in prompts) + rules.limit
        stepper = self._fitted(min(rows, len(prompts)), capacity)
        stepper.use(sampling)
        yield from _Call(self, stepper, rules, rows, prefill_tokens).answer(prompts)

    def _fitted(self, rows: int, capacity: int) -> Stepper:
        """Return a stepper with room for so many rows, fewer if memory is short; an earlier one if it has
        room."""
        import torch

        capacity = -(-capacity // ROUND) * ROUND
        if self.stepper is not None:
            known = self.stepper.decoder.caches
            if known.slots - PREFIXES >= rows and known.capacity >= capacity:
                return self.stepper
            capacity = max(capacity, known.capacity)
            self.stepper = None
        rows = min(rows, self._affordable(capacity))
        while self.stepper is None:
            try:
                with torch.inference_mode():
                    caches = Caches(self.weights, rows + PREFIXES, capacity)
                    self.stepper = Stepper(Decoder(self.model, self.weights, caches))
            except torch.OutOfMemoryError:
                if rows == 1:
                    raise
                rows = max(1, rows // 2)
                torch.cuda.empty_cache()
        return self.stepper

    def _affordable(self, capacity: int) -> int:
        """Return how many slots the device's free memory holds."""
        import torch

        layers = self.weights.layers
        if self.device.type != "cuda":
            return 2**31
        attention = sum(isinstance(layer, AttentionLayer) for layer in layers)
        size = slot_bytes(
            self.weights.sizes, len(layers) - attention, attention, capacity, self.weights.embed.itemsize
        )
        unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        free = torch.cuda.mem_get_info(self.device)[0] + unused
        return max(1, int(MEMORY * free) // size - PREFIXES)


class _Call:
    """One call of `answer`: its rows, and what is on its way from the device."""

    def __init__(
        self, engine: Engine, stepper: Stepper, rules: Rules, rows: int, prefill_tokens: int
    ) -> None:
        self.engine, self.stepper, self.rules = engine, stepper, rules
        self.first_prefix = stepper.nobody - PREFIXES
        self.limit = min(rows, self.first_prefix)
        self.prefill_tokens = prefill_tokens
        self.free = list(range(self.limit))[::-1]
        self.prefixes: list[tuple[int, ...]] = []
        self.waiting: deque[PreparedPrompt] = deque()
        self.rows: list[Row] = []
        self.coming: deque[tuple[list[Row], Arriving]] = deque()
        self.failures: list[Completion] = []

    def answer(self, prompts: Sequence[RenderedPrompt]) -> Iterator[Completion]:
        """Yield the completions."""
        preparer = self.engine.preparer
        picture = base_of(self.engine.model).config.image_token_id
        asked, self.prefixes = questions(prompts, picture)
        if self.prefixes:
            self.stepper.read([(self.first_prefix + at, ids) for at, ids in enumerate(self.prefixes)])
        ahead = preparer.ahead(asked, self.rules.sampling, 2 * preparer.workers)
        more = True
        while more or self.waiting or self.rows:
            if self._lets_in():
                more = more and self._gather(ahead)
                self._let_in()
            yield from self._failed()
            rows = [row for row in self.rows if not row.full]
            logits = self.stepper.forward([row.slot for row in rows]) if rows else None
            yield from self._collect()
            if logits is not None and not all(row.done for row in rows):
                self._expect(rows, self.stepper.choose(logits, self._bounds(rows)))

    def _lets_in(self) -> bool:
        """Return whether enough slots are free for a prefill."""
        return bool(self.free) and (not self.rows or REFILL * len(self.free) >= self.limit)

    def _gather(self, ahead: Iterator[PreparedPrompt | list[Completion]]) -> bool:
        """Take prepared questions for the free slots; return whether there are more."""
        tokens = 0
        while len(self.waiting) < len(self.free) and tokens < self.prefill_tokens:
            item = next(ahead, None)
            if item is None:
                return False
            if isinstance(item, list):
                self.failures.extend(item)
            elif all(map(is_late, item.requests)):
                self.failures.extend(map(late, item.requests))
            else:
                self.waiting.append(item)
                tokens += self._new(item)
        return True

    def _let_in(self) -> None:
        """Prefill what fits into the free slots and one prefill; halve the group while it does not fit into
        memory."""
        import torch

        group: list[tuple[PreparedPrompt, list[Row]]] = []
        tokens = 0
        while self.waiting and self.free:
            prepared = self.waiting[0]
            if group and tokens + self._new(prepared) > self.prefill_tokens:
                break
            self.waiting.popleft()
            tokens += self._new(prepared)
            group.append((prepared, self._rows_of(prepared)))
        while group:
            try:
                self._prefill(group)
                return
            except torch.OutOfMemoryError as error:
                reason = str(error)
            torch.cuda.empty_cache()
            tokens //= 2
            self.prefill_tokens = max(1, min(self.prefill_tokens, tokens))
            if len(group) == 1:
                self._give_up(*group.pop(), reason)
            else:
                self._put_back(group[len(group) // 2 :])
                group = group[: len(group) // 2]

    def _rows_of(self, prepared: PreparedPrompt) -> list[Row]:
        """Return rows for as many of a question's requests as slots are free; the others wait."""
        now, later = prepared.requests[: len(self.free)], prepared.requests[len(self.free) :]
        if later:
            self.waiting.appendleft(_for(prepared, len(now), len(prepared.requests)))
        matcher = self.rules.generator.matcher
        return [
            Row(self.rules, prepared, request, self.free.pop(), matcher(request.constraint))
            for request in now
        ]

    def _new(self, prepared: PreparedPrompt) -> int:
        """Return how many of a prompt's tokens must be read."""
        return len(prepared.ids) - self._known(prepared)

    def _known(self, prepared: PreparedPrompt) -> int:
        return 0 if prepared.prefix is None else len(self.prefixes[prepared.prefix])

    def _put_back(self, group: Sequence[tuple[PreparedPrompt, list[Row]]]) -> None:
        """Let questions wait that did not fit into memory with others."""
        for prepared, rows in reversed(group):
            self.free.extend(row.slot for row in rows)
            self.waiting.appendleft(_for(prepared, 0, len(rows)))

    def _give_up(self, prepared: PreparedPrompt, rows: list[Row], reason: str) -> None:
        """Fail requests whose prompt does not fit into memory alone."""
        why = f"out of memory for one prompt of {len(prepared.ids)} tokens: {reason}"
        self.failures.extend(failed(row.request, why) for row in rows)
        self.free.extend(row.slot for row in rows)

    def _prefill(self, group: Sequence[tuple[PreparedPrompt, list[Row]]]) -> None:
        """Read the group's prompts and choose its rows' first tokens."""
        readings = [
            Reading(
                slots=[row.slot for row in rows],
                ids=prepared.ids,
                known=self._known(prepared),
                source=None if prepared.prefix is None else self.first_prefix + prepared.prefix,
                positions=prepared.positions,
                shift=prepared.shift,
                pixels=prepared.pixels,
                grid=prepared.grid,
                words=prepared.words[: len(rows)],
            )
            for prepared, rows in group
        ]
        rows = [row for _, rows in group for row in rows]
        self._expect(rows, self.stepper.begin(readings, self._bounds(rows)))
        self.rows.extend(rows)

    def _bounds(self, rows: Sequence[Row]) -> Bounds:
        """Return what the rows' next tokens must be, their last ones being known."""
        import torch

        mask = None
        if any(row.matcher is not None for row in rows):
            words = -(-self.stepper.vocab // 32)
            mask = torch.full((len(rows), words), FREE, dtype=torch.int32)
        forced = []
        for at, row in enumerate(rows):
            token, bound = (FREE, False) if row.done else row.next()
            forced.append(token)
            if bound:
                row.matcher.fill_next_token_bitmask(mask, at)
        return Bounds(forced, mask)

    def _expect(self, rows: list[Row], tokens: Arriving) -> None:
        for row in rows:
            row.coming += 1
        self.coming.append((rows, tokens))

    def _collect(self) -> Iterator[Completion]:
        """Take the tokens that the device has chosen, and yield the answers that have ended."""
        ended = []
        while self.coming:
            rows, tokens = self.coming.popleft()
            for row, token in zip(rows, tokens.wait(), strict=True):
                if not row.done and (row.observe(token) or row.give_up_late()):
                    ended.append(row)
        if ended:
            self.rows = [row for row in self.rows if not row.done]
            self.free.extend(row.slot for row in ended)
            yield from (row.completion() for row in ended)

    def _failed(self) -> Iterator[Completion]:
        yield from self.failures
        self.failures = []


def _for(prepared: PreparedPrompt, start: int, end: int) -> PreparedPrompt:
    """Return a question for some of its requests."""
    return dataclasses.replace(
        prepared, requests=prepared.requests[start:end], words=prepared.words[start:end]
    )
