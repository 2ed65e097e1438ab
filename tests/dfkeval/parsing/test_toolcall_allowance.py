"""What is read in vain is bounded: work grows with the text, and texts of ordinary size never meet the limit.

Work is counted, not timed: function calls, and the characters that string methods look at."""

from __future__ import annotations

import importlib.util
import itertools
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dfkeval.parsing.toolcall import ToolCallParser, write_tool_call
from dfkeval.parsing.toolcall._fast_path import Canonical

TOOLS = [
    {
        "name": "f",
        "parameters": {
            "properties": {"a": {"type": "string"}, "t": {"type": "array"}, "n": {"type": "integer"}}
        },
    },
    {"name": "g"},
]
PROBLEM = "too_many_problems"


def slow_texts() -> ModuleType:
    path = Path(__file__).resolve().parents[3] / "bench" / "slow_texts.py"
    spec = importlib.util.spec_from_file_location("slow_texts", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SLOW = slow_texts()


class Counted(str):
    """A text that counts the characters which its methods look at."""

    seen = 0

    def _add(self, size: int) -> None:
        Counted.seen += size

    def __getitem__(self, key: Any) -> str:
        found = super().__getitem__(key)
        self._add(len(found))
        return found

    def find(self, part: str, start: int = 0, end: int = sys.maxsize) -> int:
        at = super().find(part, start, end)
        self._add((at if at >= 0 else min(end, len(self))) - start)
        return at

    def rfind(self, part: str, start: int = 0, end: int = sys.maxsize) -> int:
        at = super().rfind(part, start, end)
        self._add(min(end, len(self)) - max(at, start))
        return at

    def count(self, part: str, start: int = 0, end: int = sys.maxsize) -> int:
        self._add(min(end, len(self)) - start)
        return super().count(part, start, end)


def work(parser: ToolCallParser, text: str) -> int:
    """Return function calls, times ten, and characters looked at."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    Counted.seen, before = 0, sys.getprofile()
    sys.setprofile(count)
    try:
        parser.parse(Counted(text))
    finally:
        sys.setprofile(before)
    return 10 * calls + Counted.seen


def check(parts: tuple[str, ...], parsers: dict[str, ToolCallParser]) -> None:
    sizes = (20_000, 80_000)
    for (shape, small), (_, large) in zip(*(SLOW.texts(parts, size) for size in sizes), strict=True):
        for name, parser in parsers.items():
            few, many = work(parser, small), work(parser, large)
            # Four times the text is four times the work, but for the marks that every text may cost.
            assert many <= 5 * few + 100_000, (parts, shape, name, few, many)
            assert many <= 60 * sizes[1] + 1_000_000, (parts, shape, name, many)


def tuples(count: int, length: int, seed: int) -> list[tuple[str, ...]]:
    return random.Random(seed).sample(list(itertools.product(SLOW.FRAGMENTS, repeat=length)), count)


@pytest.mark.parametrize("parts", tuples(20, 2, 0) + tuples(10, 3, 1), ids=repr)
def test_work_grows_with_the_text(parts: tuple[str, ...]) -> None:
    made = SLOW.parsers()
    check(parts, {name: made[name] for name in ("strict", "lenient, JSON")})


@pytest.mark.slow
@pytest.mark.parametrize("part", SLOW.FRAGMENTS, ids=repr)
def test_work_grows_with_the_text_for_all_pairs(part: str) -> None:
    made = SLOW.parsers()
    for other in SLOW.FRAGMENTS:
        check((part, other), made)


@pytest.mark.parametrize(
    "broken",
    [
        "<tool_call>\n<function=f>\n", "<tool_call>\n<function=f>\n<parameter=a>\nx\n<parameter=a>\n",
        "<tool_call>\n<function=f>\n<parameter=t>\n[[[</parameter>\n</function>\n</tool_call>\n",
        "<tool_call>\n</tool_call>\n", "<tool_call>\n<function=f>\n<parameter=a>\n", "<tool_call>{}</tool_call>",
        write_tool_call("f", {"t": "no list"}) + "\n", write_tool_call("nobody", {}),
        write_tool_call("f", {"n": "no number"}) + "\n", write_tool_call("f", {"a": "x"}) + "\n</param\n",
        "```" + write_tool_call("f", {"a": "x"}) + "\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("dialect", ["auto", "hermes"])
def test_the_rest_of_a_text_with_thousands_of_problems_is_one_problem(broken: str, dialect: Any) -> None:
    good = write_tool_call("g", {}, "hermes" if dialect == "hermes" else "qwen3.5")
    text = f"{good}\n" + broken * 4000 + good
    for mode in ("strict", "lenient"):
        result = ToolCallParser(TOOLS, mode=mode, dialect=dialect).parse(text)
        assert result.calls == [] or result.calls[0].name == "g"
        assert "".join(segment.source for segment in result.segments) == text
        assert len(result.problems) < 2000  # two of one call at most
        assert result.problems[-1].code == PROBLEM
    stream = ToolCallParser(TOOLS, mode="lenient", dialect=dialect).stream()
    for at in range(0, len(text), 5000):
        stream.feed(text[at : at + 5000])
    assert stream.close() == result


def test_marks_of_code_that_close_nothing_leave_the_rest_as_content() -> None:
    text = "`a\n" * 10_000
    result = ToolCallParser(TOOLS).parse(text)
    assert (result.ok, result.content) == (True, text)
    later = ToolCallParser(TOOLS).parse(text + write_tool_call("g", {}))
    assert [problem.code for problem in later.problems] == [PROBLEM]
    assert later.calls == []


@pytest.mark.parametrize("written", ["\n", ""])
def test_valid_calls_cost_nothing_however_many(written: str) -> None:
    text = (write_tool_call("f", {"a": "x"}).replace("\n", written) + "\n") * 5000
    result = ToolCallParser(TOOLS).parse(text)
    assert (len(result.calls), result.ok) == (5000, True)


@pytest.mark.parametrize("arguments", [{"t": "['x']"}, {"n": "1e2"}, {"n": ""}])
def test_calls_that_lenient_reading_mends_are_not_counted_as_problems(arguments: dict[str, Any]) -> None:
    text = (write_tool_call("f", arguments) + "\n") * 1500
    result = ToolCallParser(TOOLS, mode="lenient").parse(text)
    assert (len(result.calls), result.ok) == (1500, True)


@pytest.mark.parametrize("wrong", [("nobody", {}), ("f", {"n": "x"}), ("f", {"t": "x"})])
def test_what_is_read_ends_where_what_is_reported_ends(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join([*[write_tool_call(*wrong)] * 1500, write_tool_call("f", {"a": "x"})])
    parser = ToolCallParser(TOOLS)
    result = parser.parse(text)
    monkeypatch.setattr(Canonical, "call", lambda self, start: None)
    assert parser.parse(text) == result
    assert len(result.problems) > 500


def test_a_few_hundred_problems_are_all_reported() -> None:
    text = (write_tool_call("f", {"t": "no list"}) + "\n") * 400 + write_tool_call("g", {})
    result = ToolCallParser(TOOLS).parse(text)
    assert len(result.problems) == 400
    assert [call.name for call in result.calls] == ["g"]
