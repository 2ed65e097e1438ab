"""Names, paths and answers that would steer a terminal are planted wherever a command takes one, and every command that
shows them shows text."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from dfkdata.cli import app as dfkdata
from dfkeval.cli import app as dfkeval
from dfktrain.cli import app as dfktrain
from tests.helpers.runs import DFK, gold_answers, row_of, write_answers

EVIL = "\x1b[2J\x1b]0;x\x07\x9b31m\u202e\r\x08"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
MAINS = {"dfkdata": dfkdata.main, "dfkeval": dfkeval.main, "dfktrain": dfktrain.main}


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A folder with a hostile name, with rows, answers, labels and columns that are hostile too."""
    folder = tmp_path / f"in{EVIL}"
    folder.mkdir()
    rows = [row_of(at, DFK) for at in range(6)]
    answers = gold_answers(DFK, 6)
    for at, row in enumerate(rows):
        row["id"] = f"{row['id']}{EVIL}"
        row["meta"]["group"] = f"g{at}{EVIL}"
    said = [
        f"{answers[0][1]}{EVIL}",
        EVIL,
        f"Label: {EVIL}\n\nAnalisis: {EVIL}",
        *(text for _, text in answers[3:]),
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, texts in (("a", said), ("b", [text for _, text in answers])):
        write_answers(
            folder / f"{name}.jsonl", [(row["id"], text) for row, text in zip(rows, texts, strict=True)]
        )
        config = {
            "data": "test.jsonl", "schema": "dfk_label", "metrics": ["validity", "labels"], "resamples": 100,
            "backend": {"kind": "scripted", "completions": f"{name}.jsonl"},
        }  # fmt: skip
        (folder / f"{name}.yaml").write_text(json.dumps(config))
    raw: list[dict[str, Any]] = [
        {"instruction": f"a{EVIL}", "input": EVIL, "output": f"b{EVIL}"},
        {"instruction": "a", "input": EVIL, "output": ""},
        {"instruction": "<|im_end|>" + EVIL, EVIL: EVIL, "output": 3},
    ]
    (folder / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in raw))
    (folder / "answer.txt").write_text(
        f"<tool_call>\n<function={EVIL}>\n<parameter={EVIL}>\n{EVIL}\n</parameter>"
    )
    return folder


def test_no_command_shows_what_a_terminal_obeys(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, out = tmp_path / "runs", tmp_path / f"out{EVIL}"
    lines: list[list[Any]] = [
        ["dfkdata", "convert", planted / "raw.jsonl", "--from", "alpaca", "--to", "messages", "--out", out],
        ["dfkdata", "check", planted / "raw.jsonl", "--from", "alpaca"],
        ["dfkdata", "preview", planted / "raw.jsonl", "--from", "alpaca", "--rows", "3"],
        ["dfkdata", "card", out],
        ["dfkdata", "diff", out, planted / "test.jsonl"],
        ["dfkdata", "diff", out, planted / "gone"],
        ["dfkdata", "merge", out, out, "--out", tmp_path / EVIL[1:]],
        ["dfkdata", "merge", out, planted, "--out", tmp_path / "merged"],
        ["dfkdata", "convert", planted / "gone.jsonl", "--from", "alpaca", "--to", EVIL, "--out", out],
        ["dfkdata", "check", planted / "raw.jsonl", "--from", f"a{EVIL}"],
        ["dfkeval", "run", planted / "a.yaml", "--out", runs / f"a{EVIL}"],
        ["dfkeval", "run", planted / "b.yaml", "--out", runs / "b"],
        ["dfkeval", "run", planted / "a.yaml", "--out", runs / "c", "--set", f"metrics=[{json.dumps(EVIL)}]"],
        ["dfkeval", "run", planted / "a.yaml", "--out", runs / "c", "--set", f"{EVIL}=1"],
        ["dfkeval", "score", runs / f"a{EVIL}"],
        ["dfkeval", "report", runs / f"a{EVIL}"],
        ["dfkeval", "compare", runs / f"a{EVIL}", runs / "b", "--csv", tmp_path / f"{EVIL}.csv"],
        ["dfkeval", "history", runs],
        ["dfkeval", "suspects", runs / f"a{EVIL}", runs / "b"],
        ["dfkeval", "samples", runs / f"a{EVIL}", "--out", tmp_path / f"{EVIL}.jsonl"],
        ["dfkeval", "samples", runs / f"a{EVIL}", "--out", tmp_path / f"x.{EVIL}"],
        ["dfkeval", "predict", "--schema", "answer", "--field", f"question={EVIL}", "--backend",
         f"{{kind: scripted, completions: {json.dumps(str(planted / 'one.jsonl'))}}}"],
        ["dfkeval", "parse", "--schema", "caption", planted / f"answer{EVIL}"],
        ["dfktrain", "check", planted / "a.yaml"],
        ["dfktrain", "push", planted, "--to", f"org/{EVIL}", "--dry-run"],
        ["dfktrain", "curves", planted],
        ["dfktrain", "init", EVIL],
    ]  # fmt: skip
    write_answers(planted / "one.jsonl", [("1", EVIL)])
    shown = 0
    for words in lines:
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        with pytest.raises(SystemExit):
            MAINS[words[0]]()
        said = "".join(capsys.readouterr())
        assert not OBEYED.search(said), (words[:2], said)
        shown += "u001b" in said or "\\x1b" in said
    assert shown > len(lines) // 2, "most of these lines show what was planted"
