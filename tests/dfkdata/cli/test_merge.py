"""`dfkdata merge` at the command line, from the current folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dfkdata.cli import app
from tests.helpers.rows import rows_of, write

Capture = pytest.CaptureFixture[str]


def called(words: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["dfkdata", *words.split()])
    with pytest.raises(SystemExit) as ended:
        app.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    """The current folder, with two conversions that share a row and contradict each other in another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name, answer in (("a", "Yes."), ("b", "No.")):
        rows = [{"id": f"{name}{at}", "instruction": f"Ask {name}{at}?", "output": "So."} for at in range(4)]
        both = {"id": "both", "instruction": "Ask both?", "output": "So."}
        twice = {"id": "id\x1b[2J", "instruction": "Ask?", "output": answer}
        write(Path(f"{name}.jsonl"), [*rows, both, twice])
        words = f"convert {name}.jsonl --from alpaca --to messages --out data/{name} --validation 0"
        assert called(words, monkeypatch, capsys)[0] == 0
    return tmp_path


def test_a_conflict_is_exit_2_and_leaves_no_folder_and_an_option_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    status, out, err = called("merge data/a data/b --out all", monkeypatch, capsys)
    assert (status, out) == (2, "")
    assert "data/b/train.jsonl:6: the id 'id\\x1b[2J' is that of data/a/train.jsonl:6" in err
    assert "--on-conflict first" in err
    assert not Path("all").exists()
    status, out, _ = called("merge data/a data/b --out all --on-conflict first", monkeypatch, capsys)
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "copies of rows that stay" in out
    assert [one["reason"] for one in rows_of(Path("all"), "left_out")] == ["copy", "conflict"]
    assert len(rows_of(Path("all"), "train")) == 10
    again = called("merge data/a data/b --out all --on-conflict first", monkeypatch, capsys)
    assert (again[0], "nothing to do" in again[1]) == (0, True)
    assert called("merge data/a data/b --out all --on-overlap drop-train", monkeypatch, capsys)[0] == 2


def test_a_merge_is_an_input_and_a_data_set_like_a_conversion(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert called("merge data/a data/b --out all --on-conflict first", monkeypatch, capsys)[0] == 0
    words = "convert all --from messages --to messages --out again --validation 0"
    assert called(words, monkeypatch, capsys)[0] == 0
    status, out, _ = called("diff all again --json", monkeypatch, capsys)
    found = json.loads(out)
    assert (found["same"], found["added"], found["removed"], found["changed"]) == (10, 0, 0, {"rows": 0})
    assert status == 1  # the settings differ
    assert called("card all", monkeypatch, capsys)[0] == 0


def test_policies_of_an_earlier_merge_are_told(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    write(Path("c.jsonl"), [{"id": "c", "instruction": "Ask c?", "output": "So."}])
    words = "convert c.jsonl --from alpaca --to messages --out data/c --validation 0"
    assert called(words, monkeypatch, capsys)[0] == 0
    assert called("merge data/a data/b --out all --on-conflict first", monkeypatch, capsys)[0] == 0
    status, out, _ = called("merge all data/c --out more", monkeypatch, capsys)
    assert (status, "--on-conflict first, as a folder was merged before" in out) == (0, True)
    assert len(rows_of(Path("more"), "left_out")) == 2


def test_wrong_words_are_one_message(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    for words, message in (
        ("merge data/a --out all", "two folders or more"),
        ("merge data/a data/b --out data/a", "is one of the folders"),
        ("merge data/a data/b --out all --on-overlap both", "drop-train"),
        ("merge data/a data/b --out all --accept to", "one folder holds one layout"),
    ):
        status, _, err = called(words, monkeypatch, capsys)
        assert (status, message in err) == (2, True), words
    assert not Path("all").exists()
