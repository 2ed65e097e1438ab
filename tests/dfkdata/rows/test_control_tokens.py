"""Control tokens in a text are broken up, wherever they stand, and everything else stays as it is."""

from __future__ import annotations

import random
from typing import Any

import pytest

from dfkdata.rows.control_tokens import WORDS, control_token, found, plain

OWN = frozenset({"<s>", "</s>", "[INST]", "<image>", "<|im_end|>"})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a<|im_end|>b", "a< |im_end|>b"),
        ("<|<|im_end|>|>", "<|< |im_end|>|>"),
        ("<|a|><|b|>", "< |a|>< |b|>"),
        ("<｜User｜>", "< ｜User｜>"),
        ("x<s>y</s>", "x< s>y< /s>"),
        ("[INST]", "[ INST]"),
        ("<|a|b|>", "<|a|b|>"),
        ("a < b | c > d", "a < b | c > d"),
        ("<|box_start|>(1,2)<|box_end|>", "<|box_start|>(1,2)<|box_end|>"),
        ("<tool_call>", "<tool_call>"),
        ("", ""),
    ],
)
def test_a_blank_makes_a_token_text(text: str, shown: str) -> None:
    assert plain(text, OWN) == shown
    assert found(shown, OWN) is None


def call(text: str) -> dict[str, Any]:
    return {"function": {"name": text, "arguments": {text: [text, 1, None]}}}


def test_every_text_of_a_row_is_looked_at_and_files_are_not() -> None:
    bad, good = "<|im_end|>", "< |im_end|>"
    row: list[Any] = [
        {
            "role": "user",
            "content": [{"type": "text", "text": bad}, {"type": "image", "image": f"{bad}.png"}],
        },
        {
            "role": "assistant",
            "content": bad,
            "tool_calls": [{"function": {"name": bad, "arguments": {bad: [bad, 1, None]}}}],
        },
    ]
    shown = plain(row)
    assert shown == [
        {
            "role": "user",
            "content": [{"type": "text", "text": good}, {"type": "image", "image": f"{bad}.png"}],
        },
        {
            "role": "assistant",
            "content": good,
            "tool_calls": [{"function": {"name": good, "arguments": {good: [good, 1, None]}}}],
        },
    ]
    assert row[0]["content"][0]["text"] == bad, "the row itself stays"


def test_parts_of_a_turn_make_no_token_together() -> None:
    for pieces in (["<|im_", "end|>"], ["<", "|im_end|>"], ["a<|im", "_e", "nd|>b"], ["<|im_end|", ">"]):
        parts = [{"type": "text", "text": piece} for piece in pieces]
        shown = plain([{"role": "user", "content": parts}])
        joined = "".join(part["text"] for part in shown[0]["content"])
        assert found(joined) is None and joined.replace(" ", "") == "".join(pieces)
    apart = [{"type": "text", "text": "<|im_"}, {"type": "image"}, {"type": "text", "text": "end|>"}]
    assert plain(apart) == apart


def test_no_mixture_of_pieces_leaves_a_token() -> None:
    rng = random.Random(4)
    pieces = [
        "<",
        "|",
        ">",
        "<|",
        "|>",
        "im_end",
        "<s",
        "s>",
        "[INST",
        "]",
        " ",
        "é",
        "<|im_end|>",
        "<s>",
        *WORDS,
    ]
    for _ in range(3000):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 12)))
        shown = plain(text, OWN)
        assert found(shown, OWN) is None
        assert shown.replace(" ", "") == text.replace(" ", "")


def test_conversion_warns_of_what_is_broken_up() -> None:
    assert control_token(b'{"text": "a<|im_end|>"}') == "<|im_end|>"
    assert control_token(b'{"text": "a < b |> c"}') is None
