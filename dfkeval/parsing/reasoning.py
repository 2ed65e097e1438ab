"""Split a model's text into its reasoning and its answer.

How it works: a think block ends at its first closing tag, as chat templates write it: reasoning, closing
tag, one blank line, answer.

Guarantees:
- Linear time.
- Nothing of the answer is cut.
- A block that is not closed has no answer behind it."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from dfkeval.parsing.tags import THINK_CLOSE, THINK_OPEN

#: What templates write between reasoning and answer.
GAP: Final = "\n\n"
_LEADING: Final = re.compile(rf"\s*+{re.escape(THINK_OPEN)}")


class SplitText(NamedTuple):
    """A text with a think block.

    Attributes:
        reasoning: the text inside the block.
        answer: the text behind it; empty if the block is not closed.
        closed: whether the block is closed."""

    reasoning: str
    answer: str
    closed: bool


def split_opened(text: str) -> SplitText:
    """Split `text` that begins inside a think block, which the prompt opened."""
    reasoning, closer, rest = text.partition(THINK_CLOSE)
    return SplitText(reasoning, rest.removeprefix(GAP), bool(closer))


def split_leading(text: str) -> SplitText | None:
    """Split `text` that opens a think block itself; return None if it does not begin with one."""
    opener = _LEADING.match(text)
    return split_opened(text[opener.end() :]) if opener else None


def answer_start(text: str) -> int:
    """Return the offset of the answer: behind a leading think block, at the end if that is not closed."""
    split = split_leading(text)
    return 0 if split is None else len(text) - len(split.answer)
