"""All tags of a text, found once, and questions about their neighbourhood.

Promise: each question costs at most the gap between two tags, and each gap is asked about a bounded number of
times."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import Final

from dfkeval.literals import BLANKS
from dfkeval.toolcall._syntax import C_CLOSE, C_OPEN, DRIFT, F_CLOSE, F_OPEN, P_CLOSE, TOKEN

#: A kind for the end of the text and one for text, beside those of TOKEN.
END: Final = 0
TEXT: Final = -1
_DRIFTED: Final = {"</p": P_CLOSE, "</f": F_CLOSE, "</t": C_CLOSE}


class Tags:
    """All tags of one text, found once. Index `i` runs over them; `len(tags)` stands for the end of the
    text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._found: list[re.Match[str]] = list(TOKEN.finditer(text))
        self.starts = [match.start() for match in self._found]
        self.kinds = [match.lastindex or END for match in self._found]
        self.ends = [match.end() for match in self._found]
        self._run = (0, -1)

    def __len__(self) -> int:
        return len(self.kinds)

    def at(self, offset: int) -> int:
        """The index of the first tag that starts at or behind `offset`."""
        return bisect_left(self.starts, offset)

    def name(self, i: int) -> str:
        """The name in the opening tag `i`."""
        return self._found[i].group(self.kinds[i])

    def kind(self, i: int) -> int:
        """The kind of tag `i` with a drifted closer counted as the closer it drifted from."""
        if i >= len(self.kinds):
            return END
        kind = self.kinds[i]
        return _DRIFTED[self.text[self.starts[i] : self.starts[i] + 3]] if kind == DRIFT else kind

    def blank(self, start: int, i: int) -> bool:
        """Whether only blanks stand between `start` and tag `i`."""
        stop = self.starts[i] if i < len(self.starts) else len(self.text)
        return start == stop or not self.text[start:stop].strip(BLANKS)

    def next(self, i: int) -> int:
        """The kind of the tag that follows tag `i` with only blanks between; END at the end of the text, TEXT
        for text."""
        if not self.blank(self.ends[i], i + 1):
            return TEXT
        return self.kind(i + 1)

    def own_line(self, i: int) -> bool:
        """Whether only blanks stand before tag `i` on its line."""
        before = self.ends[i - 1] if i else 0
        gap = self.text[before : self.starts[i]].rstrip(" \t")
        return gap.endswith("\n") or (not gap and before == 0)

    def opens_call(self, i: int) -> bool:
        """Whether `<tool_call>` and `<function=NAME>` stand here, with only blanks between."""
        return self.kind(i) == C_OPEN and self.next(i) == F_OPEN

    def run_end(self, i: int) -> int:
        """The last index of the run of equal tags, only blanks between, that tag `i` is part of."""
        if not self._run[0] <= i <= self._run[1]:
            last = i
            while self.next(last) == self.kind(i):
                last += 1
            self._run = (i, last)
        return self._run[1]

    def cut(self, i: int) -> bool:
        """Whether tag `i` is a closer that the end of the text cut off."""
        return (
            self.kinds[i] == DRIFT
            and i + 1 == len(self)
            and not self.text.endswith(">")
            and self.blank(self.ends[i], i + 1)
        )
