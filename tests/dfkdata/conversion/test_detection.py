"""`--from auto` finds each format by its first rows, names what it saw, and refuses where two fit."""

from __future__ import annotations

import itertools
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert, read
from dfkdata.common import plugins
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.conversion import detection
from dfkdata.formats import Fit, likeness
from tests.helpers.golden import GOLDEN
from tests.helpers.rows import rows_of, write

FORMATS = plugins.names("dfkdata.formats")
CASES = [
    (name, path)
    for name in FORMATS
    for path in sorted((GOLDEN / "formats" / name).glob("*"))
    if path.is_dir() or (path.suffix in {".csv", ".json", ".jsonl", ".tar"} and path.name.count(".") == 1)
]


@pytest.mark.parametrize(("name", "path"), CASES, ids=[f"{name}-{path.stem}" for name, path in CASES])
def test_auto_finds_the_format_of_every_golden_input(name: str, path: Path, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "formats" / "images", tmp_path / "in" / "images")
    copy = shutil.copytree if path.is_dir() else shutil.copy
    source = copy(path, tmp_path / "in" / path.name)
    summary = convert(source, tmp_path / "out", format="auto", validation=0, max_rejects="100%")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["config"]["format"] == manifest["detected"]["format"] == name
    assert summary.detected == f"{name}: {manifest['detected']['why']}"
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == path.with_suffix(".train.jsonl").read_bytes()


ROWS: dict[str, dict[str, Any]] = {
    "plain turns": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    "tagged turns": {
        "messages": [{"role": "user", "content": "<image>a"}, {"role": "assistant", "content": "b"}],
        "images": ["a.png"],
    },
    "image_url": {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]},
            {"role": "assistant", "content": "b"},
        ]
    },
    "named picture": {
        "messages": [
            {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "a"}]},
            {"role": "assistant", "content": "b"},
        ]
    },
    "alias": {"prompt": "a", "reply": "b"},
    "question": {"question": "a", "answer": "b"},
    "seen": {"question": "a", "answer": "b", "image": "a.png"},
    "picture with a caption": {"image": "a.png", "caption": "c"},
    "dolly": {"instruction": "a", "context": "c", "response": "b", "category": "x"},
    "ultrachat": {"prompt": "a", "prompt_id": "1", "messages": [{"role": "user", "content": "a"}]},
    "film": {"video": "a.mp4", "conversations": [{"from": "human", "value": "<video>\na"}]},
    "metadata": {"file_name": "a.png", "text": "c"},
    "instruction with a picture": {"instruction": "a", "output": "b", "image": "a.png"},
}
EXPECTED = {
    "plain turns": "messages",
    "tagged turns": "swift",
    "image_url": "openai",
    "named picture": "messages",
    "alias": "alpaca",
    "question": "alpaca",
    "seen": "vqa",
    "picture with a caption": "vqa",
    "dolly": "alpaca",
    "ultrachat": "messages",
    "film": "llava",
    "metadata": "imagefolder",
    "instruction with a picture": "alpaca",
}


@pytest.mark.parametrize("kind", ROWS)
def test_one_row_of_each_kind_is_told(kind: str) -> None:
    assert detection.detected([ROWS[kind]], "auto")[1].name == EXPECTED[kind]


@pytest.mark.parametrize("share", [1, 16, 31])
def test_one_tagged_row_among_plain_ones_decides_and_its_place_does_not(share: int) -> None:
    rows = [ROWS["plain turns"]] * 32
    rows[share] = ROWS["tagged turns"]
    assert detection.detected(rows, "auto")[1].name == "swift"


def test_one_answer_that_is_an_array_does_not_make_a_file_of_keywords() -> None:
    array = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "[1, 2]"}]}
    assert detection.detected([ROWS["plain turns"]] * 9 + [array], "auto")[1].name == "messages"


def test_no_more_than_the_first_rows_are_looked_at_and_none_is_lost(tmp_path: Path) -> None:
    taken = itertools.count()
    rows = ({"instruction": f"q{next(taken)}", "output": "a"} for _ in range(500))
    _, found = detection.detected(rows, "auto")
    assert (found.name, next(taken)) == ("alpaca", detection.ROWS)
    rows = ({"instruction": f"q{number}", "output": "a"} for number in range(500))
    assert convert(rows, tmp_path / "out", format="auto", validation=0).rows["out"] == 500


def test_two_formats_that_fit_are_refused_with_what_speaks_for_each(tmp_path: Path) -> None:
    both = {"instruction": "a", "output": "b", "caption": "c", "gold": {"subjects": []}}
    with pytest.raises(
        ConfigError, match=r"alpaca \(columns instruction, output\) or captions \(caption with"
    ):
        convert([both], tmp_path / "out", format="auto")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"a": 1}], "no format fits .the first row has a.; name one"),
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}], "no format fits"),
        ([{"image": "a.png", "words": "t", "label": "x"}], "no format fits"),
        ([], "it has no row that shows its format"),
    ],
)
def test_what_no_format_fits_is_refused(rows: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list(read(rows, "auto"))


@pytest.mark.parametrize("wrong", FORMATS)
def test_a_wrong_format_names_the_one_that_fits(wrong: str, tmp_path: Path) -> None:
    rows = [
        {"conversations": [{"from": "human", "value": f"q{n}"}, {"from": "gpt", "value": "a"}]}
        for n in range(9)
    ]
    summary = convert(rows, tmp_path / "out", format=wrong, max_rejects=99)
    if summary.rows["out"]:
        pytest.skip(f"{wrong} reads these rows")
    warning = summary.warnings["FORMAT_UNLIKELY"]["first"]
    assert "the format 'sharegpt' (turns with from and value" in warning["reason"]
    assert warning["hint"] == "read them with --from sharegpt"


def test_a_table_of_another_format_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("frame_path,label,analisis\na.png,fakta,A\n")
    with pytest.raises(DataError, match="it looks like the format 'dfk_frames'"):
        convert(tmp_path / "f.csv", tmp_path / "out", format="dfk_text")


def test_rows_that_are_bad_in_their_own_format_get_no_advice(tmp_path: Path) -> None:
    summary = convert([{"instruction": "a", "output": ""}], tmp_path / "out", format="alpaca", max_rejects=9)
    assert "FORMAT_UNLIKELY" not in summary.warnings


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_is_told_whatever_its_delimiter(delimiter: str, tmp_path: Path) -> None:
    lines = [["link", "img", "label", "analisis"], ["l", "a.png", "fakta", "A"]]
    (tmp_path / "t.csv").write_text("".join(delimiter.join(line) + "\n" for line in lines))
    assert detection.detected(tmp_path / "t.csv", "auto")[1].name == "dfk_csv_v2"


def test_an_archive_is_told_by_its_rows(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", [{"instruction": "a", "output": "b"}])
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.write(source, "data/rows.jsonl")
        archive.writestr("data/big.png", b"\0" * 100)
    summary = convert(tmp_path / "in.zip", tmp_path / "out", format="auto", validation=0)
    assert summary.detected.startswith("alpaca: ")


def test_a_second_run_with_auto_or_with_the_name_finds_nothing_to_do(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"instruction": "a", "output": "b"}])
    assert convert(source, tmp_path / "out", format="auto", validation=0).fresh
    assert not convert(source, tmp_path / "out", format="alpaca", validation=0).fresh
    assert not convert(source, tmp_path / "out", format="auto", validation=0).fresh


MEMBER = '''
from dfkdata.common.config import Config
from dfkdata.formats import Fit, Likeness, Record, need

SCHEMA = "answer"
COLUMNS = (frozenset({"frage", "antwort"}),)

class Options(Config):
    """None."""

def record(row, source, options):
    name = need(row, "frage")
    return Record(id=name, group=name, source=source, fields={"question": name}, gold={"answer": need(row, "antwort")})
'''
DETECT = """
def detect(row):
    return Likeness(Fit.MARKED, "the key frage") if "frage" in row else None
"""


@pytest.mark.parametrize("detect", ["", DETECT])
def test_a_member_of_ones_own_takes_part(
    detect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = f"own_{len(detect)}"
    (tmp_path / package).mkdir()
    (tmp_path / package / "fragen.py").write_text(MEMBER + detect)
    monkeypatch.syspath_prepend(tmp_path)
    rows = [{"frage": "Was?", "antwort": "Nichts."}]
    name = f"{package}.fragen"
    summary = convert(rows, tmp_path / "out", format=f"auto,{name}", validation=0)
    assert summary.detected == f"{name}: {'the key frage' if detect else 'columns antwort, frage'}"
    assert rows_of(tmp_path / "out", "train")[0]["messages"][-1]["content"][0]["text"] == "Nichts."


KEYS = (
    "messages conversations instruction output prompt completion query response question answer image images caption "
    "gold tools data annotations annotation_id prefix suffix file_name filename input text label id meta img_path "
    "frame_path _label"
).split()
ODD = [
    None,
    1,
    1.5,
    True,
    "",
    "x",
    [],
    [1],
    [[]],
    [{}],
    {},
    {"a": 1},
    [{"role": 1}],
    [{"role": "user", "content": [1]}],
]
ODD += [
    [{"role": "user", "content": [{"type": []}]}],
    [{"role": "user", "tool_calls": [1]}],
    [{"from": 1, "value": 2}],
]


@pytest.mark.parametrize("name", FORMATS)
def test_rows_of_odd_values_are_looked_at_without_an_error(name: str) -> None:
    member = plugins.load("dfkdata.formats", name)
    for key, value in itertools.product(KEYS, ODD):
        for row in ({key: value}, dict.fromkeys(KEYS, "x") | {key: value}, dict.fromkeys(KEYS, value)):
            found = likeness(member, row)
            assert found is None or (found.fit in Fit and found.why)


def test_a_folder_of_pictures_and_a_tar_of_samples_are_named_to_who_reads_rows(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "formats" / "imagefolder" / "folders", tmp_path / "set")
    with pytest.raises(ConfigError, match=r"no data file in this folder.*--from imagefolder"):
        convert(tmp_path / "set", tmp_path / "out", format="alpaca")
    shard = GOLDEN / "formats" / "webdataset" / "shard-000.tar"
    with pytest.raises(DataError, match="--from webdataset"):
        convert(shard, tmp_path / "out", format="messages")
    write(tmp_path / "rows.jsonl", [ROWS["plain turns"]])
    with pytest.raises(ConfigError) as told:
        convert(tmp_path / "rows.jsonl", tmp_path / "out", format="messages", stratify="gone")
    assert "looks like" not in str(told.value)


def test_a_table_without_a_known_format_is_named_with_its_columns_whatever_the_input(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a;b\n1;2\n")
    with pytest.raises(ConfigError, match="the first row has a, b"):
        convert(tmp_path / "t.csv", tmp_path / "out", format="auto")
