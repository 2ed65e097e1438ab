"""What a conversion leaves beside its rows: warnings by row, no empty folder, and settings that differ by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dfkdata import convert
from dfkdata.cli import app
from dfkdata.common import data_uri
from dfkdata.common.errors import ConfigError
from dfkdata.validation.places import PlaceList
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


def test_rows_that_left_their_file_leave_no_warning() -> None:
    copy = alpaca(0, output="nan")
    rows = [copy | {"split": "train"}, alpaca(1, output="nan", split="train"), copy | {"split": "test"}]
    done = convert(rows, "out", format="alpaca", split_column="split", validation=0)
    lines = [line for line in check_counts("out", done.warnings) if line["code"] == "ANSWER_MISSING_VALUE"]
    assert [line["source"] for line in lines] == ["memory:2", "memory:3"]
    assert done.warnings["ANSWER_MISSING_VALUE"]["first"]["source"] == "memory:2"
    claims = [
        {"input": f"klaim {n}", "output": "Label: **Fitnah.** penjelasan: #REF!", "_label": "Fitnah"}
        for n in range(40)
    ]
    done = convert(
        claims, "sita", format="dfk_text", split="sita", subsample=0.25, rules={"CLASS_RARE": "off"}
    )
    lines = [line for line in check_counts("sita", done.warnings) if line["code"] == "ANSWER_MISSING_VALUE"]
    left = {
        row["meta"]["source"] for split in ("train", "validation") for row in rows_of(Path("sita"), split)
    }
    assert 0 < len(left) < 40 and {line["source"] for line in lines} == left


def embedded(kind: str, n: int, **more: Any) -> dict[str, Any]:
    return {"question": f"Apa {n}?", "answer": "Garis.", "image": data_uri.encode(KINDS[kind])} | more


@pytest.mark.parametrize("paths", ["relative", "absolute"])
@pytest.mark.parametrize("to", ["messages", "swift", "sharegpt", "openai", "prompt_completion"])
def test_media_holds_what_written_rows_name_and_no_more(to: Any, paths: Any) -> None:
    Path("media").mkdir()
    rows = [
        embedded("png", 0),
        embedded("png", 1),
        embedded("jpeg", 3),
        embedded("gif", 2, answer="<|im_end|>"),
    ]
    done = convert(rows, "media/out", format="vqa", to=to, paths=paths, validation=0, max_rejects=9)
    assert done.rows["out"] == 3
    assert {path.suffix for path in Path("media/out/media").iterdir()} == {".png", ".jpg"}


def test_media_that_only_rejected_rows_name_leave_no_folder() -> None:
    rows = [embedded("png", 0, answer="<|im_end|>"), {"question": "Apa?", "answer": "Ya.", "image": None}]
    done = convert(rows, "out", format="vqa", validation=0, max_rejects=9)
    assert done.rows["out"] == 1 and not Path("out/media").exists()
    done = convert([embedded("png", 0)], "embed", format="vqa", validation=0, materialize="embed")
    assert done.rows["out"] == 1 and not Path("embed/media").exists()


def test_rows_on_one_line_have_places_of_their_own() -> None:
    rows = [alpaca(n, output="nan" if n else "Ya.") for n in range(3)]
    Path("a.json").write_text(json.dumps(rows[:2]) + "\n")
    Path("b.json").write_text("[\n" + json.dumps(rows[0]) + ",\n" + json.dumps(rows[2]) + "\n]\n")
    done = convert("*.json", "out", format="alpaca", validation=0)
    lines = check_counts("out", done.warnings)
    assert [line["source"] for line in lines if line["path"]] == ["a.json:1[2]", "b.json:3"]
    places, names = (
        PlaceList(),
        ["a.json:1", "a.json:1[2]", "a.json:1[3]", "x[1]", "x[", "[7]:2", "a:2[0]", "a]"],
    )
    for name in names:
        places.append(name)
    assert [places[at] for at in range(len(names))] == names
