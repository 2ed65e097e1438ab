"""Answers that a spreadsheet or a wrong encoding damaged are named, in every way that a row can go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert
from tests.helpers.rows import rows_of

DAMAGED = {
    "nan": "ANSWER_MISSING_VALUE",
    " NaN. ": "ANSWER_MISSING_VALUE",
    "<NA>": "ANSWER_MISSING_VALUE",
    "#VALUE!": "ANSWER_MISSING_VALUE",
    "jumlah #DIV/0! orang": "ANSWER_MISSING_VALUE",
    "#name?": "ANSWER_MISSING_VALUE",
    "#N/A": "ANSWER_MISSING_VALUE",
    "None": "ANSWER_MISSING_VALUE",
    " N.A. ": "ANSWER_MISSING_VALUE",
    "-": "ANSWER_MISSING_VALUE",
    " \u2013 ": "ANSWER_MISSING_VALUE",
    "...": "ANSWER_MISSING_VALUE",
    "#NAMA?": "ANSWER_MISSING_VALUE",
    "#NILAI!": "ANSWER_MISSING_VALUE",
    "#WERT!": "ANSWER_MISSING_VALUE",
    "#¡VALOR!": "ANSWER_MISSING_VALUE",
    "#ЗНАЧ!": "ANSWER_MISSING_VALUE",
    "#Değer!": "ANSWER_MISSING_VALUE",
    "Skor: #BEZUG!.": "ANSWER_MISSING_VALUE",
    "satu\n#NAMA?\ndua": "ANSWER_MISSING_VALUE",
    "Err:502": "ANSWER_MISSING_VALUE",
    "\\N": "ANSWER_MISSING_VALUE",
    "caf\ufffd": "TEXT_DAMAGED",
    "a\0b": "TEXT_DAMAGED",
}
SOUND = (
    "nanas", "nan bread", "# VALUE", "#hashtag", "banana", "café", "tidak ada", "None of them.", "- satu", "#HIV! naik",
    "ayo #YOK", "#REFORMASI!", "#NAMANYA?", "5", "-1", "a/b", "Kata #AD? itu", "Err: 502", "#N/AB",
)  # fmt: skip


def alpaca(answer: str) -> tuple[str, dict[str, Any]]:
    return "alpaca", {"instruction": "Sapa!", "output": answer}


def turns(answer: str) -> tuple[str, dict[str, Any]]:
    first = [{"role": "user", "content": "Hai"}, {"role": "assistant", "content": answer}]
    last = [{"role": "user", "content": "Lagi"}, {"role": "assistant", "content": "Baik."}]
    return "messages", {"messages": [*first, *last]}


def post(answer: str) -> tuple[str, dict[str, Any]]:
    return "dfk_text", {"input": "Klaim", "output": f"Label: **Fitnah.** penjelasan: {answer}", "_label": ""}


@pytest.mark.parametrize("to", ["messages", "swift"])
@pytest.mark.parametrize("make", [alpaca, turns, post])
@pytest.mark.parametrize("answer", [*DAMAGED, *SOUND])
def test_a_damaged_answer_is_a_named_warning_and_a_sound_one_is_none(
    answer: str, make: Any, to: str, tmp_path: Path
) -> None:
    format, row = make(answer)
    done = convert(
        [row], tmp_path / "out", format=format, to=to, validation=0, rules={"SIZE_RECOMMENDED": "off"}
    )
    wanted = {DAMAGED[answer]: 1} if answer in DAMAGED else {}
    assert {code: entry["count"] for code, entry in done.warnings.items()} == wanted
    assert len(rows_of(tmp_path / "out", "train")) == done.rows["out"] == 1


def test_the_policy_can_quarantine_it(tmp_path: Path) -> None:
    rows = [alpaca("nan")[1], alpaca("Halo")[1]]
    rules = {"ANSWER_MISSING_VALUE": "quarantine"}
    done = convert(rows, tmp_path / "out", format="alpaca", validation=0, rules=rules)
    assert list(done.codes) == ["ANSWER_MISSING_VALUE"] and done.rows["out"] == 1


def test_classes_and_tool_arguments_may_be_called_none(tmp_path: Path) -> None:
    function = {"name": "cari", "arguments": {"saring": "none", "urut": "-", "kata": "nan"}}
    tool = {"type": "function", "function": {"name": "cari", "parameters": {"type": "object"}}}
    called = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
    row = {"messages": [{"role": "user", "content": "Cari!"}, called], "tools": [tool]}
    done = convert([row], tmp_path / "call", format="messages", validation=0)
    assert {code: entry["count"] for code, entry in done.warnings.items()} == {"ANSWER_MISSING_VALUE": 1}
    assert done.warnings["ANSWER_MISSING_VALUE"]["first"]["path"].endswith("arguments.kata")
    labels = {"None": "netral"}
    post = {"input": "Klaim", "output": "Label: **None.** penjelasan: Benar.", "_label": "None"}
    done = convert([post], tmp_path / "label", format="dfk_text", validation=0, labels=labels)
    assert done.rows["out"] == 1 and not done.warnings
