"""Hold the state of one call while it is read: a frame with its parameters, moved by `_machine`.

A frame also collects what is wrong with it: `repairs`, which lenient reading mends and strict reading
refuses; `doubts`, two readings that are both well formed (strict reading refuses, lenient reading takes
the one described); and `faults`, which no mode accepts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from dfkeval.parsing.coercion import Slot
from dfkeval.parsing.toolcall._endings import Ending
from dfkeval.parsing.toolcall._tools import Tool
from dfkeval.parsing.toolcall._types import Problem, Span, Status

#: What is ambiguous, by code; the names are those of parameters.
DOUBTS: Final = {
    "parameter_or_text": "{0!r} can be the next parameter or text of {1!r}",
    "closer_or_text": "a closer is followed only by another closer",
    "call_in_text": "a call or the end of a call stands inside this value",
    "call_in_fence": "the call may be part of a code fence",
}
#: (code, start, end, names). Texts of many tags have many doubts; only strict reading puts them into words.
Doubt = tuple[str, int, int, tuple[str, ...]]


class Parameter:
    """One parameter.

    Attributes:
        start: where its opening tag stands.
        begin, end: where the raw value between the tags stands.
        framed: a newline follows the opening tag, as templates write it.
        textual: the value may be free text.
        value: decoded JSON and the repairs that it needed, if it was decoded while it was read."""

    value: tuple[object, list[str]] | None = None
    #: A closer that could have ended the value by its shape stands inside as text.
    closer_inside = False
    #: A tag that opens a parameter or a call stands inside as text.
    opener_inside = False
    #: Where the first misspelled closer stands that could have ended the value by its shape.
    drift: Span | None = None
    #: A whole call stands inside as text.
    nested = False
    #: Where the call may end if no closer of this value follows: (end of value, the ending).
    heal: tuple[int, Ending] | None = None

    def __init__(self, name: str, start: int, begin: int, framed: bool, slot: Slot | None) -> None:
        self.name = name
        self.start = start
        self.begin = begin
        self.end = begin
        self.framed = framed
        self.slot = slot
        self.textual = slot is None or slot.textual

    def value_span(self, text: str) -> Span:
        """Return where the value stands without its framing newlines, one per side."""
        begin, end = self.begin, self.end
        if text.startswith("\r\n", begin, end):
            closed = end - begin >= 4 and text.startswith("\r\n", end - 2)
            return begin + 2, end - 2 if closed else end
        if text.startswith("\n", begin, end):
            begin += 1
        if end > begin and text[end - 1] == "\n":
            end -= 1
        return begin, end


class Notes:
    """What was noted about one call.

    Attributes:
        repairs: name -> where it was needed.
        doubts, faults: see the module.
        twice: parameter that stands more than once -> its second opening tag."""

    __slots__ = ("doubts", "faults", "repairs", "twice")

    def __init__(self) -> None:
        self.repairs: dict[str, Span] = {}
        self.doubts: list[Doubt] = []
        self.faults: list[Problem] = []
        self.twice: dict[str, Span] = {}


class NoNotes(NamedTuple):
    """The notes of a call about which there is nothing to note, as of nearly all in a text of many calls."""

    repairs: Mapping[str, Span] = MappingProxyType({})
    doubts: tuple[Doubt, ...] = ()
    faults: tuple[Problem, ...] = ()
    twice: Mapping[str, Span] = MappingProxyType({})


_NONE: Final = NoNotes()


class Frame:
    """One call from its opening tag on.

    Attributes:
        wrapped: `<tool_call>` stands before it.
        at: the end of the last tag that is structure.
        open: the parameter whose value is being read.
        done: calls that were completed inside the open value, in case this frame is given up.
        poison: strict reading cannot trust the text behind it, since its own end is missing.
        shared: another function follows inside the same `<tool_call>`."""

    __slots__ = (
        "at",
        "done",
        "end",
        "name",
        "notes",
        "open",
        "parameters",
        "poison",
        "seen",
        "shared",
        "start",
        "tool",
        "wrapped",
    )

    def __init__(self, name: str, start: int, at: int, wrapped: bool, tool: Tool | None) -> None:
        self.name = name
        self.start = start
        self.at = at
        self.end = at
        self.wrapped = wrapped
        self.tool = tool
        self.open: Parameter | None = None
        self.parameters: list[Parameter] = []
        self.seen: set[str] = set()
        self.notes: Notes | NoNotes = _NONE
        self.done: list[Frame] | tuple[()] = ()
        self.poison = False
        self.shared = False

    def _noted(self) -> Notes:
        if isinstance(self.notes, NoNotes):
            self.notes = Notes()
        return self.notes

    def repair(self, name: str, start: int, end: int) -> None:
        """Note a repair, once for each name."""
        if name not in self.notes.repairs:
            self._noted().repairs[name] = (start, end)

    def doubt(self, code: str, start: int, end: int, *names: str) -> None:
        """Note that another reading is as well formed as the one taken; `code` is one of DOUBTS."""
        self._noted().doubts.append((code, start, end, names))

    def fault(self, code: str, message: str, start: int, end: int, status: Status = "malformed") -> None:
        """Note that the call cannot be read in any mode."""
        self._noted().faults.append(Problem(status, code, message, (start, end)))

    def again(self, name: str, start: int, end: int) -> None:
        """Note that a parameter stands once more, once for each name."""
        if name not in self.notes.twice:
            self._noted().twice[name] = (start, end)

    def cut_off(self, end: int) -> None:
        """Note that the text ends inside this call, at `end`; what else was wrong no longer matters."""
        notes = self._noted()
        notes.faults, notes.twice = [], {}
        self.fault(
            "truncated", f"the text ends inside the call of {self.name!r}", self.start, end, "truncated"
        )
        self.end = end

    @property
    def declared(self) -> Collection[str]:
        """Return the names of the parameters that the tool declares."""
        return () if self.tool is None else self.tool.slots

    def fresh(self, name: str) -> bool:
        """Return whether `name` can be the next parameter: declared (or everything is) and not seen yet."""
        return name not in self.seen and (self.tool is None or self.tool.untyped or name in self.tool.slots)
