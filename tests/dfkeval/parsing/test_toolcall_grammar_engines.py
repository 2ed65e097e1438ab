"""What grammar-bound engines can write, the parser reads; and both engines allow the same on our forms.

Strings are drawn token by token from what an engine's mask allows. llguidance is not needed to use the toolkit, so its
tests are skipped without it."""

from __future__ import annotations

import random
import re
from collections import Counter
from functools import cache
from typing import Any

import pytest

from dfkdata import schemas
from dfkeval.evaluation.constraints import constraint
from dfkeval.parsing.decode import Decoded, decode
from dfkeval.parsing.toolcall import ToolCallParser

xgrammar = pytest.importorskip("xgrammar")

PIECES = ["<tool_call>", "</tool_call>", "<function=", "</function>", "<parameter=", "</parameter>", "\\u00e9", "null",
          "true", "None", "True", "1e5", "metric", "\\n", "Label: ", "\n\nAnalisis: ",
          "\nKesimpulan:\nLabel: Netral.", '["', '"]', "```"]  # fmt: skip
VOCABULARY = [chr(code) for code in range(32, 127)] + ["\n", "\t", "\r", "é", "字"] + PIECES
END = len(VOCABULARY)
TYPES: dict[str, Any] = {
    "s": {"type": "string"},
    "n": {"type": "integer"},
    "x": {"type": "number"},
    "b": {"type": "boolean"},
    "e": {"type": "string", "enum": ["metric", "imperial"]},
    "c": {"$ref": "#/$defs/colour"},
    "a": {"type": "array", "items": {"type": "string"}},
    "o": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
          "required": ["k"], "additionalProperties": False},
    "u": {"anyOf": [{"type": "string"}, {"type": "null"}]},
}  # fmt: skip
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "description": "",
            "parameters": {
                "type": "object",
                "properties": TYPES,
                "required": ["s"],
                "additionalProperties": False,
                "$defs": {"colour": {"enum": ["red", "blue"]}},
            },
        },
    }
]
#: Strings that strict reading refuses, since the text itself shows two readings or no double can hold the number.
DOCUMENTED = {
    "parameter_or_text",
    "call_in_text",
    "closer_or_text",
    "crlf_framing",
    "parameter_in_text",
    "not_finite",
}


@cache
def compiled(kind: str, text: str) -> Any:
    info = xgrammar.TokenizerInfo([*VOCABULARY, "<eos>"], stop_token_ids=[END])
    compiler = xgrammar.GrammarCompiler(info)
    if kind == "structural_tag":
        return compiler.compile_structural_tag(text)
    return compiler.compile_grammar(text) if kind == "grammar" else compiler.compile_json_schema(text)


class XGrammar:
    """One string as xgrammar lets it be written."""

    def __init__(self, kind: str, text: str) -> None:
        self.matcher = xgrammar.GrammarMatcher(compiled(kind, text))
        self.mask = xgrammar.allocate_token_bitmask(1, END + 1)

    def allowed(self) -> list[int]:
        self.matcher.fill_next_token_bitmask(self.mask)
        bits = [word & 0xFFFFFFFF for word in self.mask[0].tolist()]
        return [token for token in range(END + 1) if bits[token // 32] >> (token % 32) & 1]

    def take(self, token: int) -> bool:
        return bool(self.matcher.accept_token(token))


def draw(engine: Any, rng: random.Random, length: int = 300) -> list[int] | None:
    """Return the tokens of one string; None if it does not end in time. Pieces and endings are preferred."""
    tokens: list[int] = []
    for _ in range(length):
        allowed = engine.allowed()
        if END in allowed and (len(allowed) == 1 or rng.random() < 0.3):
            return tokens
        allowed = [token for token in allowed if token != END]
        pieces = [token for token in allowed if len(VOCABULARY[token]) > 1]
        tags = [token for token in allowed if VOCABULARY[token].startswith("<")]
        pool = tags if tags and rng.random() < 0.2 else pieces if pieces and rng.random() < 0.5 else allowed
        if not pool:
            return None
        token = rng.choice(pool)
        assert engine.take(token)
        tokens.append(token)
    return None


def text_of(tokens: list[int]) -> str:
    return "".join(VOCABULARY[token] for token in tokens)


def drawn_calls(rng: random.Random, count: int) -> list[str]:
    choice = {"type": "function", "function": {"name": "f"}}
    tag = xgrammar.get_model_structural_tag(
        "qwen_3_5", tools=TOOLS, tool_choice=choice, reasoning="disabled", parallel_tool_calls=False
    ).model_dump_json()
    made: list[str] = []
    while len(made) < count:
        tokens = draw(XGrammar("structural_tag", tag), rng)
        if tokens is not None:
            made.append(text_of(tokens))
    return made


def check_calls(count: int, seed: int) -> Counter[str]:
    strict, lenient = ToolCallParser(TOOLS), ToolCallParser(TOOLS, mode="lenient")
    counts: Counter[str] = Counter()
    for text in drawn_calls(random.Random(seed), count):
        result = strict.parse(text)
        if result.ok:
            assert len(result.calls) == 1, text
            assert lenient.parse(text).calls == result.calls
            counts["read"] += 1
        else:
            assert {problem.code for problem in result.problems} <= DOCUMENTED, (text, result.problems)
            counts["documented"] += 1
    return counts


def test_calls_that_xgrammar_allows_are_read_in_strict() -> None:
    counts = check_calls(120, 0)
    assert counts["read"] >= 110, counts


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_calls_that_xgrammar_allows_are_read_in_strict(seed: int) -> None:
    counts = check_calls(1500, seed)
    assert counts["read"] >= 1470, counts


FORMS = ["dfk_label", "dfk_text", "dfk_explained", "keywords", "answer", "summary"]


@pytest.mark.parametrize("name", FORMS)
def test_answers_that_xgrammar_allows_on_our_forms_are_read_in_strict(name: str) -> None:
    held = constraint(schemas.load(name), "constrained")
    assert held is not None
    rng, read = random.Random(name), 0
    for _ in range(40):
        tokens = draw(XGrammar(held.kind, held.text), rng)
        if tokens is None:
            continue
        result = decode(text_of(tokens), name)
        if not isinstance(result, Decoded):
            assert result.kind in ("ambiguous", "bad_json", "empty"), (text_of(tokens), result)
            continue
        read += 1
    assert read >= 5


# --- two engines -------------------------------------------------------------------------------------------


#: Escapes that JSON allows and llguidance never writes.
UNNEEDED = re.compile(r"\\(?:u|/)")


class _Tokens:
    """The vocabulary as llguidance asks for it."""

    eos_token_id = END
    bos_token_id = None
    special_token_ids = (END,)
    tokens = (*(token.encode() for token in VOCABULARY), b"<eos>")

    def __call__(self, text: str | bytes) -> list[int]:
        return [VOCABULARY.index(sign) for sign in (text.decode() if isinstance(text, bytes) else text)]


class Guidance:
    """One string as llguidance lets it be written."""

    def __init__(self, kind: str, text: str) -> None:
        import llguidance
        from llguidance.gbnf_to_lark import any_to_lark

        if kind == "grammar":
            grammar = llguidance.LLMatcher.grammar_from_lark(any_to_lark(text))
        else:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                text, overrides={"whitespace_flexible": True}
            )
        tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Tokens()))
        self.matcher = llguidance.LLMatcher(tokenizer, grammar)
        assert not self.matcher.get_error(), self.matcher.get_error()

    def allowed(self) -> list[int]:
        if self.matcher.is_stopped():
            return [END]
        return [token for token, bias in enumerate(self.matcher.compute_logit_bias()) if bias]

    def take(self, token: int) -> bool:
        return bool(self.matcher.consume_token(token))


def accepts(engine: Any, text: str) -> bool:
    """Return whether the engine lets `text` be written, sign by sign, and end there."""
    for sign in text:
        if VOCABULARY.index(sign) not in engine.allowed():
            return False
        engine.take(VOCABULARY.index(sign))
    return END in engine.allowed()


@pytest.mark.parametrize("name", FORMS)
def test_two_engines_allow_the_same_strings_on_our_forms(name: str) -> None:
    pytest.importorskip("llguidance")
    held = constraint(schemas.load(name), "constrained")
    assert held is not None
    rng, tried = random.Random(name), 0
    for own, other in ((XGrammar, Guidance), (Guidance, XGrammar)):
        for _ in range(25):
            tokens = draw(own(held.kind, held.text), rng, 120)
            if tokens is None or not isinstance(decode(text_of(tokens), name), Decoded):
                continue
            if own is XGrammar and UNNEEDED.search(text_of(tokens)):
                continue
            tried += 1
            assert accepts(other(held.kind, held.text), text_of(tokens)), (own.__name__, text_of(tokens))
    assert tried >= 10
