"""Patterns mean what they mean in ECMA-262, as a JavaScript engine says, or are refused by name."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from typing import Any

import pytest

from dfkdata.common.json_schema import SchemaDocument, SchemaError, schema_validator
from dfkdata.common.json_schema._patterns import PatternError, translated
from tests.helpers.ecma_patterns import GOLDEN, TEXTS, drawn, usual, verdicts

#: Read although JavaScript (as it was then) refuses it: a group with a flag of its own is ECMA-262 of 2025.
NEWER = ("(?i:",)
DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def compared(pattern: str, verdict: Any, more: dict[str, Any]) -> str:
    """Whether a pattern is read as JavaScript reads it."""
    try:
        validator = schema_validator({**more, "pattern": pattern})
    except SchemaError as error:
        assert "/pattern: the pattern" in str(error) or 'is not a "regex"' in str(error), str(error)
        return "refused" if verdict is None else f"refused, read with {verdict[0]!r}"
    if verdict is None:
        assert any(part in pattern for part in NEWER), pattern
        return "newer"
    flags, bits = verdict[0], int(verdict[1], 16)
    for at, text in enumerate(TEXTS):
        if max(text, default="") > "\uffff" and (not flags or "\\B" in pattern):
            continue  # JavaScript looks into the two halves of a character there
        assert validator.is_valid(text) == bool(bits >> at & 1), (pattern, text)
    return f"read with {flags!r}"


@pytest.mark.parametrize("draft", [{}, {"$schema": DRAFT_7}], ids=["2020-12", "draft 7"])
def test_usual_patterns_are_read_as_by_javascript(draft: dict[str, Any]) -> None:
    lines = GOLDEN.read_text(encoding="utf-8").splitlines()[1:]
    table = [json.loads(line) for line in lines]
    assert [pattern for pattern, _ in table] == usual()
    counts = Counter(compared(pattern, verdict, draft) for pattern, verdict in table)
    assert counts["read with 'u'"] > 350
    assert counts["read with ''"] > 20
    assert (
        counts["refused, read with 'u'"] <= 8
    )  # back references to what need not have matched, and a huge count
    assert counts["newer"] == 1


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("seed", range(3))
def test_drawn_patterns_are_read_as_by_javascript(seed: int) -> None:
    patterns = drawn(seed, 500)
    answers = verdicts(patterns, str(shutil.which("node")))
    counts = Counter(compared(*pair, {}) for pair in zip(patterns, answers, strict=True))
    assert counts["read with 'u'"] > 250
    assert counts["refused, read with 'u'"] < 5


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (r"\Aab\Z", r"\\A is no escape"), (r"a\hb", r"\\h is no escape"), ("(?>a)", r"\(\?> begins no group"),
        ("(?#a)b", r"\(\?# begins no group"), ("a++", "nothing to repeat"), ("(?P=n)", r"written \\k<name>"),
        ("(a", "not closed"),
        ("[a", "not closed"), ("a)", "not open"), ("[z-a]", "out of order"), ("a{3,1}", "out of order"),
        ("\\", "a backslash ends it"),
        (r"(a)?\1", "need not have matched"), (r"\1(a)", "does not end before it"), (r"\k<n>", "no group before it"),
        (r"\pL", "without a property in braces"), (r"\p{Klingon}", "no property of Unicode"),
        ("(?<n>a)(?<n>b)", "two groups"),
        (r"\p{L}{", "has a meaning only where"), (r"\u{41}\<", "has a meaning only where"), ("(?<1>a)", "is no name"),
    ],
)  # fmt: skip
def test_what_has_no_equal_is_refused_by_name(pattern: str, reason: str) -> None:
    for schema in ({"pattern": pattern}, {"patternProperties": {pattern: True}}):
        with pytest.raises(SchemaError, match=reason):
            SchemaDocument({"properties": {"a": schema}})


def test_spellings_of_other_languages_with_one_meaning_are_read() -> None:
    assert schema_validator({"pattern": "(?i)^ab$"}).is_valid("AB")
    assert schema_validator({"pattern": "^(?P<n>a+)b$"}).is_valid("aab")
    assert schema_validator({"pattern": r"^(?<n>a|b)\k<n>$"}).is_valid("bb")


def test_two_patterns_of_one_meaning_stay_two() -> None:
    validator = schema_validator({"patternProperties": {r"^\d$": {"minimum": 2}, "^[0-9]$": {"maximum": 5}}})
    assert [validator.is_valid({"3": value}) for value in (1, 3, 9)] == [False, True, False]


def test_patterns_without_looks_take_linear_time_and_others_give_up_by_name() -> None:
    hard = schema_validator({"pattern": r"^(\w+\b\s?)*$"})
    assert hard.is_valid("ab " * 20_000)
    assert not hard.is_valid("a" * 50_000 + "!")
    given_up = schema_validator({"pattern": r"^(?:(?=a)(a|aa))+b|a+!$"}).issues("a" * 40 + "!")
    assert [issue.message.partition(" on ")[0] for issue in given_up] == [
        "the pattern of the schema takes too long"
    ]


@pytest.mark.parametrize("count", [20, 22, 30, 100])
@pytest.mark.parametrize(
    "shape",
    [
        "((a{{1,{n}}}){{1,{n}}}){{1,{n}}}",
        "(?:b?(a{{{n}}}c|d){{{n}}}e*){{{n},}}",
        "((((a{{0,{n}}})?)+x){{{n}}}){{{n}}}",
    ],
)
def test_counts_within_counts_are_read_up_to_a_limit(count: int, shape: str) -> None:
    """The engine's time is linear in the text, times the turns that counts within counts multiply to."""
    pattern = shape.format(n=count)
    if count**3 > 10_000:
        with pytest.raises(PatternError, match="counts within counts"):
            translated(pattern, looks=False)
    else:
        assert translated(pattern, looks=False)


@pytest.mark.parametrize(
    "pattern", [".{1,65535}", "(?:a|b){60000}", r"([a-z0-9]{1,63}\.){1,127}", "a{900}b{900}(c{900})"]
)
def test_counts_beside_each_other_do_not_multiply(pattern: str) -> None:
    assert translated(pattern, looks=False)
