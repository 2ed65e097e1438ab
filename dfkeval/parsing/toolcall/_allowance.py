"""Bound the work that a text may cost beyond one pass.

How it works: whatever is read in vain (calls that are never closed, values without a closer, code marks that
open nothing) is charged, in units of about a microsecond. Texts that models write do not come near the
limit; when it is used up, the rest of the text is one problem."""

from __future__ import annotations

from typing import Final

#: What every text may cost, and characters that pay for one unit more.
_FREE: Final = 12_000
_PRICE: Final = 16

#: Prices: a mark outside of calls, a misspelled closer, a piece of code, a value without closer or that stands
#: again, JSON that cannot be read, a call with something wrong, and a call with a problem when it is typed.
MARK: Final = 1
CLOSER: Final = 3
CODE: Final = 3
VALUE: Final = 6
JSON: Final = 4
CALL: Final = 12
INVALID: Final = 24

#: How many calls that are opened in one another and never closed cost nothing, and are reported one by one; the rest
#: belongs to the last of them.
DEEP: Final = 100

#: The problem of the rest of a text whose allowance is used up.
CODE_SPENT: Final = "too_many_problems"
MESSAGE_SPENT: Final = "too much was wrong before; the rest of the text is not read"


class Allowance:
    """What is left for one text.

    Attributes:
        left: units; negative when the allowance is used up."""

    __slots__ = ("left",)

    def __init__(self, size: int) -> None:
        self.left = max(_FREE, size // _PRICE)
