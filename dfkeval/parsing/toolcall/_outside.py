"""Read the text outside of calls: think blocks, Markdown code, and the end of a turn.

What was read is stored as blocks. A call among them stays open to revision until the text is read, since
a closing tag behind it can show that its end was text."""

from __future__ import annotations

from dfkeval.parsing.coercion import Dialect
from dfkeval.parsing.json_text import skip_blanks
from dfkeval.parsing.tags import (
    PARAMETER_CLOSE,
    PARAMETER_START,
    THINK_CLOSE,
    THINK_OPEN,
    TOOL_CALL_CLOSE,
    TOOL_CALL_OPEN,
)
from dfkeval.parsing.toolcall._allowance import CODE, Allowance
from dfkeval.parsing.toolcall._result import Block
from dfkeval.parsing.toolcall._source import SourceText
from dfkeval.parsing.toolcall._tools import Tool
from dfkeval.parsing.toolcall._types import Kind, Problem, Span


class OutsideReader(SourceText):
    """The state of reading one text, and the reading of all that is not a call."""

    def __init__(
        self,
        text: str,
        tools: dict[str, Tool],
        anything: Tool | None,
        *,
        lenient: bool,
        dialect: Dialect,
        finished: bool,
    ) -> None:
        super().__init__(text, tools, anything, dialect, finished)
        self.lenient = lenient
        #: What is left for calls that will be problems when they are typed, as `build_result` counts it.
        self.unfit = Allowance(len(text))
        self.blocks: list[Block] = []
        self.reopenable: list[int] = []
        self.thought = False
        #: The tag at which a call was continued last. Only later tags can do that, so that reading advances.
        self.reopened = -1
        #: Offset from which strict reading trusts nothing, since a call without a readable beginning opens
        #: there.
        self.lost: int | None = None
        #: A repair of the next call that is known already: its name and where it is needed.
        self.pending: tuple[str, Span] | None = None

    def _mark(self, kind: Kind, start: int, end: int) -> Block:
        block = Block(kind, start, end)
        self.blocks.append(block)
        return block

    # --- think blocks --------------------------------------------------------------------------------------

    def _begin(self, prefill: str) -> int:
        start = skip_blanks(self.text, 0)
        if self.text.startswith(THINK_OPEN, start):
            self._mark("markup", 0, start + len(THINK_OPEN))
            return self._think(start + len(THINK_OPEN))
        return self._think(0) if prefill == "think" else 0

    def _think_open(self, start: int, end: int) -> int:
        """Read a `<think>`. Within a line it is text, and behind a call unless the block is closed and closes
        no value."""
        if self.text[start - 1 : start] not in ("", "\n"):
            return end
        close = self.ahead.think_close.find(end)[0]
        if self.blocks and (close == len(self.text) or self._closes_value(end, close)):
            self.thought = True
            return end
        self._mark("markup", start, end)
        return self._think(end)

    def _think(self, start: int) -> int:
        """Read a think block from `start` on; a call ends it if nothing else does."""
        self.thought = True
        close = self.ahead.think_close.find(start)[0]
        call = self.ahead.call_start.find(start)[0]
        if call < close:
            close = self._think_with_call(call, close)
        stop = min(close, len(self.text))
        self._mark("reasoning", start, stop)
        if not self.text.startswith(THINK_CLOSE, stop):
            return stop
        return self._after_think(stop)

    def _think_with_call(self, call: int, close: int) -> int:
        """Return where a think block ends in which a call begins at `call`, before the `</think>` at `close`,
        if there is one."""
        shaped = self.ahead.think_end.find(call)[0]
        if shaped < len(self.text):
            return shaped
        if close == len(self.text):
            return call
        first = self.tags.at(call)
        if not self.tags.opens_call(first):
            return close  # its beginning cannot be read: an example
        frames, _ = self.machine.run(first, wrapped=True)
        return close if frames[0].end <= close else call

    def _after_think(self, close: int) -> int:
        """Read `</think>` with the two newlines that templates write behind it."""
        end = close + len(THINK_CLOSE)
        end += 2 if self.text.startswith("\n\n", end) else self.text.startswith("\n", end)
        self._mark("markup", close, end)
        return end

    def _think_close(self, start: int, end: int) -> int:
        """Read a `</think>` that nothing opened: the prompt held its opener, and all before it is
        reasoning."""
        if self.thought or (
            start and self.text[start - 1] != "\n" and self.ahead.think_end.find(start)[0] != start
        ):
            return end
        self.thought = True
        calls = [block for block in self.blocks if block.kind == "call"]
        self.blocks, self.reopenable = [], []
        block = self._mark("reasoning", 0, start)
        if calls:
            message = "calls stand before a </think> that nothing opened; they may be part of the reasoning"
            block.problems.append(Problem("ambiguous", "call_in_reasoning", message, (calls[0].start, end)))
        return self._after_think(start)

    # --- code and the end of a turn ------------------------------------------------------------------------

    def _code(self, start: int, end: int) -> int:
        self.allowance.left -= CODE
        if end - start >= 3 and self.fences.opens(start, end):
            stop = self.fences.fence_end(start, end)
            if stop is None or self._splits_call(end, stop):
                (start, end), stop = self.fences.last_open(start, end)
                self.pending = ("unclosed_fence", (start, end))
                return stop
        elif self.text[start] == "~":
            return end
        else:
            stop = self.fences.span_end(start, end)
            if stop is None and self.text.startswith(TOOL_CALL_OPEN, end):
                stop = self._quoted_call(start, end)
        return end if stop is None or (self.reopenable and self._closes_value(end, stop)) else stop

    def _closes_value(self, start: int, stop: int) -> bool:
        """Return whether the code from `start` to `stop` holds the closer of a parameter without its opener,
        which makes it the rest of a value and not an example."""
        if not self.reopenable:
            return False
        close = self.text.find(PARAMETER_CLOSE, start, stop)
        return close >= 0 and self.text.find(PARAMETER_START, start, close) < 0

    def _splits_call(self, start: int, stop: int) -> bool:
        """Return whether the code from `start` to `stop` ends inside a call, so that its end is text of that
        call."""
        if self.ahead.call_start.find(start)[0] >= stop:
            return False
        opened = self.text.rfind(TOOL_CALL_OPEN, start, stop)
        return self.text.find(TOOL_CALL_CLOSE, opened, stop) < 0

    def _quoted_call(self, start: int, end: int) -> int | None:
        """Return the end of a backtick span that encloses exactly the call behind the run from `start` to
        `end`."""
        stop = self.ahead.call_close.find(end)[1]
        ticks = self.text[start:end]
        return stop + len(ticks) if self.text.startswith(ticks, stop) else None

    def _turn_end(self, start: int, end: int) -> int:
        """Read a special token: the answer ends here, unless the text behind closes a value that holds the
        token as text."""
        if self._closes_value(end, self.ahead.call_start.find(end)[0]):
            return end
        block = self._mark("markup", start, len(self.text))
        call = self.ahead.call_start.find(start)[0]
        if call < len(self.text):
            message = "a call stands behind the end of the turn; it was not read"
            block.problems.append(Problem("malformed", "call_after_turn", message, (call, len(self.text))))
        return len(self.text)
