"""Find all tags of a text once, and answer questions about their neighbourhood.

How it works: one pass of one pattern finds each tag and the blanks behind it, so that what follows a tag
is known without another look at the text. Only lists of integers are stored, since a text can hold a
hundred thousand tags.

Guarantees:
- Each question takes constant time, except those about a line or a run. They take at most the gap between
  two tags, and each gap is looked at a bounded number of times."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from dfkeval.parsing.json_text import BLANKS
from dfkeval.parsing.tags import FUNCTION_START, PARAMETER_START
from dfkeval.parsing.toolcall._patterns import C_CLOSE, C_OPEN, DRIFT, F_CLOSE, F_OPEN, P_CLOSE, P_OPEN, TOKEN

#: A kind for the end of the text and one for text, beside those of TOKEN.
END: Final = 0
TEXT: Final = -1
#: The first letter of a misspelled closer -> the closer that it stands for.
_DRIFTED: Final = {"p": P_CLOSE, "f": F_CLOSE, "t": C_CLOSE, "P": P_CLOSE, "F": F_CLOSE, "T": C_CLOSE}
_NAME_AT: Final = {P_OPEN: len(PARAMETER_START), F_OPEN: len(FUNCTION_START)}


class Tags:
    """All tags of one text. Indexes run over them; `len(tags)` stands for the end of the text.

    Attributes:
        starts, ends: the offsets of each tag.
        kinds: the kind of each tag, and END behind the last. A misspelled closer counts as the closer that it
            stands for.
        next: the kind of the tag that follows each with only blanks between; END if the text ends there,
            TEXT if text follows.
        drifted: indexes of the misspelled closers.
        cut: index of the last tag if it is a closer that the end of the text cut off, else -1."""

    def __init__(self, text: str) -> None:
        self.text = text
        kinds: list[int] = []
        starts: list[int] = []
        ends: list[int] = []
        before: list[int] = []  # the kind of each tag if only blanks stand before it, else TEXT
        drifted: list[int] = []
        stop = -1  # behind the last tag and its blanks
        for match in TOKEN.finditer(text):  # one match at a time: a list of them is work for the collector
            kind = match.lastindex or END
            start = match.start()
            starts.append(start)
            ends.append(match.end(kind))
            if kind == DRIFT:
                drifted.append(len(kinds))
                kind = (
                    _DRIFTED.get(text[start + 2]) or _DRIFTED[text[start : start + 12].lstrip("<\\/ \t")[0]]
                )
            kinds.append(kind)
            before.append(kind if start == stop else TEXT)
            stop = match.end()
        self.starts, self.ends = starts, ends
        self.drifted = frozenset(drifted)
        self.kinds = [*kinds, END]
        self.next = [*before[1:], END if stop == len(text) else TEXT]
        self.cut = self._cut_closer()
        self._run = (0, -1)

    def _cut_closer(self) -> int:
        last = len(self) - 1
        return last if last in self.drifted and self.next[last] == END and self.text[-1] != ">" else -1

    def __len__(self) -> int:
        return len(self.starts)

    def at(self, offset: int) -> int:
        """Return the index of the first tag that starts at or behind `offset`."""
        return bisect_left(self.starts, offset)

    def empty(self, i: int) -> bool:
        """Return whether the opening tag `i` is closed in itself (`<parameter=city/>`), and no value follows."""
        return self.text[self.ends[i] - 2] == "/" and self.next[i] not in (TEXT, P_CLOSE)

    def name(self, i: int) -> str:
        """Return the name in the opening tag `i`."""
        return self.text[self.starts[i] + _NAME_AT[self.kinds[i]] : self.ends[i] - 1]

    def blank(self, start: int, i: int) -> bool:
        """Return whether only blanks stand between `start` and tag `i`."""
        stop = self.starts[i] if i < len(self.starts) else len(self.text)
        return start == stop or not self.text[start:stop].strip(BLANKS)

    def own_line(self, i: int) -> bool:
        """Return whether only blanks stand before tag `i` on its line."""
        start = self.starts[i]
        last = self.text[start - 1 : start]
        if last not in (" ", "\t"):
            return last in ("\n", "")  # no tag ends with a newline
        before = self.ends[i - 1] if i else 0
        gap = self.text[before:start].rstrip(" \t")
        return gap.endswith("\n") or (not gap and before == 0)

    def opens_call(self, i: int) -> bool:
        """Return whether `<tool_call>` and `<function=NAME>` stand at `i`, with only blanks between."""
        return self.kinds[i] == C_OPEN and self.next[i] == F_OPEN

    def run_end(self, i: int) -> int:
        """Return the last index of the run of equal tags, with only blanks between, that tag `i` is part
        of."""
        kind, follows = self.kinds[i], self.next
        if follows[i] != kind:
            return i
        if not self._run[0] <= i <= self._run[1]:
            last = i
            while follows[last] == kind:
                last += 1
            self._run = (i, last)
        return self._run[1]
