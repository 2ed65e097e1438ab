"""`dfkdata diff` at the command line: exit codes, tables in 80 columns, JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dfkdata.cli import app
from tests.helpers.rows import rows_of, write

Capture = pytest.CaptureFixture[str]


def called(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["dfkdata", *words])
    with pytest.raises(SystemExit) as ended:
        app.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    """The current folder, with two conversions that differ in a row and a setting."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    rows = [
        {"id": f"r{at}", "instruction": f"Is this number {at}? " * 9, "output": "Yes."} for at in range(9)
    ]
    for name, answer in (("a", "Yes."), ("b", "No, it is not. \x1b[2J")):
        write(Path(f"{name}.jsonl"), [rows[0] | {"output": answer.removesuffix(" \x1b[2J")}, *rows[1:]])
        words = ["convert", f"{name}.jsonl", "--from", "alpaca", "--to", "messages", "--out", f"data/{name}"]
        assert (
            called([*words, "--seed", "1" if name == "a" else "2", "--validation", "0"], monkeypatch, capsys)[
                0
            ]
            == 0
        )
    return tmp_path


def test_equal_is_0_different_is_1_an_error_is_2(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    status, out, _ = called(["diff", "data/a", "data/a"], monkeypatch, capsys)
    assert (status, "nothing differs; 9 rows are the same" in out) == (0, True)
    status, out, _ = called(["diff", "data/a", "data/b"], monkeypatch, capsys)
    assert status == 1
    assert "1 changed, 1 setting differs; 8 rows are the same" in out
    assert "Yes. → No, it is not." in " ".join(out.replace("│", " ").split())
    assert max(map(len, out.splitlines())) <= 80
    status, out, err = called(["diff", "data/a", "data/gone"], monkeypatch, capsys)
    assert (status, out) == (2, "")
    assert "data/gone: no such folder or file" in err


def test_json_is_one_object_on_stdout_and_examples_have_a_number(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    status, out, _ = called(["diff", "data/a", "data/b/train.jsonl", "--json"], monkeypatch, capsys)
    found = json.loads(out)
    assert (status, found["equal"], found["changed"]) == (1, False, {"rows": 1, "answer": 1})
    assert [row["id"] for row in found["examples"]["changed"]] == ["r0"]
    out = called(["diff", "data/a", "data/b", "--json", "--examples", "0"], monkeypatch, capsys)[1]
    assert json.loads(out)["examples"] == {}
    assert called(["diff", "data/a", "data/b", "--examples", "-1"], monkeypatch, capsys)[0] == 2


def test_ids_and_answers_cannot_steer_the_terminal(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    rows = rows_of(Path("data/b"), "train")
    rows[0]["id"] = "r\x1b[2J\u202e"
    write(Path("evil\x1b[2J.jsonl"), rows)
    for words in (["data/a"], ["data/a", "--json"]):
        status, out, _ = called(["diff", "evil\x1b[2J.jsonl", *words], monkeypatch, capsys)
        assert status == 1
        assert not {"\x1b", "\u202e"} & {*out}
        assert "\\u001b[2J" in out
