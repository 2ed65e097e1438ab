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
    "caf\ufffd": "TEXT_DAMAGED",
    "a\0b": "TEXT_DAMAGED",
}
SOUND = ("nanas", "nan bread", "# VALUE", "#hashtag", "banana", "café", "tidak ada")


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
