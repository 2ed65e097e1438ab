"""Cases of the conformance table's kinds, made at random from another side: tools, names, types, nesting,
framings, contexts and faults that the table does not hold, each with the answer that its making gives."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from dfkeval.parsing.toolcall import ParseResult, ToolCallParser, write_tool_call
from dfkeval.testing.conformance import pieces

NAMES = ("get.weather", "a-b", "ns/tool", "f", "wetter_heute", "ask:me", "日本")
KEYS = ("city", "x-y", "a.b", "n:1", "größe", "k", "zip code", "$id", "a=b")
WORDS = (
    "Lyon",
    "a b",
    " edge ",
    "é",
    "x < y",
    "1",
    "true",
    "[1]",
    "</p>",
    "two\nlines",
    'say "hi"',
    "&amp;",
    "\u00a0",
)
TREE = {
    "type": "object",
    "properties": {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
    "required": ["v"],
    "additionalProperties": False,
}

Made = tuple[dict[str, Any], Any, Any]
"""(schema, a value that fits, a value that does not)."""


def _tree(rng: random.Random, depth: int) -> dict[str, Any]:
    kids = [_tree(rng, depth - 1) for _ in range(rng.randint(0, 2))] if depth else []
    return {"v": rng.randint(-9, 9), **({"kids": kids} if kids else {})}


def _slot(rng: random.Random) -> Made:
    big = rng.choice((0, -1, 7, 2**53 + 1, -(10**40)))
    half = rng.choice((0.5, -2.25, 1e-7, 1e300, 3.0))
    word = rng.choice(WORDS)
    words = [rng.choice(WORDS) for _ in range(rng.randint(0, 3))]
    made: list[Made] = [
        ({"type": "string"}, word, None),
        ({"type": "string", "minLength": 1, "maxLength": 40}, word, "y" * 41),
        ({"type": "integer"}, big, "1.5"),
        ({"type": "integer", "minimum": 0, "maximum": 9}, 4, "10"),
        ({"type": "number"}, half, "1e999"),
        ({"type": "boolean"}, rng.random() < 0.5, "yes"),
        ({"enum": ["C", "F", 3, None]}, rng.choice(("C", "F", 3)), "K"),
        ({"const": "only"}, "only", "other"),
        ({"type": "array", "items": {"type": "string"}}, words, [1]),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "minItems": 1}, [1, 2], [2, 2]),
        ({"type": ["integer", "null"]}, rng.choice((None, 5)), "x"),
        ({"anyOf": [{"type": "boolean"}, {"type": "array"}]}, rng.choice((True, [1])), "2"),
        ({"oneOf": [{"type": "integer", "maximum": 3}, {"type": "integer", "minimum": 2}]}, 1, "2"),
        ({"allOf": [{"type": "integer"}, {"multipleOf": 5}]}, 15, "16"),
        ({"type": "integer", "nullable": True}, None, "x"),
        ({"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"a": 1, "b": [None]}, {"b": 1}),
        ({"$ref": "#/$defs/tree"}, _tree(rng, 4), {"v": 1, "kids": [{"v": "1"}]}),
        ({"type": "object", "additionalProperties": {"type": "number"}}, {"q": 1.5}, {"q": "1.5"}),
    ]
    return rng.choice(made)


class Situation:
    """One tool and one call of it that fits, with the choices made by `rng`."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.name = rng.choice(NAMES)
        keys = rng.sample(KEYS, rng.randint(1, 5))
        self.slots = {key: _slot(rng) for key in keys}
        self.required = [key for key in keys if rng.random() < 0.5]
        self.closed = rng.random() < 0.5
        given = [key for key in keys if key in self.required or rng.random() < 0.7]
        rng.shuffle(given)
        self.arguments = {key: self.slots[key][1] for key in given}
        self.dialect = rng.choice(("qwen3.5", "qwen3.6", "qwen3.8"))

    @property
    def tools(self) -> list[dict[str, Any]]:
        properties = {key: schema for key, (schema, _, _) in self.slots.items()}
        parameters = {
            "type": "object",
            "properties": properties,
            "required": self.required,
            "$defs": {"tree": TREE},
        }
        if self.closed:
            parameters["additionalProperties"] = False
        return [{"type": "function", "function": {"name": self.name, "parameters": parameters}}]

    def text(self) -> str:
        """The call as the template or as a grammar-bound engine writes it."""
        if self.rng.random() < 0.6:
            return write_tool_call(self.name, self.arguments, self.dialect)
        blank = self.rng.choice(("", "\n", " \n\t"))
        body = blank.join(
            f"<parameter={key}>{_spelled(value)}</parameter>" for key, value in self.arguments.items()
        )
        return f"<tool_call>\n<function={self.name}>\n{body}{blank}\n</function>\n</tool_call>"

    def parser(self, **options: Any) -> ToolCallParser:
        return ToolCallParser(self.tools, dialect=self.rng.choice(("auto", self.dialect)), **options)


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _same(a: Any, b: Any) -> bool:
    return json.dumps(a) == json.dumps(b) and a == b


def _calls(result: ParseResult) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, call.arguments) for call in result.calls]


def _situations(count: int, seed: int) -> list[Situation]:
    return [Situation(random.Random(f"{seed} {number}")) for number in range(count)]


FENCED = "```\n<tool_call>\n<function=f>\n</function>\n</tool_call>\n```\n"
CONTEXTS = (
    ("", "", "", ""),
    ("Sure.\n\n", "", "Sure.\n\n", ""),
    ("", "\nDone.", "\nDone.", ""),
    ("<think>\nwhy\n</think>\n\n", "", "", "why"),
    ("why\n</think>\n\nOk.\n\n", "<|im_end|>", "Ok.\n\n", "why"),
    ("<think>\n\n</think>\n\n", "\n", "", ""),
    (FENCED, "", FENCED, ""),
    ("See `<tool_call>`, ``a`b`` and `x`.\n", "", "See `<tool_call>`, ``a`b`` and `x`.\n", ""),
)  # fmt: skip


@pytest.mark.parametrize("mode", ["strict", "lenient"])
def test_a_call_that_fits_is_read_exactly_in_every_framing_context_and_cut(mode):
    for number, made in enumerate(_situations(500, 1)):
        before, behind, content, reasoning = CONTEXTS[number % len(CONTEXTS)]
        text = before + made.text() + behind
        parser = made.parser(mode=mode, prefill="think" if before.startswith("why") else "none")
        result = parser.parse(text)
        assert result.ok, (text, made.tools, result.problems)
        [call] = result.calls
        assert call.name == made.name, text
        assert _same(call.arguments, made.arguments), text
        assert (call.repairs, result.content, result.reasoning) == ((), content, reasoning), text
        stream = parser.stream()
        for piece in pieces(text, "random", number):
            stream.feed(piece)
        assert stream.close() == result


def test_python_repr_and_hermes_calls_are_read_back_in_their_dialects():
    for made in _situations(300, 2):
        for dialect in ("qwen3-coder-2507", "hermes"):
            text = write_tool_call(made.name, made.arguments, dialect)
            result = ToolCallParser(made.tools, dialect=dialect).parse(text)
            assert [name for name, _ in _calls(result)] == [made.name], (text, result.problems)
            assert _same(result.calls[0].arguments, made.arguments), text


def test_a_value_that_does_not_fit_is_invalid_with_its_pointer_and_span():
    tried = 0
    for made in _situations(500, 3):
        wrong = [key for key in made.arguments if made.slots[key][2] is not None]
        if not wrong:
            continue
        tried += 1
        key = made.rng.choice(wrong)
        text = write_tool_call(made.name, {**made.arguments, key: made.slots[key][2]}, made.dialect)
        for mode in ("strict", "lenient"):
            result = made.parser(mode=mode).parse(text)
            assert result.calls == [], (text, made.slots[key])
            [problem] = result.problems
            pointer = "/" + key.replace("~", "~0").replace("/", "~1")
            assert (problem.json_pointer or "").startswith(pointer), (text, problem)
            assert text[slice(*problem.span)] == _printed(made, key), (text, problem)
            assert problem.status == "invalid"
    assert tried > 300


def _printed(made: Situation, key: str) -> str:
    return _spelled(made.slots[key][2])


def test_what_is_missing_unknown_or_forbidden_is_invalid_and_the_neighbours_stay():
    for made in _situations(300, 4):
        good = made.text()
        faults = [("unknown_function", write_tool_call("nobody", made.arguments))]
        if made.required:
            left = {key: value for key, value in made.arguments.items() if key != made.required[0]}
            faults.append(("required", write_tool_call(made.name, left, made.dialect)))
        if made.closed:
            last = {**made.arguments, "k9": "v"}
            faults.append(("additionalProperties", write_tool_call(made.name, last, made.dialect)))
        for code, bad in faults:
            result = made.parser(mode="lenient").parse(f"{good}\n{bad}\n{good}")
            assert _calls(result) == [(made.name, made.arguments)] * 2, (bad, result.problems)
            assert [(p.status, p.code) for p in result.problems] == [("invalid", code)]


def test_a_call_that_is_cut_anywhere_is_truncated_and_the_call_before_it_stays():
    for made in _situations(150, 5):
        first, second = made.text(), made.text()
        for at in made.rng.sample(range(len("<tool_call>\n<f"), len(second)), 4):
            for mode in ("strict", "lenient"):
                result = made.parser(mode=mode, finished=False).parse(f"{first}\n{second[:at]}")
                assert _calls(result) == [(made.name, made.arguments)], second[:at]
                assert [p.status for p in result.problems] == ["truncated"], (second[:at], result.problems)


def test_a_rehearsed_or_quoted_call_is_no_call():
    for number, made in enumerate(_situations(200, 6)):
        call = made.text()
        around = ("<think>\n{}\nno\n</think>\n\nok", "```xml\n{}\n```\nok", "~~~~\n{}\n~~~~", "`{}`")
        text = around[number % 4].replace("{}", call)
        result = made.parser(mode="lenient").parse(text)
        assert (result.calls, result.problems) == ([], []), text
