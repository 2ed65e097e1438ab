"""Reasoning of assistant turns: every spelling is one key, which every layout keeps or refuses; so are options
of the chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert, load_rows
from dfkdata.common import plugins
from dfkdata.rows.huggingface import to_dataset
from tests.helpers.rows import rows_of

SPELLINGS: list[dict[str, Any]] = [
    {"content": "Empat.", "reasoning_content": "renung"},
    {"content": "Empat.", "reasoning": "renung"},
    {"content": "Empat.", "thinking": " renung\n"},
    {"content": "<think>\nrenung\n</think>\n\nEmpat."},
    {"content": "<think>renung</think>Empat."},
    {"content": "\n<think>\n\nrenung\n\n</think>\nEmpat."},
    {"content": "renung\n</think>\n\nEmpat."},
    {"content": "<think>\nrenung\n</think>\n\nEmpat.", "reasoning_content": "renung"},
    {"content": "<think>\n\n</think>\n\nEmpat.", "reasoning": "renung"},
    {"content": [{"type": "text", "text": "<think>renung</think>"}, {"type": "text", "text": "Empat."}]},
    {"content": "Empat.", "reasoning_content": "renung", "reasoning": "renung", "thinking": ""},
]
WRONG: list[dict[str, Any]] = [
    {"content": "Empat.", "reasoning_content": "a", "reasoning": "b"},
    {"content": "<think>a</think>Empat.", "reasoning_content": "b"},
    {"content": "<think>a</think><think>b</think>Empat."},
    {"content": "<think>a"},
    {"content": "Empat. <think>a</think>"},
    {"content": "<think>a</think>Empat.</think>"},
    {"content": "Empat.", "reasoning": ["a"]},
    {"content": "Empat.", "thinking": True},
    {"content": "Empat.", "reasoning_content": "a</think>b"},
]
KEPT = {"messages", "prompt_completion", "swift", "sharegpt"}


def row(answer: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant"} | answer]} | more


def converted(raw: dict[str, Any], folder: Path, to: str = "messages", layout: str = "messages") -> Any:
    convert([raw], folder, format=layout, to=to, validation=0.0, max_rejects=1)
    files = [(folder / f"{name}.jsonl").read_text().splitlines() for name in ("train", "quarantine")]
    return tuple([json.loads(line) for line in lines] for lines in files)


@pytest.mark.parametrize("layout", ["messages", "swift", "openai"])
@pytest.mark.parametrize("answer", SPELLINGS, ids=str)
def test_every_spelling_is_one_key(answer: dict[str, Any], layout: str, tmp_path: Path) -> None:
    rows, rejects = converted(row(answer), tmp_path / "o", layout=layout)
    assert rejects == []
    assert rows[0]["messages"][1] == {
        "role": "assistant",
        "content": [{"type": "text", "text": "Empat."}],
        "reasoning_content": "renung",
    }


@pytest.mark.parametrize("answer", WRONG, ids=str)
def test_reasoning_that_is_not_one_block_is_refused_by_name(answer: dict[str, Any], tmp_path: Path) -> None:
    _, rejects = converted(row(answer), tmp_path / "o")
    assert [reject["code"] for reject in rejects] == ["REASONING"]
    assert rejects[0]["path"].startswith("messages.1")


@pytest.mark.parametrize("text", ["<think>\n\n</think>\n\nEmpat.", "I think > you think>"])
def test_a_block_without_text_is_no_reasoning_and_stays(text: str, tmp_path: Path) -> None:
    rows, _ = converted(row({"content": text}), tmp_path / "o")
    assert rows[0]["messages"][1] == {"role": "assistant", "content": [{"type": "text", "text": text}]}


@pytest.mark.parametrize("to", sorted(KEPT | {"openai"}))
@pytest.mark.parametrize("weight", [{}, {"weight": 1}])
def test_a_layout_keeps_reasoning_or_says_that_it_cannot(
    to: str, weight: dict[str, Any], tmp_path: Path
) -> None:
    raw = row(SPELLINGS[0] | weight)
    canonical = converted(raw, tmp_path / "m")[0][0]
    rows, rejects = converted(raw, tmp_path / "o", to)
    assert bool(rows) == (to in KEPT)
    if rows:
        inverse = plugins.load("dfkdata.exports", to).inverse
        assert inverse(rows[0])["messages"] == canonical["messages"]
    else:
        assert [(reject["code"], reject["path"]) for reject in rejects] == [
            ("LAYOUT_CANNOT", "messages.1.reasoning_content")
        ]


def test_text_layouts_write_one_think_block_before_the_answer(tmp_path: Path) -> None:
    block = "<think>\nrenung\n</think>\n\nEmpat."
    assert converted(row(SPELLINGS[1]), tmp_path / "a", "swift")[0][0]["messages"][1]["content"] == block
    assert (
        converted(row(SPELLINGS[1]), tmp_path / "b", "sharegpt")[0][0]["conversations"][1]["value"] == block
    )


@pytest.mark.parametrize("to", ["messages", "swift", "sharegpt"])
def test_reasoning_before_a_call_is_kept_or_refused(to: str, tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    raw = row({"content": None, "thinking": "renung", "tool_calls": [call]}, tools=[tool])
    canonical = converted(raw, tmp_path / "m")[0][0]
    assert canonical["messages"][1]["reasoning_content"] == "renung"
    rows, rejects = converted(raw, tmp_path / "o", to)
    assert [reject["code"] for reject in rejects] == (["LAYOUT_CANNOT"] if to == "sharegpt" else [])
    if rows:
        assert plugins.load("dfkdata.exports", to).inverse(rows[0])["messages"] == canonical["messages"]


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("to", sorted(KEPT | {"openai"}))
def test_options_of_the_chat_template_survive_or_are_refused(to: str, as_text: bool, tmp_path: Path) -> None:
    options = {"enable_thinking": True, "reasoning_effort": "low"}
    given: Any = json.dumps(options) if as_text else options | {"filled": None}
    rows, rejects = converted(row({"content": "Empat."}, chat_template_kwargs=given), tmp_path / "o", to)
    if to in ("sharegpt", "openai"):
        assert [(one["code"], one["path"]) for one in rejects] == [("LAYOUT_CANNOT", "chat_template_kwargs")]
    else:
        assert rows[0]["chat_template_kwargs"] == options
        layout = "messages" if to == "prompt_completion" else to
        again = plugins.load("dfkdata.exports", to).inverse(rows[0])
        assert again["chat_template_kwargs"] == options
        if layout == to:
            assert converted(rows[0], tmp_path / "p", layout=to)[0][0]["chat_template_kwargs"] == options


def test_rows_that_differ_in_their_options_are_no_duplicates(tmp_path: Path) -> None:
    rows = [
        row({"content": "Empat."}, chat_template_kwargs={"enable_thinking": on}) for on in (True, False, True)
    ]
    rows.append(row({"content": "Empat."}))
    result = convert(rows, tmp_path / "o", format="messages", validation=0.0)
    assert (result.rows["out"], result.rows["duplicates"]) == (3, 1)
    options = [one.get("chat_template_kwargs") for one in load_rows(tmp_path / "o/train.jsonl")]
    assert options == [{"enable_thinking": True}, {"enable_thinking": False}, None]
    assert [one["chat_template_kwargs"] for one in to_dataset(tmp_path / "o/train.jsonl")] == [
        {"enable_thinking": True},
        {"enable_thinking": False},
        {},
    ]


def test_options_that_are_no_object_are_refused(tmp_path: Path) -> None:
    _, rejects = converted(row({"content": "Empat."}, chat_template_kwargs=[1]), tmp_path / "o")
    assert [(one["code"], one["path"]) for one in rejects] == [("NOT_OBJECT", "chat_template_kwargs")]


ASKED = [{"role": "user", "content": "Hai"}]
HUMAN = {"from": "human", "value": "Hai"}


def _columns(turn: dict[str, Any], answer: str) -> dict[str, Any]:
    return {answer if key == "content" else key: value for key, value in turn.items()}


SPOKEN: dict[str, Any] = {
    "messages": lambda turn, row: {"messages": [*ASKED, {"role": "assistant", "content": "Halo."} | turn]} | row,
    "openai": lambda turn, row: {"messages": [*ASKED, {"role": "assistant", "content": "Halo."} | turn]} | row,
    "swift": lambda turn, row: {"messages": [*ASKED, {"role": "assistant", "content": "Halo."} | turn]} | row,
    "sharegpt": lambda turn, row: {"conversations": [HUMAN, {"from": "gpt", "value": "Halo."} | turn]} | row,
    "llava": lambda turn, row: {"conversations": [HUMAN, {"from": "gpt", "value": "Halo."} | turn]} | row,
    "prompt_completion": lambda turn, row: {
        "prompt": ASKED, "completion": [{"role": "assistant", "content": "Halo."} | turn]
    } | row,
    "alpaca": lambda turn, row: {"instruction": "Hai", "output": "Halo."} | _columns(turn, "output") | row,
    "query_response": lambda turn, row: {"query": "Hai", "response": "Halo."} | _columns(turn, "response") | row,
}  # fmt: skip


@pytest.mark.parametrize("name", SPOKEN)
@pytest.mark.parametrize(
    "turn",
    [
        {"reasoning_content": "renung"}, {"reasoning": "renung"}, {"thinking": " renung\n"},
        {"content": "<think>renung</think>Halo."},
        {"content": "<think>\nrenung\n</think>\n\nHalo.", "thinking": "renung"},
    ],
    ids=str,
)  # fmt: skip
def test_every_format_reads_reasoning_in_every_spelling(
    name: str, turn: dict[str, Any], tmp_path: Path
) -> None:
    speaks = name in ("sharegpt", "llava")
    given = {"value" if speaks and key == "content" else key: value for key, value in turn.items()}
    options = {"enable_thinking": True, "reasoning_effort": None}
    row = SPOKEN[name](given, {"chat_template_kwargs": options})
    convert([row], tmp_path / "out", format=name, to="messages", validation=0)
    (found,) = rows_of(tmp_path / "out", "train")
    assert found["messages"][-1] == {
        "role": "assistant", "content": [{"type": "text", "text": "Halo."}], "reasoning_content": "renung",
    }  # fmt: skip
    assert found["chat_template_kwargs"] == {"enable_thinking": True}
    wrong = SPOKEN[name](given | {"reasoning": "lain", "thinking": "renung"}, {})
    summary = convert([wrong], tmp_path / "wrong", format=name, validation=0, max_rejects=1)
    assert list(summary.codes) == ["REASONING"]


def test_reasoning_of_a_call_that_joins_a_text_is_kept_or_refused(tmp_path: Path) -> None:
    call = {"from": "function_call", "value": '{"name": "f", "arguments": {}}'}
    tools = [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    ]

    def read(text: dict[str, Any], made: dict[str, Any], out: str) -> Any:
        turns = [HUMAN, {"from": "gpt", "value": "Halo."} | text, call | made]
        row = {"conversations": turns, "tools": tools}
        return convert([row], tmp_path / out, format="sharegpt", validation=0, max_rejects=1)

    for number, pair in enumerate(
        [({"thinking": "r"}, {}), ({}, {"thinking": "r"}), ({"thinking": "r"},) * 2]
    ):
        read(*pair, str(number))
        (found,) = rows_of(tmp_path / str(number), "train")
        assert found["messages"][-1]["reasoning_content"] == "r"
    assert list(read({"thinking": "r"}, {"thinking": "s"}, "both").codes) == ["REASONING"]


def test_think_tags_of_earlier_answers_of_alpaca_are_their_reasoning(tmp_path: Path) -> None:
    row = {"instruction": "Hai", "output": "Halo.", "history": [["a", "<think>r</think>b"]]}
    convert([row], tmp_path / "out", format="alpaca", validation=0)
    (found,) = rows_of(tmp_path / "out", "train")
    assert [turn.get("reasoning_content") for turn in found["messages"]] == [None, "r", None, None]
