"""Turn the blocks of a text into its result: calls typed, problems in order, the text in segments.

Guarantees:
- The segments join to the text exactly."""

from __future__ import annotations

from typing import NamedTuple

from dfkeval.parsing.coercion import Dialect
from dfkeval.parsing.json_text import BLANKS
from dfkeval.parsing.toolcall._allowance import CODE_SPENT, INVALID, MESSAGE_SPENT, Allowance
from dfkeval.parsing.toolcall._frame import Frame
from dfkeval.parsing.toolcall._types import Kind, ParseResult, Problem, ToolCall
from dfkeval.parsing.toolcall._validate import finish

Layout = list[tuple[Kind, int, int]]


class Block:
    """A stretch of the text that is not plain content.

    Attributes:
        frame: a call as the machine read it.
        call: a call that is typed already.
        reopenable: the last value is free text, so that a later closing tag may show that it continues.
        poison: the end of the block is missing."""

    __slots__ = ("call", "end", "frame", "kind", "poison", "problems", "reopenable", "start")

    def __init__(self, kind: Kind, start: int, end: int) -> None:
        self.kind = kind
        self.start = start
        self.end = end
        self.frame: Frame | None = None
        self.call: ToolCall | None = None
        self.problems: list[Problem] = []
        self.reopenable = False
        self.poison = False

    @property
    def poisons(self) -> bool:
        """Return whether the next call begins inside this one, for strict reading."""
        return self.poison if self.frame is None else self.frame.poison or self.frame.shared


class ReadOptions(NamedTuple):
    """How calls are typed. `lost`: the offset from which strict reading trusts nothing, or None."""

    dialect: Dialect
    lenient: bool
    lost: int | None


def build_result(text: str, blocks: list[Block], options: ReadOptions) -> ParseResult:
    """Return the result: the calls of `blocks`, typed, and the layout of `text`."""
    calls: list[ToolCall] = []
    problems: list[Problem] = []
    layout: Layout = []
    at, poison = 0, False
    allowance = Allowance(len(text))
    for block in blocks:
        if allowance.left < 0:
            problems.append(Problem("malformed", CODE_SPENT, MESSAGE_SPENT, (at, len(text))))
            layout.append(("broken_call", at, len(text)))
            at = len(text)
            break
        _settle(block, text, options, poison)
        poison = block.poisons
        _gap(layout, text, at, block.start, block.kind)
        kind: Kind = "broken_call" if block.kind == "call" and block.call is None else block.kind
        if block.end > block.start:
            layout.append((kind, block.start, block.end))
        at = block.end
        problems += block.problems
        if block.problems:
            allowance.left -= INVALID
        if block.call is not None:
            calls.append(block.call)
    _gap(layout, text, at, len(text), "markup")
    return ParseResult(text, calls, problems, layout)


def _settle(block: Block, text: str, options: ReadOptions, poison: bool) -> None:
    """Type the block's call. `poison`: it begins inside the call of the block before."""
    if block.frame is None:
        return
    lost = options.lost is not None and block.start > options.lost
    outcome = finish(block.frame, text, options.dialect, options.lenient, poison or lost)
    block.call, block.problems = outcome.call, outcome.problems


def _gap(layout: Layout, text: str, start: int, end: int, following: Kind) -> None:
    """The text between blocks: content, or blanks that only separate."""
    if start == end:
        return
    after_call = bool(layout) and layout[-1][0] in ("call", "broken_call")
    blank = after_call and following != "reasoning" and not text[start:end].strip(BLANKS)
    layout.append(("markup" if blank else "content", start, end))
