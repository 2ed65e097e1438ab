"""Loss flags of turns: every trainer's spelling means one weight, which every layout keeps or refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert
from dfkdata.common import plugins
from dfkdata.common.errors import DataError
from dfkdata.rows.loss_weight import turn_weight
from dfkdata.rows.messages import check_row
from dfkdata.rows.record import RowError

SPELLINGS: list[tuple[dict[str, Any], float]] = [
    ({"weight": 0}, 0),
    ({"weight": 0.0}, 0),
    ({"weight": 1}, 1),
    ({"weight": 0.25}, 0.25),
    ({"weight": 3}, 3),
    ({"loss": False}, 0),
    ({"loss": True}, 1),
    ({"loss": 0}, 0),
    ({"loss_scale": 0.5}, 0.5),
    ({"loss": True, "loss_scale": 2.0}, 2.0),
    ({"loss": False, "loss_scale": 0}, 0),
    ({"loss_weight": 0}, 0),
    ({"loss_weight": 1.5}, 1.5),
    ({"train": False}, 0),
    ({"train": True}, 1),
    ({"training": False}, 0),
    ({"trainable": False}, 0),
    ({"trainable": True, "loss_scale": 0.5}, 0.5),
    ({"train": False, "weight": None}, 0),
]
WRONG: list[dict[str, Any]] = [
    {"weight": -1},
    {"weight": "0"},
    {"weight": float("nan")},
    {"weight": float("inf")},
    {"weight": [0]},
    {"loss": "false"},
    {"loss": 0.5},
    {"train": "no"},
    {"train_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}]},
    {"masked": True},
    {"loss_mask": 0},
    {"loss_mask": [0, 1]},
    {"trainable": "no"},
    {"trainable": True, "weight": 0},
    {"loss": True, "weight": 0},
    {"loss": False, "loss_scale": 2.0},
    {"loss": False, "train": True},
    {"weight": 2, "loss_weight": 3},
]
LAYOUTS = ("messages", "prompt_completion", "swift", "sharegpt", "openai")


def row(flag: dict[str, Any], layout: str) -> dict[str, Any]:
    """Two questions with two answers, the first of which carries the flag."""
    texts = [("user", "satu?"), ("assistant", "BURUK"), ("user", "dua?"), ("assistant", "baik")]
    if layout == "sharegpt":
        names = {"user": "human", "assistant": "gpt"}
        turns: list[dict[str, Any]] = [{"from": names[role], "value": text} for role, text in texts]
    else:
        turns = [{"role": role, "content": text} for role, text in texts]
    turns[1] |= flag
    return {"conversations" if layout == "sharegpt" else "messages": turns}


def converted(
    rows: list[dict[str, Any]], folder: Path, layout: str, to: str
) -> tuple[list[Any], list[dict[str, Any]]]:
    convert(rows, folder, format=layout, to=to, validation=0.0, max_rejects=1)
    return tuple(
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "quarantine")
    )  # type: ignore[return-value]


@pytest.mark.parametrize("layout", ["messages", "swift", "openai", "sharegpt"])
@pytest.mark.parametrize(("flag", "weight"), SPELLINGS, ids=str)
def test_every_spelling_in_every_format_is_one_weight(
    flag: dict[str, Any], weight: float, layout: str, tmp_path: Path
) -> None:
    rows, rejects = converted([row(flag, layout)], tmp_path / "o", layout, "messages")
    assert rejects == []
    turn = rows[0]["messages"][1]
    assert turn["weight"] == weight
    assert set(turn) == {"role", "content", "weight"}


@pytest.mark.parametrize("layout", ["messages", "swift", "openai", "sharegpt"])
@pytest.mark.parametrize("flag", WRONG, ids=str)
def test_a_flag_that_cannot_be_honoured_is_refused_by_name(
    flag: dict[str, Any], layout: str, tmp_path: Path
) -> None:
    _, rejects = converted([row(flag, layout)], tmp_path / "o", layout, "messages")
    assert [reject["code"] for reject in rejects] == ["LOSS_FLAG"]
    assert rejects[0]["path"].startswith("messages.1")


ROW_FLAGS = [
    ({"weight": 0}, True),
    ({"weight": 0.5, "loss": False}, True),
    ({"loss": 0.73}, True),
    ({"loss_mask": 0}, True),
    ({"trainable": False}, True),
    ({"loss_scale": float("nan"), "loss": True, "weight": 1}, False),
    ({"weight": "3 kg", "loss": None, "train": False}, False),
    ({"loss_mask": [0, 0, 0, 1]}, True),
    ({"loss": [False, True]}, True),
    ({"weight": ["1", None, "0.5"]}, True),
    ({"loss_mask": [1, True, None], "loss": ["a", 0], "weight": [], "loss_scale": [[0]]}, False),
    ({"weight": "0"}, True),
    ({"loss": " False "}, True),
    ({"trainable": "TRUE", "weight": "1.0", "loss": "", "loss_scale": "nan"}, False),
]


@pytest.mark.parametrize("layout", ["messages", "swift", "openai", "sharegpt"])
@pytest.mark.parametrize(("flags", "is_refused"), ROW_FLAGS, ids=str)
def test_a_flag_of_a_whole_row_is_refused_by_name(
    flags: dict[str, Any], is_refused: bool, layout: str, tmp_path: Path
) -> None:
    rows, rejects = converted([row({}, layout) | flags], tmp_path / "o", layout, "messages")
    assert len(rows) == (not is_refused)
    assert all(reject["code"] == "LOSS_FLAG" and reject["path"] in flags for reject in rejects)
    how: dict[str, Any] = {"rules": {"LOSS_FLAG": "warn"}, "validation": 0}
    passed = convert([row({}, layout) | flags], tmp_path / "w", format=layout, **how)
    assert passed.rows["out"] == 1 and ("LOSS_FLAG" in passed.warnings) == is_refused
    hand_made = {"id": "r", "messages": row({}, "messages")["messages"]} | flags
    if is_refused:
        with pytest.raises(DataError, match=r"row r: .* of the whole row names no turn"):
            check_row(hand_made)
    else:
        check_row(hand_made)


@pytest.mark.parametrize("flag", ["0", "false", "0.5", "1", "true", "3 kg", ""])
@pytest.mark.parametrize(
    ("layout", "columns"),
    [
        ("prompt_completion", "prompt,completion"),
        ("query_response", "query,response"),
        ("alpaca", "instruction,output"),
    ],
)
def test_a_flag_in_a_table_is_refused_by_name(layout: str, columns: str, flag: str, tmp_path: Path) -> None:
    """Cells of CSV files are texts."""
    (tmp_path / "rows.csv").write_text(f"{columns},loss\nApa?,Ini.,{flag}\n")
    done = convert(
        tmp_path / "rows.csv", tmp_path / "o", format=layout, validation=0, max_rejects=1, keep_empty=True
    )
    refused = flag in ("0", "false", "0.5")
    assert done.rows["out"] == (not refused)
    assert ('"LOSS_FLAG"' in (tmp_path / "o/quarantine.jsonl").read_text()) == refused


@pytest.mark.parametrize("to", LAYOUTS)
@pytest.mark.parametrize("weight", [0, 1, 0.5, 2])
def test_a_layout_keeps_a_weight_or_says_that_it_cannot(weight: float, to: str, tmp_path: Path) -> None:
    canonical = converted([row({"weight": weight}, "messages")], tmp_path / "m", "messages", "messages")[0][0]
    rows, rejects = converted([row({"weight": weight}, "messages")], tmp_path / "o", "messages", to)
    export = plugins.load("dfkdata.exports", to)
    if rows:
        turns = export.inverse(rows[0])["messages"]
        assert turns == canonical["messages"]
    else:
        assert [reject["code"] for reject in rejects] == ["LAYOUT_CANNOT"]
        assert "weight" in rejects[0]["reason"] + rejects[0]["path"]
    kept = {"messages", "prompt_completion", "swift"} | ({"openai"} if weight in (0, 1) else set())
    assert bool(rows) == (to in kept or weight == 1)


def test_each_layout_spells_the_weight_as_its_trainer_reads_it(tmp_path: Path) -> None:
    def turn(weight: float, to: str) -> dict[str, Any]:
        rows, _ = converted([row({"weight": weight}, "messages")], tmp_path / f"{to}{weight}", "messages", to)
        return dict(rows[0]["messages"][1])

    assert turn(0, "swift") == {"role": "assistant", "content": "BURUK", "loss": False}
    assert turn(0.5, "swift") == {"role": "assistant", "content": "BURUK", "loss_scale": 0.5}
    assert turn(0, "openai") == {"role": "assistant", "content": "BURUK", "weight": 0}


def test_a_completion_of_another_weight_than_1_is_refused(tmp_path: Path) -> None:
    raw = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}
    rows, rejects = converted([raw], tmp_path / "o", "messages", "prompt_completion")
    assert (rows, [reject["code"] for reject in rejects]) == ([], ["LAYOUT_CANNOT"])


@pytest.mark.parametrize("policy", ["quarantine", "warn"])
def test_a_question_that_asks_to_be_trained_on_is_named(policy: Any, tmp_path: Path) -> None:
    raw = row({}, "messages")
    raw["messages"][0]["train"] = True
    raw["messages"][2]["weight"] = 0  # says what is so anyway
    rules = {"LOSS_FLAG": policy}
    result = convert([raw], tmp_path / "o", format="messages", validation=0.0, max_rejects=1, rules=rules)
    assert ("LOSS_FLAG" in result.warnings) == (policy == "warn")
    assert ("LOSS_FLAG" in (tmp_path / "o/quarantine.jsonl").read_text()) == (policy == "quarantine")
    written = (tmp_path / "o/train.jsonl").read_text()
    assert "train" not in written and "weight" not in written
    assert bool(written) == (policy == "warn")


@pytest.mark.parametrize("flags", [({}, {}), ({"loss": False}, {"loss": False}), ({}, {"loss": True})])
def test_a_call_and_the_text_before_it_are_one_turn_of_one_weight(flags: Any, tmp_path: Path) -> None:
    tool = {"name": "f", "parameters": {"type": "object", "properties": {}}}
    call = {"role": "tool_call", "content": '{"name": "f", "arguments": {}}'}
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"} | flags[0],
        call | flags[1],
    ]
    rows, rejects = converted([{"messages": turns, "tools": [tool]}], tmp_path / "o", "swift", "swift")
    assert rejects == []
    assert [turn.get("loss", True) for turn in rows[0]["messages"][1:]] == [flags[0].get("loss", True)] * 2
    turns[1]["loss"], turns[2]["loss"] = True, False
    _, rejects = converted([{"messages": turns, "tools": [tool]}], tmp_path / "p", "swift", "swift")
    assert [reject["code"] for reject in rejects] == ["LOSS_FLAG"]


def test_a_turn_without_a_flag_has_no_weight() -> None:
    assert turn_weight({"role": "assistant", "content": "", "weight": None}, "messages.0") is None
    with pytest.raises(RowError):
        turn_weight({"role": "assistant", "train_detail": [1]}, "messages.0")


LAST = [
    ("messages", "weight", 0),
    ("swift", "loss", False),
    ("openai", "weight", 0),
    ("sharegpt", "train", False),
]


@pytest.mark.parametrize(("format", "key", "off"), LAST)
@pytest.mark.parametrize("pattern", ["10", "01", "00", "11", "0", "1"])
def test_a_last_answer_without_loss_is_told(
    format: str, key: str, off: Any, pattern: str, tmp_path: Path
) -> None:
    turns: list[dict[str, Any]] = []
    for number, mark in enumerate(pattern):
        flag = {key: off} if mark == "0" else {}
        if format == "sharegpt":
            turns += [{"from": "human", "value": f"a{number}"}, {"from": "gpt", "value": f"b{number}"} | flag]
        else:
            turns += [{"role": "user", "content": f"a{number}"}]
            turns += [{"role": "assistant", "content": f"b{number}"} | flag]
    column = "conversations" if format == "sharegpt" else "messages"
    done = convert([{column: turns}], tmp_path / "o", format=format, validation=0)
    assert ([*done.warnings] == ["LOSS_LAST"]) == (pattern[-1] == "0")
    if "LOSS_LAST" in done.warnings:
        hint = done.warnings["LOSS_LAST"]["first"]["hint"]
        assert ("turns: all" in hint) == ("1" in pattern)
    rules: Any = {"LOSS_LAST": "quarantine"}
    done = convert(
        [{column: turns}], tmp_path / "q", format=format, validation=0, rules=rules, keep_empty=True
    )
    assert done.rows["quarantined"] == (pattern[-1] == "0")
