"""Choose the next token of each row from its logits, on the device.

How it works: the order is the library's: repetition penalty, grammar, temperature and filters, then noise and
the largest one (`dfkeval.backends._local.noise`). A token that is forced takes the place of what was chosen.
All of it has fixed shapes and waits for nothing, so that it can be recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dfkeval.backends._local.logits import warpers
from dfkeval.backends._local.noise import gumbel
from dfkeval.types import Sampling

Tensor = Any
FREE = -1
"""In place of a forced token, and in a word of a mask: anything goes."""


class Sampler:
    """The settings of one call, and what each slot's draws depend on.

    Args:
        sampling: How text is drawn.
        vocab: Number of logits.
        slots: Slots, without the one that nobody reads.
        device: Where the logits are.
        pick: Does all but the penalty in few kernels (`choice_kernels.pick`); None without.
    """

    def __init__(self, sampling: Sampling, vocab: int, slots: int, device: Any, pick: Any = None) -> None:
        import torch

        self.pick, self.sampling = pick, sampling
        self.draws = sampling.temperature > 0
        self.filters = warpers(sampling) if self.draws else []
        self.penalty = sampling.repetition_penalty
        self.words = torch.zeros(slots + 1, 2, dtype=torch.int32, device=device)
        self.steps = torch.zeros(slots + 1, dtype=torch.int32, device=device)
        self.seen = (
            torch.zeros(slots + 1, vocab, dtype=torch.bool, device=device) if self.penalty != 1 else None
        )

    def begin(
        self, slots: Tensor, words: Sequence[tuple[int, int]], prompts: Sequence[tuple[int, Sequence[int]]]
    ) -> None:
        """Begin an answer in each of `slots`; `prompts` are (slot, tokens) pairs."""
        import torch

        self.steps[slots] = 0
        if self.draws:
            self.words[slots] = torch.tensor(words, dtype=torch.int32, device=slots.device)
        if self.seen is not None:
            self.seen[slots] = False
            for slot, ids in prompts:
                self.seen[slot, torch.tensor(ids, device=slots.device)] = True

    def choose(
        self, logits: Tensor, rows: Tensor, forced: Tensor, mask: Tensor | None,
        kept: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """Return (B,) tokens.

        Args:
            logits: (B, vocabulary).
            rows: (B,) slot of each row.
            forced: (B,) token that is written whatever the logits say; `FREE` for none.
            mask: (B, ceil(vocabulary / 32)) bits of the tokens that a grammar allows; None without grammars.
            kept: The slots' last tokens and lengths, which are brought up to date; None leaves them.
        """
        import torch

        if self.seen is not None:
            logits = logits.float()
            changed = torch.where(logits < 0, logits * self.penalty, logits / self.penalty)
            logits = torch.where(self.seen[rows], changed, logits)
        if self.pick is not None:
            tokens = self.pick(logits, mask, rows, forced, (self.words, self.steps), kept, self.sampling)
        else:
            tokens = torch.where(forced >= 0, forced, self._largest(logits, rows, mask))
            self.steps[rows] += 1
            if kept is not None:
                kept[0][rows] = tokens
                kept[1][rows] += 1
        if self.seen is not None:
            self.seen[rows, tokens] = True
        return tokens

    def _largest(self, logits: Tensor, rows: Tensor, mask: Tensor | None) -> Tensor:
        """Return the tokens that win once mask, filters and noise have changed the logits."""
        if self.draws or mask is not None:
            logits = logits.float()
        if mask is not None:
            logits = logits.masked_fill(~allowed(mask, logits.shape[1]), float("-inf"))
        for each in self.filters:
            logits = each(rows, logits)
        if self.draws:
            logits = logits + gumbel(self.words[rows], self.steps[rows], logits.shape[1])
        return logits.argmax(dim=-1)


def allowed(mask: Tensor, vocab: int) -> Tensor:
    """Return (B, vocabulary) booleans of packed bits, the lowest bit first."""
    import torch

    bits = torch.arange(32, dtype=torch.int32, device=mask.device)
    return ((mask.unsqueeze(-1) >> bits) & 1).bool().flatten(1)[:, :vocab]
