"""Read a whole text: calls, problems and segments.

How it works: the reader looks for the next thing outside of calls that can matter, hands calls to the
fast path or to the machine, and stores what it read as blocks. A block stays open to revision: a closing
tag outside of any call that could end a value shows that the end of an earlier call was text; that call
continues there. Calls are typed when nothing can change any more.

Guarantees:
- Never raises for a str; linear time.
- Blocks and the gaps between them cover the text exactly."""

from __future__ import annotations

from typing import Final

from dfkeval.parsing.tags import FUNCTION_START, TOOL_CALL_OPEN
from dfkeval.parsing.toolcall._allowance import CALL, CODE_SPENT, INVALID, MARK, MESSAGE_SPENT
from dfkeval.parsing.toolcall._frame import Frame, NoNotes
from dfkeval.parsing.toolcall._hermes import read_json_call
from dfkeval.parsing.toolcall._outside import OutsideReader
from dfkeval.parsing.toolcall._patterns import (
    C_CLOSE,
    C_OPEN,
    F_CLOSE,
    O_CALL,
    O_CLOSER,
    O_CODE,
    O_FUNCTION,
    O_THINK_CLOSE,
    O_THINK_OPEN,
    O_TICKS,
    O_TILDES,
    OUTSIDE,
    P_CLOSE,
    P_OPEN,
)
from dfkeval.parsing.toolcall._result import Block, ReadOptions, build_result
from dfkeval.parsing.toolcall._scanner import opening
from dfkeval.parsing.toolcall._types import ParseResult, Problem, Status

_CLOSERS = (P_CLOSE, F_CLOSE, C_CLOSE)


class Reader(OutsideReader):
    """Reads one text once: `Reader(...).read()`."""

    def read(self, prefill: str = "none") -> ParseResult:
        """Return the result of the whole text; `prefill` is "think" if the prompt ended inside a think
        block."""
        at, text, search = self._begin(prefill), self.text, OUTSIDE.search
        while (match := search(text, at)) is not None:
            kind = match.lastindex
            at = match.end() if kind == O_CODE else self._step(kind, *match.span())
            self.allowance.left -= MARK
            if self.allowance.left < 0:
                self._spent(at)
                break
        return build_result(self.text, self.blocks, self._options())

    def _spent(self, at: int) -> None:
        """Leave the text from `at` on unread, since the allowance is used up; calls in it are a problem."""
        text = self.text
        if max(text.find(TOOL_CALL_OPEN, at), text.find(FUNCTION_START, at)) >= 0:
            block = self._mark("broken_call", at, len(text))
            block.problems.append(Problem("malformed", CODE_SPENT, MESSAGE_SPENT, (at, len(text))))

    def _options(self) -> ReadOptions:
        return ReadOptions(self.dialect, self.lenient, self.lost)

    def _step(self, kind: int | None, start: int, end: int) -> int:
        """Read what stands from `start` to `end`, and return where to continue."""
        if kind == O_CALL:
            return self._call(start)
        if kind in (O_TICKS, O_TILDES):
            return self._code(start, end)
        if kind == O_CLOSER:
            return self._orphan(start, end)
        if kind == O_FUNCTION:
            return self._bare(start, end)
        if kind == O_THINK_OPEN:
            return self._think_open(start, end)
        if kind == O_THINK_CLOSE:
            return self._think_close(start, end)
        return self._turn_end(start, end)

    def _call(self, start: int) -> int:
        kind = opening(self.text, start)
        if kind == "prose":
            return start + len(TOOL_CALL_OPEN)
        if kind == "call" and self._usual:
            done = self.canonical.call(start)
            if done is not None:
                block = self._mark("call", start, done[0].span[1])
                block.call, block.reopenable = done
                self._remember(block)
                return block.end
            if self.canonical.unfit:
                self._charge_unfit()
        if kind == "json" and self.dialect == "hermes":
            return self._json_call(start)
        if kind == "call" and self.dialect != "hermes":
            return self._frames(*self.machine.run(self.tags.at(start), wrapped=True))
        return self._broken(kind, start)

    def _charge_unfit(self) -> None:
        """Charge a call that will be a problem when it is typed; behind the last one that is reported, nothing is
        read."""
        self.unfit.left -= INVALID
        if self.unfit.left < 0:
            self.allowance.left = min(self.allowance.left, 0)

    @property
    def _usual(self) -> bool:
        return self.lost is None and self.pending is None and self.dialect != "hermes" and not self._poisoned

    @property
    def _poisoned(self) -> bool:
        return bool(self.blocks) and self.blocks[-1].poisons

    def _json_call(self, start: int) -> int:
        call, problems, end = read_json_call(
            self.text, start, self.tools, self.lenient, self.finished, self.ahead.call_close
        )
        block = self._mark("call" if call else "broken_call", start, end)
        block.call, block.problems = call, problems
        if problems:
            self.allowance.left -= CALL
        return end

    def _broken(self, kind: str, start: int) -> int:
        """Read a `<tool_call>` that opens nothing readable; reading continues at the next tag of a call."""
        if kind == "cut":
            return self._broken_block(kind, start, len(self.text))
        tags = self.tags
        i = tags.at(start) + 1
        while i < len(tags) and tags.kinds[i] != C_CLOSE and not tags.opens_call(i):
            i += 1
        closed = i < len(tags) and tags.kinds[i] == C_CLOSE
        end = tags.ends[i] if closed else tags.starts[i] if i < len(tags) else len(self.text)
        if kind == "nothing" and not closed and tags.next[tags.at(start)] == C_OPEN:
            self.pending = ("duplicate_opener", (start, start + len(TOOL_CALL_OPEN)))
            self._mark("markup", start, end)
            return end
        end = self._broken_block("xml" if kind == "call" else kind, start, end)
        self.blocks[-1].poison = not closed
        return end

    def _broken_block(self, kind: str, start: int, end: int) -> int:
        status, code, message = _BROKEN[kind]
        self.allowance.left -= CALL
        block = self._mark("broken_call", start, end)
        block.problems.append(Problem(status, code, message, (start, end)))
        if kind == "bad_function" and self.lost is None:
            self.lost = start
        return end

    def _bare(self, start: int, end: int) -> int:
        """Read `<function=` without `<tool_call>`: a call if its name is known and a call continues."""
        tags = self.tags
        i = tags.at(start)
        if self.dialect == "hermes" or tags.next[i] not in (P_OPEN, F_CLOSE):
            return end  # also where no name is readable: '=' follows `<function` then
        if self.tools and tags.name(i) not in self.tools and not tags.own_line(i):
            return end
        return self._frames(*self.machine.run(i, wrapped=False))

    def _frames(self, frames: list[Frame], i: int) -> int:
        """Store what the machine read up to tag `i`, and return where to continue."""
        while True:
            for frame in frames:
                self._store(frame)
            last = frames[-1]
            if last.shared and i >= len(self.tags):
                return last.end  # the text ended in an outer call; what follows `last` is read anew
            if last.shared:
                frames, i = self.machine.run(i, wrapped=True)
                continue
            closer = self._closers_behind(self.blocks[-1], last, i)
            if closer is None:
                return last.end
            frames, i = self.machine.reopen(self._take_back(len(self.blocks) - 1, closer), closer)

    def _store(self, frame: Frame) -> None:
        block = self._mark("call", frame.start, frame.end)
        block.frame = frame
        last = frame.parameters[-1] if frame.parameters else None
        block.reopenable = not frame.poison and frame.open is None and last is not None and last.textual
        if self.pending is not None:
            name, span = self.pending
            frame.repair(name, *span)
            if name == "unclosed_fence":
                frame.doubt("call_in_fence", *span)
            self.pending = None
        if not isinstance(frame.notes, NoNotes):
            self.allowance.left -= CALL
        self._remember(block)

    def _remember(self, block: Block) -> None:
        if block.reopenable:
            self.reopenable.append(len(self.blocks) - 1)

    def _closers_behind(self, block: Block, frame: Frame, i: int) -> int | None:
        """Return the tag at which the last value of a call continues, if closing tags stand directly behind
        the call; None if they were just written twice."""
        tags, end = self.tags, frame.end
        if frame.open is not None or frame.notes.faults or frame.notes.twice:
            return None
        while tags.kinds[i] in _CLOSERS and tags.starts[i] >= end and tags.blank(end, i):
            if tags.kinds[i] == P_CLOSE and self._may_reopen(block, frame, i):
                return i
            end = tags.ends[i]
            i += 1
        if end > frame.end:
            self.allowance.left -= CALL
            frame.repair("orphan_closer", frame.end, end)
            frame.end = block.end = end
        return None

    def _may_reopen(self, block: Block, frame: Frame, i: int) -> bool:
        """Return whether tag `i` may end the last value of `frame`, so that the call that ended before it was
        text of that value."""
        if not block.reopenable or i <= self.reopened or self.machine.spare < 0:
            return False
        last = frame.parameters[-1]
        return last.opener_inside or self.text.find(TOOL_CALL_OPEN, last.begin, last.end) >= 0

    def _orphan(self, start: int, end: int) -> int:
        """Read a `</parameter>` outside of any call. If it could end a value, the last call with free text at
        its end continues."""
        tags = self.tags
        if not self.reopenable or (i := tags.at(start)) <= self.reopened or self.machine.spare < 0:
            return end
        following = tags.next[i]
        ending = self.machine.function_end(i + 1, True) if following == F_CLOSE else None
        if ending is None and following != P_OPEN:
            return end
        frame = self._take_back(self.reopenable[-1], i)
        if ending is not None and frame.wrapped:
            read = self.machine.extend(frame, i, ending)
        else:
            read = self.machine.reopen(frame, i)
        return max(end, self._frames(*read))

    def _take_back(self, index: int, i: int) -> Frame:
        """Remove block `index` and those behind it, and return the call of that block, which continues at tag
        `i`."""
        self.allowance.left -= CALL
        self.reopened = i
        block = self.blocks[index]
        frame = block.frame
        if frame is None:
            frame = self.machine.run(self.tags.at(block.start), wrapped=True)[0][0]
        del self.blocks[index:]
        while self.reopenable and self.reopenable[-1] >= index:
            self.reopenable.pop()
        return frame


_BROKEN: Final[dict[str, tuple[Status, str, str]]] = {
    "cut": ("truncated", "truncated", "the text ends behind <tool_call>"),
    "bad_function": (
        "malformed",
        "bad_function_tag",
        "<tool_call> is not followed by a readable <function=NAME>",
    ),
    "json": ("malformed", "json_call", 'the call is written as JSON; read it with dialect="hermes"'),
    "xml": ("malformed", "xml_call", 'the call is written as <function=…>; read it without dialect="hermes"'),
    "empty": ("malformed", "empty_call", "<tool_call> holds no function"),
    "nothing": ("malformed", "no_function", "<tool_call> is not followed by a function"),
}
