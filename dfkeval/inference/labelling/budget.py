"""Money: what tokens cost, and a cap that questions keep.

Strategy: before a question is sent, the most that it can cost is set aside (its prompt at four bytes a token,
its answer at the limit); the answer turns that into what it did cost. Promises: what is spent and set aside
together stays within the cap; an answer that does not tell its tokens keeps the most that it can have cost.
Not counted: pictures in prompts, and attempts that a server failed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from dfkdata.common.errors import ConfigError
from dfkeval.types import Completion, Request

BYTES_PER_TOKEN = 4


def prompt_tokens(request: Request) -> int:
    """About how many tokens the prompt has, without pictures."""
    return len(msgspec.json.encode((request.messages, request.tools))) // BYTES_PER_TOKEN


@dataclass(frozen=True)
class Prices:
    """Money for a million tokens, in one currency; None is not known, and then costs are not known."""

    prompt: float | None = None
    output: float | None = None

    def cost(self, prompt: int | None, output: int | None) -> float | None:
        """What so many tokens cost."""
        if self.prompt is None or self.output is None or prompt is None or output is None:
            return None
        return round((prompt * self.prompt + output * self.output) / 1e6, 9)


class Purse:
    """A cap and what is left of it. limit: tokens of an answer at most. spent: before it began.

    Raises `ConfigError` for a cap without prices."""

    def __init__(self, cap: float | None, prices: Prices, limit: int, spent: float = 0.0) -> None:
        if cap is not None and prices.cost(0, 0) is None:
            raise ConfigError("a cap on the cost needs prices; give --price-prompt and --price-output")
        self.cap, self.prices, self.limit, self.spent = cap, prices, limit, spent
        self.aside: dict[str, float] = {}
        self.refused = False

    def admitted(self, waiting: deque[Request]) -> Iterator[Request]:
        """The requests from the left of `waiting` for which there is money, taken out as they are sent."""
        while waiting:
            request = waiting[0]
            most = self.prices.cost(prompt_tokens(request), self.limit) or 0.0
            self.refused = self.cap is not None and self.spent + sum(self.aside.values()) + most > self.cap
            if self.refused:
                return
            self.aside[request.id] = most
            yield waiting.popleft()

    def settle(self, found: Completion) -> None:
        """An answer has come: what it cost is spent, and the rest of what was set aside is free again."""
        most = self.aside.pop(found.id, 0.0)
        if found.finish_reason == "error" and not found.timed_out:
            return
        cost = self.prices.cost(found.n_prompt_tokens, found.n_output_tokens)
        self.spent += most if cost is None else cost
