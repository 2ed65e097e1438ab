"""Hold any tool-call parser to the conformance table.

Each row of `toolcall_cases.jsonl` is one text with its tools and its answers. The lenient answer is
`argued` if the row has it, else `expected`; the strict answer is `strict` if the row has it, else the
lenient one. An answer is a list of calls, "no call", "error" (no call and at least one problem) or
"ambiguous" (one problem has that status; calls without any doubt may stand beside it).

    failures = [case.id for case in cases() if explain(case, my_parse(case)) is not None]"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Literal, NamedTuple, Protocol

from dfkeval.parsing.toolcall import ParseResult, Prefill, ToolCallParser

Mode = Literal["strict", "lenient"]
Answer = list[dict[str, Any]] | str


class Case(NamedTuple):
    """One row of the table.

    Attributes:
        id, source, notes: the name of the case, where it comes from, and remarks.
        text: what the model wrote.
        tools: definitions of the tools that it could call.
        lenient, strict: the answers.
        prefill: "think" if the prompt ended inside a think block.
        content, reasoning: the text outside of calls and of think blocks; None if it does not matter."""

    id: str
    source: str
    text: str
    tools: list[dict[str, Any]]
    lenient: Answer
    strict: Answer
    prefill: Prefill
    content: str | None
    reasoning: str | None
    notes: str

    def answer(self, mode: Mode) -> Answer:
        """Return the answer that a parser in `mode` must give."""
        return self.strict if mode == "strict" else self.lenient


def cases() -> Iterator[Case]:
    """Yield the rows of the table in the order of the file."""
    with files("dfkeval.testing").joinpath("toolcall_cases.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            yield _case(json.loads(line))


def _case(row: dict[str, Any]) -> Case:
    lenient = row.get("argued", row["expected"])
    return Case(
        id=row["id"],
        source=row["source"],
        text=row["text"],
        tools=row["tools"],
        lenient=lenient,
        strict=row.get("strict", lenient),
        prefill="think" if row.get("prefill") else "none",
        content=row.get("content"),
        reasoning=row.get("reasoning"),
        notes=row.get("notes", ""),
    )


class Result(Protocol):
    """What the driver needs from the result of a parser, such as `dfkeval.parsing.toolcall.ParseResult`."""

    @property
    def calls(self) -> list[Any]: ...
    @property
    def problems(self) -> list[Any]: ...
    @property
    def content(self) -> str: ...
    @property
    def reasoning(self) -> str: ...


def explain(case: Case, result: Result, mode: Mode = "lenient") -> str | None:
    """Return why a result is not the answer of a case.

    Values are compared with their types: True is not 1, while 5 and 5.0 are equal.

    Args:
        case: a row of the table.
        result: what the parser gave for its text.
        mode: the mode of the parser.

    Returns:
        The difference in words; None if there is none."""
    expected = case.answer(mode)
    calls = [{"name": call.name, "arguments": call.arguments} for call in result.calls]
    wrong = _wrong_text(case, result)
    if isinstance(expected, list):
        return (
            wrong
            if _equal(calls, expected)
            else f"calls {calls!r} instead of {expected!r}; problems {result.problems!r}"
        )
    if expected == "ambiguous":
        flagged = any(problem.status == "ambiguous" for problem in result.problems)
        return None if flagged else f"calls {calls!r}, problems {result.problems!r}, none of them ambiguous"
    if calls:
        return f"calls {calls!r} instead of {expected!r}"
    if expected == "no call":
        return wrong or (f"problems {result.problems!r} in a text without calls" if result.problems else None)
    return None if result.problems else "no problem reported instead of an error"


def _wrong_text(case: Case, result: Result) -> str | None:
    for name in ("content", "reasoning"):
        expected = getattr(case, name)
        if expected is not None and getattr(result, name) != expected:
            return f"{name} {getattr(result, name)!r} instead of {expected!r}"
    return None


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(value, b[key]) for key, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def drive(
    case: Case, mode: Mode, cut: Literal["whole", "characters", "random"] = "whole", seed: int = 0
) -> ParseResult:
    """Run our parser on a case.

    Args:
        case: a row of the table.
        mode: "strict" or "lenient".
        cut: whether the parser gets the text as a whole, one character at a time, or in random pieces.
        seed: of the random pieces."""
    parser = ToolCallParser(case.tools, mode=mode, prefill=case.prefill)
    if cut == "whole":
        return parser.parse(case.text)
    stream = parser.stream()
    for piece in pieces(case.text, cut, seed):
        stream.feed(piece)
    return stream.close()


def pieces(text: str, cut: Literal["characters", "random"], seed: int = 0) -> Iterator[str]:
    """Yield `text` in pieces of one character, or of 1 to 12 characters."""
    rng = random.Random(seed)
    at = 0
    while at < len(text):
        size = 1 if cut == "characters" else rng.randint(1, 12)
        yield text[at : at + size]
        at += size
