"""What a conversion leaves beside its rows: warnings by row, no empty folder, and settings that differ by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dfkdata import convert
from dfkdata.cli import app
from dfkdata.common.errors import ConfigError
from tests.helpers.pictures import KINDS
from tests.helpers.rows import rows_of, write

LONG = " ".join(f"kata{n}" for n in range(60))


def alpaca(n: int, **more: Any) -> dict[str, Any]:
    return {"instruction": f"Sapa nomor {n}!", "output": f"Halo {n}.", **more}


def command(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app.app, list(words), env={"COLUMNS": "400"})
    return done.exit_code, done.output


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def check_counts(folder: str, warnings: dict[str, Any]) -> list[dict[str, Any]]:
    """Every code of the manifest has as many lines in warnings.jsonl as it counts rows."""
    lines = rows_of(Path(folder), "warnings")
    counts = {code: sum(line["code"] == code for line in lines) for code in {line["code"] for line in lines}}
    assert counts == {code: entry["count"] for code, entry in warnings.items()}
    manifest = json.loads(Path(folder, "manifest.json").read_text())
    assert {"path": "warnings.jsonl", "rows": len(lines)}.items() <= next(
        entry for entry in manifest["outputs"] if entry["path"] == "warnings.jsonl"
    ).items()
    return lines


@pytest.mark.parametrize("deep", [False, True])
def test_each_row_that_splits_share_is_a_line_with_its_partner(deep: bool) -> None:
    rows = [alpaca(n, split="train") for n in range(4)]
    rows += [alpaca(9, instruction=f"{LONG} {n}", split="train" if n < 2 else "test") for n in range(5)]
    rows += [alpaca(n, link=f"g{n % 2}", split="train" if n < 12 else "validation") for n in range(10, 16)]
    done = convert(rows, "out", format="alpaca", split_column="split", deep=deep, validation=0)
    lines = check_counts("out", done.warnings)
    near = [(line["row"], line["partner_row"]) for line in lines if line["code"] == "TEXT_NEAR_DUPLICATE"]
    assert [place for place, _ in near] == ["test.jsonl:1", "test.jsonl:2", "test.jsonl:3"]
    assert {partner for _, partner in near} <= {"train.jsonl:5", "train.jsonl:6"}
    groups = [(line["row"], line["partner_row"]) for line in lines if line["code"] == "GROUP_ACROSS"]
    assert sorted(groups) == [(f"validation.jsonl:{n + 1}", f"train.jsonl:{7 + n % 2}") for n in range(4)]


def test_every_row_with_another_label_names_the_row_that_it_contradicts() -> None:
    Path("0.png").write_bytes(KINDS["png"])
    rows = [
        {"frame_path": "0.png", "label": label, "analisis": f"{n}.", "link": f"https://x.id/{n % 2}"}
        for n, label in enumerate(("fitnah", "netral", "netral", "fitnah", "netral"))
    ]
    done = convert(rows, "out", format="dfk_frames", validation=0)
    lines = [line for line in check_counts("out", done.warnings) if line["code"] == "TWO_LABELS"]
    assert [(line["source"], line["partner"]) for line in lines] == [
        ("memory:1", "memory:2"),
        ("memory:2", "memory:1"),
        ("memory:3", "memory:1"),
        ("memory:4", "memory:2"),
        ("memory:5", "memory:1"),
    ]


def test_rows_with_warnings_of_their_own_are_lines_and_the_table_counts_them() -> None:
    write(Path("in.jsonl"), [alpaca(0), alpaca(1, output="nan"), alpaca(2, output="#REF!")])
    code, output = command("convert", "in.jsonl", "--from", "alpaca", "--to", "messages", "--out", "out")
    assert code == 0 and "out/warnings.jsonl" in output
    lines = rows_of(Path("out"), "warnings")
    signs = [(line["source"], line["path"]) for line in lines if line["code"] == "ANSWER_MISSING_VALUE"]
    assert [place for place, _ in signs] == ["in.jsonl:2", "in.jsonl:3"]
    again = convert("in.jsonl", "out", format="alpaca")
    assert not again.fresh


@pytest.mark.parametrize("rows", [[], [{"instruction": "x"}], [{"wrong": 1}, {"wrong": 2}]])
def test_the_command_leaves_no_folder_without_a_row(rows: list[Any]) -> None:
    write(Path("in.jsonl"), rows)
    words = ("convert", "in.jsonl", "--from", "alpaca", "--to", "messages", "--out", "a/out")
    code, output = command(*words)
    assert code == 1 and "nothing was left" in output and not Path("a/out").exists()
    assert command(*words, "--keep-empty")[0] == 1
    assert len(rows_of(Path("a/out"), "quarantine")) == len(rows)


def test_an_overwriting_conversion_without_a_row_keeps_the_earlier_result() -> None:
    write(Path("good.jsonl"), [alpaca(0)])
    write(Path("bad.jsonl"), [{"instruction": "x"}])
    convert("good.jsonl", "out", format="alpaca", validation=0)
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    words = ("convert", "bad.jsonl", "--from", "alpaca", "--to", "messages", "--out", "out", "--overwrite")
    assert command(*words)[0] == 1
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 7}, "seed was 42, is 7"),
        ({"to": "swift"}, "to was messages, is swift"),
        ({"options": {"join": "newline"}}, "option join was .*, is newline"),
        ({"delimiter": ";"}, "delimiter was not given, is ;"),
        ({"limit": 1}, "limit was not given, is 1"),
        ({"rules": {"TEXT_NFC": "off"}}, "rule TEXT_NFC was not given, is off"),
    ],
)
def test_a_refusal_names_each_setting_that_differs(options: dict[str, Any], message: str) -> None:
    write(Path("in.jsonl"), [alpaca(0), alpaca(1)])
    convert("in.jsonl", "out", format="alpaca", validation=0)
    with pytest.raises(ConfigError, match=message):
        convert("in.jsonl", "out", **({"format": "alpaca", "validation": 0} | options))


def test_a_refusal_names_each_input_that_differs() -> None:
    write(Path("in.jsonl"), [alpaca(0)])
    convert("in.jsonl", "out", format="alpaca", validation=0)
    write(Path("in.jsonl"), [alpaca(1)])
    with pytest.raises(ConfigError, match=r"in\.jsonl has another content"):
        convert("in.jsonl", "out", format="alpaca", validation=0)
    Path("in.jsonl").rename("new.jsonl")
    with pytest.raises(ConfigError, match=r"new\.jsonl is new; in\.jsonl is not among them"):
        convert("new.jsonl", "out", format="alpaca", validation=0)


@pytest.mark.parametrize("rows", [[], [{"instruction": "a"}]])
def test_the_library_leaves_no_folder_without_a_row_either(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert not convert(rows, tmp_path / "out", format="alpaca").rows["out"]
    assert not (tmp_path / "out").exists()
    convert(rows, tmp_path / "out", format="alpaca", keep_empty=True)
    assert (tmp_path / "out" / "manifest.json").exists()
