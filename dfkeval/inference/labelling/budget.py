"""Keep the cost of an answer's tokens within a cap.

How it works: before a request is sent, the most that it can cost is reserved (its prompt at four bytes a
token, its answer at the limit); the answer turns that into what it did cost. Pictures in prompts, and
attempts that a server failed, are not counted.

Guarantees:
- What is spent and reserved together stays within the cap.
- An answer that does not report its tokens counts as the most that it can have cost."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from dfkdata.common.errors import ConfigError
from dfkeval.types import Completion, Request

BYTES_PER_TOKEN = 4


def prompt_tokens(request: Request) -> int:
    """Return about how many tokens the prompt has, without pictures."""
    return len(msgspec.json.encode((request.messages, request.tools))) // BYTES_PER_TOKEN


@dataclass(frozen=True)
class Prices:
    """Prices of a million tokens, in one currency; if one is None (not known), costs are not known either.

    Args:
        prompt: Price of a million prompt tokens.
        output: Price of a million answer tokens.
    """

    prompt: float | None = None
    output: float | None = None

    def cost(self, prompt: int | None, output: int | None) -> float | None:
        """Return what so many tokens cost; None if it is not known."""
        if self.prompt is None or self.output is None or prompt is None or output is None:
            return None
        return round((prompt * self.prompt + output * self.output) / 1e6, 9)


class Budget:
    """A cap on the cost, and what is left of it.

    Args:
        cap: The most that may be spent; None for no cap.
        prices: Prices of tokens.
        limit: Tokens of an answer at most.
        spent: What was spent before.

    Raises:
        ConfigError: There is a cap and no prices.
    """

    def __init__(self, cap: float | None, prices: Prices, limit: int, spent: float = 0.0) -> None:
        if cap is not None and prices.cost(0, 0) is None:
            raise ConfigError("a cap on the cost needs prices; give --price-prompt and --price-output")
        self.cap, self.prices, self.limit, self.spent = cap, prices, limit, spent
        self.reserved: dict[str, float] = {}
        self.refused = False

    def admitted(self, waiting: deque[Request]) -> Iterator[Request]:
        """Yield the requests from the left of `waiting` that the cap allows, and take them out as they are
        sent."""
        while waiting:
            request = waiting[0]
            most = self.prices.cost(prompt_tokens(request), self.limit) or 0.0
            self.refused = self.cap is not None and self.spent + sum(self.reserved.values()) + most > self.cap
            if self.refused:
                return
            self.reserved[request.id] = most
            yield waiting.popleft()

    def settle(self, completion: Completion) -> None:
        """Book what an answer cost, and free the rest of what was reserved for it."""
        most = self.reserved.pop(completion.id, 0.0)
        if completion.finish_reason == "error" and not completion.timed_out:
            return
        cost = self.prices.cost(completion.n_prompt_tokens, completion.n_output_tokens)
        self.spent += most if cost is None else cost
