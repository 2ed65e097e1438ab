"""Reasoning and answer, told apart. Strategy: a think block ends at its first closer, as the chat template
writes it: reasoning, closer, one blank line, answer. Promises: linear; nothing of the answer is cut; a block
that is not closed has no answer behind it."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from dfkeval.parsing.tags import THINK_CLOSE, THINK_OPEN

#: What the template writes between reasoning and answer.
GAP: Final = "\n\n"
_LEADING: Final = re.compile(rf"\s*+{re.escape(THINK_OPEN)}")


class Thought(NamedTuple):
    """reasoning: inside the block. answer: behind it; empty when `closed` is False."""

    reasoning: str
    answer: str
    closed: bool


def opened(text: str) -> Thought:
    """`text` that begins inside a think block, which the prompt opened."""
    reasoning, closer, rest = text.partition(THINK_CLOSE)
    return Thought(reasoning, rest.removeprefix(GAP), bool(closer))


def leading(text: str) -> Thought | None:
    """`text` that opens a think block itself; None when it does not begin with one."""
    found = _LEADING.match(text)
    return opened(text[found.end() :]) if found else None


def answer_start(text: str) -> int:
    """Where the answer begins: 0, behind a leading think block, or at the end when that is not closed."""
    thought = leading(text)
    return 0 if thought is None else len(text) - len(thought.answer)
