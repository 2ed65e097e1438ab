"""Read one call, tag by tag.

How it works: a stack of frames moves forward over the list of tags. A closer ends a text value only if a
legal continuation follows: the next parameter, or the end of the call. A call that opens inside a text
value is pushed as a frame of its own. When its end comes, it is text again; if the outer call never ends,
it was the real one. If a second reading is as well formed, the frame keeps a doubt.

Guarantees:
- Linear time: each tag is looked at a bounded number of times (runs of equal closers are taken as one). A
  closer that is looked for in vain up to the end of the text makes tags be read again; that is counted in
  `spare`, and after it is used up the first possible end of a call is its end. Only texts with hundreds
  of calls that lack their closers come so far.
- Nothing is raised for any text."""

from __future__ import annotations

from dfkeval.parsing.json_text import BLANKS
from dfkeval.parsing.tags import FUNCTION_CLOSE, PARAMETER_CLOSE
from dfkeval.parsing.toolcall._allowance import CLOSER, CODE_SPENT, DEEP, MESSAGE_SPENT, VALUE
from dfkeval.parsing.toolcall._endings import Ending, cut_tail, ended, wrapper_end
from dfkeval.parsing.toolcall._frame import Frame, Parameter
from dfkeval.parsing.toolcall._misspelt import closer_at_end, opener_at
from dfkeval.parsing.toolcall._patterns import C_CLOSE, C_OPEN, F_CLOSE, F_OPEN, P_CLOSE, P_OPEN
from dfkeval.parsing.toolcall._stack import Stack
from dfkeval.parsing.toolcall._tags import END, TEXT


class Machine(Stack):
    """Moves frames over the tags; `run` reads from the first tag of a call to its end."""

    def run(self, i: int, wrapped: bool) -> tuple[list[Frame], int]:
        """Read the call whose first tag is `i`.

        Returns:
            The finished frames in order, and the index of the tag behind them."""
        self.stack, self.out = [], []
        return self._go(self.push(i, wrapped))

    def reopen(self, frame: Frame, i: int) -> tuple[list[Frame], int]:
        """Continue `frame` at tag `i`: the end that was taken for its own stood inside its last value."""
        last = self._take_up(frame, i)
        # If nothing closes the value, everything is as before.
        last.heal = (last.end, Ending(frame.end, i, poison=frame.poison))
        frame.open, frame.shared = last, False
        return self._go(i)

    def extend(self, frame: Frame, i: int, ending: Ending) -> tuple[list[Frame], int]:
        """Continue `frame` as `reopen` does if closer `i` is known to end the value, and `ending` the
        call."""
        last = self._take_up(frame, i)
        self.end_value(frame, last, self.tags.starts[i], self.tags.ends[i])
        resume = self.close(frame, ending)
        return self.out, resume

    def _take_up(self, frame: Frame, i: int) -> Parameter:
        """Make `frame` the only open call again, with a last value that reaches at least to tag `i`."""
        last = frame.parameters.pop()
        last.closer_inside = last.opener_inside = True
        last.value = None
        frame.doubt("call_in_text", last.begin, self.tags.ends[i])
        self.stack, self.out = [frame], []
        return last

    def _go(self, i: int) -> tuple[list[Frame], int]:
        stack, count = self.stack, len(self.tags)
        while stack:
            if i >= count:
                self._end_of_text()
                self.spare -= max(0, count - self.tags.at(self.out[-1].end))
                break
            frame = stack[-1]
            parameter = frame.open
            i = self._body(frame, i) if parameter is None else self._value(frame, parameter, i)
            if self.spare < 0 and self._can_heal():
                i = count
            if self.allowance.left < 0:
                return self._spent()
        return self.out, i

    def _spent(self) -> tuple[list[Frame], int]:
        """Give up the rest of the text, since the allowance is used up."""
        if self.stack:
            frame = self.stack[0]
            frame.fault(CODE_SPENT, MESSAGE_SPENT, frame.start, len(self.text))
            frame.end = len(self.text)
            self.stack = []
            self.out.append(frame)
        return self.out, len(self.tags)

    def _can_heal(self) -> bool:
        """Return whether a single call is open, in a value behind which the call may end."""
        return len(self.stack) == 1 and (last := self.stack[0].open) is not None and last.heal is not None

    # --- between parameters --------------------------------------------------------------------------------

    def _body(self, frame: Frame, i: int) -> int:
        tags, kind = self.tags, self.tags.kinds[i]
        if i == tags.cut:
            return i + 1
        self._gap(frame, i)
        if kind == P_OPEN:
            return self.open(frame, i)
        if kind == F_CLOSE:
            return self._function_close(frame, i)
        if kind == C_CLOSE:
            return self.close(frame, Ending(tags.ends[i], i + 1, ("missing_close_function",)))
        if kind == F_OPEN or tags.opens_call(i):
            self.abandon(frame, i)
            return self.push(i, frame.wrapped or kind == C_OPEN)
        self._stray(frame, i)
        return i + 1

    def _gap(self, frame: Frame, i: int) -> None:
        gap = self.text[frame.at : self.tags.starts[i]]
        if gap not in ("", "\n") and gap.strip(BLANKS):
            frame.fault(
                "text_in_call", "text stands between the tags of a call", frame.at, self.tags.starts[i]
            )

    def _stray(self, frame: Frame, i: int) -> None:
        """Note a tag that has no place between parameters."""
        tags = self.tags
        if tags.kinds[i] == P_CLOSE and frame.parameters:
            frame.repair("duplicate_closer", tags.starts[i], tags.ends[i])
        else:
            frame.fault("stray_tag", "a tag stands where none can stand", tags.starts[i], tags.ends[i])
        frame.at = tags.ends[i]

    def _function_close(self, frame: Frame, i: int) -> int:
        tags = self.tags
        ending = self.function_end(i, frame.wrapped)
        if ending is not None:
            return self.close(frame, ending)
        if ended(tags, i):
            return len(tags)  # cut, and the generation was not finished
        if tags.kinds[i + 1] == C_CLOSE:
            self._gap_after(frame, i)
            return self.close(frame, Ending(tags.ends[i + 1], i + 2))
        return self.close(frame, Ending(tags.ends[i], i + 1, ("missing_close_tool_call",), poison=True))

    def _gap_after(self, frame: Frame, i: int) -> None:
        frame.at = self.tags.ends[i]
        self._gap(frame, i + 1)

    # --- inside a value ------------------------------------------------------------------------------------

    def _value(self, frame: Frame, parameter: Parameter, i: int) -> int:
        tags, kind = self.tags, self.tags.kinds[i]
        if not parameter.textual:
            return self._typed(frame, parameter, i)
        if kind == P_CLOSE:
            read = self._drifted if i in tags.drifted else self._closer
            return read(frame, parameter, i)
        if kind == P_OPEN:
            return self._opener(frame, parameter, i)
        if tags.opens_call(i):
            if tags.own_line(i) and tags.own_line(i + 1):
                return self.push(i, True)
            parameter.opener_inside = True
        elif kind in (F_CLOSE, C_CLOSE):
            self._may_heal(frame, parameter, i)
        return i + 1

    def _typed(self, frame: Frame, parameter: Parameter, i: int) -> int:
        """Read on in a value that cannot hold free text: the first structural tag ends it."""
        tags, kind = self.tags, self.tags.kinds[i]
        if kind == P_CLOSE:
            if i in tags.drifted and i != tags.cut:
                frame.repair("drifted_closer", tags.starts[i], tags.ends[i])
            self.end_value(frame, parameter, tags.starts[i], tags.ends[i])
            return i + 1
        if kind in (P_OPEN, F_CLOSE, C_CLOSE):
            return self._heal_here(frame, parameter, i)
        if tags.opens_call(i):
            self.abandon(frame, i)
            return self.push(i, True)
        return i + 1

    def _heal_here(self, frame: Frame, parameter: Parameter, i: int) -> int:
        """End the value at tag `i`, without its closer."""
        self.allowance.left -= VALUE
        start = self.tags.starts[i]
        end, repair = self._without_closer(parameter, start)
        frame.repair(repair, parameter.start if end == start else end, start)
        self.end_value(frame, parameter, end, start)
        return i

    def _without_closer(self, parameter: Parameter, start: int) -> tuple[int, str]:
        """Return where a value without a closer before the tag at `start` ends, and the name of the repair:
        it has no closer at all, or a misspelled one."""
        closer = closer_at_end(self.text, parameter.begin, start)
        return (start, "missing_close_parameter") if closer is None else (closer, "drifted_closer")

    def _shaped(self, parameter: Parameter, i: int) -> bool:
        """Return whether a closer of this value can stand at tag `i`, by how the value is framed."""
        return not parameter.framed or self.tags.own_line(i)

    def _as_text(self, parameter: Parameter, i: int) -> int:
        """Take the closer `i` as text of the value."""
        parameter.closer_inside = parameter.closer_inside or self._shaped(parameter, i)
        return i + 1

    def _closer(self, frame: Frame, parameter: Parameter, i: int) -> int:
        tags, following = self.tags, self.tags.next[i]
        if following == TEXT:
            self._bad_opener(frame, parameter, i)
            return self._as_text(parameter, i)
        if following == P_OPEN:
            return self._closer_and_opener(frame, parameter, i)
        if following == P_CLOSE:
            return self._closers(frame, parameter, i)
        if following == END or i + 1 == tags.cut:
            self.end_value(frame, parameter, tags.starts[i], tags.ends[i])
            return len(tags)
        ending = self._ending(frame, parameter, i)
        if ending is None:
            if following == F_CLOSE and parameter.heal is None and self._shaped(parameter, i):
                end = Ending(tags.ends[i + 1], i + 2, ("missing_close_tool_call",), poison=True)
                parameter.heal = (tags.starts[i], end)
            return self._as_text(parameter, i)
        self.end_value(frame, parameter, tags.starts[i], tags.ends[i])
        return self.close(frame, ending)

    def _bad_opener(self, frame: Frame, parameter: Parameter, i: int) -> None:
        """Note that a parameter which can be the next one is opened behind closer `i` in another way
        (`<parameter name="city">`, `<arg=city>`): no mode guesses whether that is text."""
        if not self._shaped(parameter, i):
            return
        names, span, sure = opener_at(self.text, self.tags.ends[i])
        untyped = sure and frame.tool is not None and frame.tool.untyped
        name = next((each for each in names if (untyped or each in frame.declared) and frame.fresh(each)), "")
        if name or (sure and not names and (untyped or len(frame.seen) < len(frame.declared))):
            what = repr(name) if name else "a parameter"
            message = f"{what} is opened inside the value of {parameter.name!r}, in a misspelled tag"
            frame.fault("parameter_in_text", message, *span, "ambiguous")

    def _ending(self, frame: Frame, parameter: Parameter, i: int) -> Ending | None:
        """Return the end of the call behind the closer `i`, if there is one."""
        tags, following = self.tags, self.tags.next[i]
        if following == F_CLOSE:
            return self.function_end(i + 1, frame.wrapped)
        if not self._shaped(parameter, i):
            return None
        if following == C_CLOSE:
            return wrapper_end(tags, i + 1)
        if following == C_OPEN and tags.opens_call(i + 1):
            return Ending(
                tags.ends[i], i + 1, ("missing_close_function", "missing_close_tool_call"), poison=True
            )
        return None

    def _closer_and_opener(self, frame: Frame, parameter: Parameter, i: int) -> int:
        """Read a closer and the opening tag of a parameter behind it: structure, unless the name cannot
        be the next parameter."""
        tags, opener = self.tags, i + 1
        name = self.parameter_name(frame, opener)
        fresh, on_line = frame.fresh(name), tags.own_line(i) or tags.own_line(opener)
        enumerated = parameter.slot is not None and parameter.slot.enumerated
        if not parameter.framed or enumerated or (fresh and on_line):
            return self._next_parameter(frame, parameter, i)
        if not on_line and not (fresh and self._clean(opener) and not tags.own_line(opener + 1)):
            return i + 1  # within a line, and nothing around it is written like that
        frame.doubt("parameter_or_text", tags.starts[i], tags.ends[opener], name, parameter.name)
        if self._clean(opener):
            return self._next_parameter(frame, parameter, i)
        parameter.closer_inside = parameter.opener_inside = True
        return opener + 1

    def _next_parameter(self, frame: Frame, parameter: Parameter, i: int) -> int:
        self.end_value(frame, parameter, self.tags.starts[i], self.tags.ends[i])
        return i + 1

    def _clean(self, opener: int) -> bool:
        """Return whether the parameter opened at tag `opener` ends at its first closer, and structure
        follows."""
        tags = self.tags
        return tags.kinds[opener + 1] == P_CLOSE and tags.next[opener + 1] in (P_OPEN, F_CLOSE)

    def _closers(self, frame: Frame, parameter: Parameter, i: int) -> int:
        """Read a run of closers: all but the last are text, or one closer was written more than once."""
        tags = self.tags
        last = tags.run_end(i)
        legal = tags.next[last] in (P_OPEN, END) or self._ending(frame, parameter, last) is not None
        if not legal:
            self._bad_opener(frame, parameter, last)
            parameter.closer_inside = True
            return last + 1
        if not self._shaped(parameter, i):
            return i + 1
        frame.doubt("closer_or_text", tags.starts[i], tags.ends[last])
        if parameter.opener_inside:
            parameter.closer_inside = True
            return last
        frame.repair("duplicate_closer", tags.starts[i], tags.ends[last])
        self.end_value(frame, parameter, tags.starts[i], tags.ends[last])
        return last + 1

    def _opener(self, frame: Frame, parameter: Parameter, i: int) -> int:
        """Read an opening tag of a parameter that does not follow a closer."""
        tags = self.tags
        name = self.parameter_name(frame, i)
        if not frame.fresh(name) or not self._shaped(parameter, i):
            parameter.opener_inside = True
            return i + 1
        if parameter.closer_inside:
            message = (
                f"{name!r} is opened inside the value of {parameter.name!r}, behind a closer and more text"
            )
            frame.fault("parameter_in_text", message, tags.starts[i], tags.ends[i], "ambiguous")
            parameter.opener_inside = True
            return i + 1
        return self._heal_here(frame, parameter, i)

    def _drifted(self, frame: Frame, parameter: Parameter, i: int) -> int:
        """Read `</parameter1>`, `</param>`, `</parameter` and the like: a closer if it stands and continues
        like one."""
        tags, following = self.tags, self.tags.next[i]
        self.allowance.left -= CLOSER
        if not self._shaped(parameter, i):
            return i + 1
        fresh = following == P_OPEN and frame.fresh(self.parameter_name(frame, i + 1))
        ending = self._ending(frame, parameter, i)
        if not fresh and ending is None and i != tags.cut:
            self._bad_opener(frame, parameter, i)
            parameter.drift = parameter.drift or (tags.starts[i], tags.ends[i])
            return i + 1
        if i != tags.cut:
            frame.repair("drifted_closer", tags.starts[i], tags.ends[i])
        self.end_value(frame, parameter, tags.starts[i], tags.ends[i])
        return i + 1 if ending is None else self.close(frame, ending)

    def _may_heal(self, frame: Frame, parameter: Parameter, i: int) -> None:
        """Remember the end of the call without the closer of the value; it counts only if no closer comes."""
        if parameter.heal is not None or parameter.closer_inside or not self._shaped(parameter, i):
            return
        tags = self.tags
        ending = self.function_end(i, frame.wrapped) if tags.kinds[i] == F_CLOSE else wrapper_end(tags, i)
        if ending is not None:
            end, repair = self._without_closer(parameter, tags.starts[i])
            parameter.heal = (end, ending._replace(repairs=(repair, *ending.repairs)))

    # --- the end of the text -------------------------------------------------------------------------------

    def _end_of_text(self) -> None:
        """Settle the frames that are still open, from the outermost inwards."""
        stack, self.stack = self.stack, []
        if not self.finished:
            self._truncated(stack[0])
            return
        for depth, frame in enumerate(stack):
            if frame.open is not None and frame.open.heal is not None:
                self._heal(frame, frame.open, frame.open.heal)
            elif depth + 1 < len(stack):
                inner = stack[depth + 1].start
                if depth < DEEP or frame.done or self.out[-1].end != frame.start:
                    self._given_up(frame, inner)
                else:
                    self.out[-1].end = inner
            else:
                self._last(frame)

    def _heal(self, frame: Frame, parameter: Parameter, heal: tuple[int, Ending]) -> None:
        end, ending = heal
        behind = [inner for inner in frame.done if inner.start >= ending.end]
        parameter.nested = False
        self.end_value(frame, parameter, end, end)
        for name in ending.repairs:
            frame.repair(name, end, ending.end)
        frame.end, frame.poison = ending.end, ending.poison
        self.out += [frame, *behind]

    def _given_up(self, frame: Frame, end: int) -> None:
        """Give up a frame that never ends; calls that were read inside its value stand for themselves."""
        first = frame.done[0].start if frame.done else end
        frame.fault("unclosed_call", f"the call of {frame.name!r} is never closed", frame.start, first)
        frame.end, frame.poison = first, True
        self.out += [frame, *frame.done]

    def _last(self, frame: Frame) -> None:
        """Settle the innermost frame: complete but for its closers, or cut off."""
        text, parameter = self.text, frame.open
        if parameter is not None and parameter.framed and parameter.textual:
            line = text.rfind("\n") + 1
            if len(text) - line > 2 and line > parameter.begin and PARAMETER_CLOSE.startswith(text[line:]):
                self.end_value(frame, parameter, line, len(text))
        if frame.open is None and frame.parameters and cut_tail(text, frame.at, FUNCTION_CLOSE):
            frame.repair("unclosed_call", frame.at, len(text))
            frame.end = len(text)
            self.out.append(frame)
        elif frame.done and ended(self.tags, self.tags.at(frame.done[-1].end) - 1):
            self._given_up(frame, len(text))
        else:
            self._truncated(frame)

    def _truncated(self, frame: Frame) -> None:
        frame.cut_off(len(self.text))
        self.out.append(frame)
