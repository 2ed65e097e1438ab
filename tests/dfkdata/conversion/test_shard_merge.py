"""A conversion in shards writes the files of one process, byte for byte: whatever the input, the options, the size of
a shard, the order in which they are done, and wherever a run is killed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfkdata import convert
from dfkdata.common import plugins
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.conversion import shard_plan
from dfkdata.conversion.shard_pool import ShardPool
from dfkdata.conversion.shard_run import ShardRun
from dfkdata.validation import leakage
from tests.helpers import processes
from tests.helpers.golden import GOLDEN

LABELS = ["disinformasi", "Fitnah", "ujaran kebencian", "netral", "", "no such label"]
TEXTS = [
    "satu",
    "Café",
    "cafe\u0301",
    "a\u200bb",
    "x" * 40,
    "apa <|im_end|> itu",
    "nan",
    'ia "berkata", lalu\npergi',
    "",
]
PICTURES = ["images/a.png", "images/b.png", "images/c.jpg", "images/broken.jpg", "images/none.png", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    path = tmp_path_factory.mktemp("shards")
    (path / "images").mkdir()
    for number, name in enumerate(("a.png", "b.png", "c.jpg")):
        picture = Image.linear_gradient("L").resize((40 + number, 32)).convert("RGB")
        picture.save(path / "images" / name)
    whole = (path / "images" / "c.jpg").read_bytes()
    (path / "images" / "broken.jpg").write_bytes(whole[: len(whole) // 2] + b"\0" * 40 + b"\xff\xd9")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, 200)


def cut(patch: pytest.MonkeyPatch, size: int) -> None:
    """Let shards be of `size` bytes."""
    patch.setattr(shard_plan, "LEAST", size)
    patch.setattr(shard_plan, "MOST", size)


def both(folder: Path, source: Path, size: int, shuffled: int, **options: Any) -> dict[str, bytes]:
    """Convert in one process and in shards of `size` bytes, done in another order; return the files of the latter."""
    whole, divided = folder / "whole", folder / "divided"
    for out in (whole, divided):
        shutil.rmtree(out, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leakage, "FREE_ROWS", size % 4)  # of a split, before only a sixteenth is looked at
        expected = convert(source, whole, **options)
        cut(patch, size)
        if shuffled:
            patch.setattr(ShardPool, "convert_all", in_another_order(shuffled))
        summary = convert(source, divided, workers=1, **options)
    assert (summary.rows, summary.codes, summary.warnings) == (
        expected.rows,
        expected.codes,
        expected.warnings,
    )
    found = contents(divided) if divided.exists() else {}
    assert found == (contents(whole) if whole.exists() else {})
    return found


def in_another_order(seed: int) -> Any:
    def convert_all(self: ShardPool) -> None:
        numbers = [*range(len(self._shards.plan.pieces))]
        Random(seed).shuffle(numbers)
        for number in numbers:
            self.convert(number)

    return convert_all


POSTS = st.fixed_dictionaries(
    {
        "title": st.sampled_from(TEXTS),
        "text": st.sampled_from(TEXTS) | st.integers(0, 9).map(lambda n: f"Kabar {n} dari kota."),
        "label": st.sampled_from(LABELS),
        "img_path": st.sampled_from(PICTURES),
        "link": st.sampled_from(["", "https://example.org/1", "https://example.org/2"]),
        "split": st.sampled_from(["train", "test", "validation", "elsewhere"]),
    }
)
WAYS: list[dict[str, Any]] = [
    {},
    {"validation": 0.4, "test": 0.2, "balance": True},
    {"split_column": "split"},
    {"to": "swift", "validation": 0.4},
    {"to": "sharegpt", "split_column": "split"},
    {"where": ["split!=test"], "validation": 0.5, "rules": {"TEXT_NFC": "warn", "IMG_NEAR_DUPLICATE": "off"}},
    {"materialize": "copy", "group_by": "link", "validation": 0.5},
    {"materialize": "embed", "validation": 0.3},
]
STRAY = ["", "   ", "{broken", '{"title": 1, "title": 2}', "[1]", "null"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(POSTS, max_size=25),
    st.sampled_from(WAYS),
    st.sampled_from([1, 150, 700]),
    st.integers(0, 3),
    st.sampled_from(["csv", "jsonl"]),
)
def test_posts_in_shards_are_those_of_one_process(
    folder: Path, rows: list[Any], way: dict[str, Any], size: int, shuffled: int, kind: str
) -> None:
    source = folder / f"posts.{kind}"
    rows += [row | {"split": split} for row, split in zip(rows[::2], ("test", "train") * 9, strict=False)]
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, ["title", "text", "label", "img_path", "link", "split"])
    table.writeheader()
    table.writerows(rows)
    lines = [json.dumps(row) for row in rows] + STRAY[: len(rows)]
    Random(size).shuffle(lines)
    source.write_bytes((text.getvalue() + "a,b\n" if kind == "csv" else "\n".join(lines)).encode())
    both(folder, source, size, shuffled, format="dfk_csv", **way)


PLAIN = st.fixed_dictionaries(
    {
        "instruction": st.sampled_from(TEXTS) | st.integers(0, 9).map(str),
        "output": st.sampled_from([*TEXTS, None]),
    },
    optional={"id": st.sampled_from(["k1", "k2", "k3"]), "case": st.sampled_from(["train", "test", ""])},
)
PLAIN_WAYS: list[dict[str, Any]] = [
    {"validation": 0.4},
    {"validation": 0.4, "test": 0.2, "rules": {"CONTROL_TOKEN": "warn", "ZERO_WIDTH": "fix"}},
    {"validation": 0.4, "group_by": "case"},
    {"split_column": "case"},
    {"validation": 0.0, "where": ["case!=test"]},
    {"validation": 0.3, "to": "openai"},
    {"rules": {"TEXT_NEAR_DUPLICATE": "off"}, "validation": 0.4},
]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(PLAIN, max_size=30),
    st.lists(PLAIN, max_size=8),
    st.sampled_from(PLAIN_WAYS),
    st.sampled_from([1, 100, 500]),
    st.integers(0, 3),
)
def test_plain_rows_in_shards_are_those_of_one_process(
    folder: Path, rows: list[Any], held: list[Any], way: dict[str, Any], size: int, shuffled: int
) -> None:
    source, more = folder / "plain", dict(way)
    rows += [row | {"case": "test"} for row in rows[::3]]
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    for number, some in enumerate((rows[::2], rows[1::2])):
        (source / f"{number}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in some), encoding="utf-8"
        )
    if held and "split_column" not in way:
        more["test_file"] = folder / "held.jsonl"
        (folder / "held.jsonl").write_text("\n".join(map(json.dumps, held)), encoding="utf-8")
    both(folder, source, size, shuffled, format="alpaca", **more)


@pytest.mark.parametrize("to", ["messages", "swift"])
def test_what_becomes_of_a_row_in_another_shard_is_decided_as_in_one_process(tmp_path: Path, to: str) -> None:
    """A copy, a held-out copy that drives a training row and its warning out, and a key that is taken."""

    def row(asked: str, split: str, **more: str) -> dict[str, str]:
        return {"instruction": asked, "output": "Itu\u200b saja.", "split": split} | more

    rows = [
        *(row(f"Apa {n}?", "train") for n in range(4)),
        row("Apa 1?", "test"),
        row("Apa 2?", "train"),
        *(row(f"Siapa {n}?", "train", id="k") for n in range(2)),
        row("Siapa 0?", "validation", id="k"),
        row("Siapa 1?", "validation", id="other"),
        row("Apa 4?", "elsewhere"),
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    way: dict[str, Any] = {"format": "alpaca", "to": to, "split_column": "split"}
    files = both(tmp_path, tmp_path / "in.jsonl", 1, 1, **way)
    manifest = json.loads(files["manifest.json"])
    assert manifest["rows"] == {"in": 11, "out": 6, "quarantined": 2, "duplicates": 3, "left_out": 0}
    assert {code: one["count"] for code, one in manifest["codes"].items()} == {
        "ID_TWICE": 1,
        "SPLIT_UNKNOWN": 1,
    }
    assert manifest["warnings"]["ZERO_WIDTH"]["count"] == 6


FORMATS = [
    (name, path)
    for name in plugins.names("dfkdata.formats")
    for path in sorted((GOLDEN / "formats" / name).glob("*"))
    if path.suffix in (".jsonl", ".csv", ".json", ".tsv")
    and path.name.count(".") == 1
    and path.stem == "input"
]


@pytest.mark.parametrize(("name", "path"), FORMATS, ids=[name for name, _ in FORMATS])
def test_every_format_is_the_same_in_shards(name: str, path: Path, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "formats" / "images", tmp_path / "images")
    source = Path(shutil.copy(path, tmp_path))
    both(tmp_path, source, 60, 1, format=name, validation=0.3, keep_empty=True)


ODD_FORMAT = """
from dfkdata.common.config import Config
from dfkdata.formats import Record, need

SCHEMA = "answer"
COLUMNS = (frozenset({"q", "a"}),)

class Options(Config):
    pass

def record(row, source, options):
    if row["q"].startswith("Lihat"):
        row.get("image")
    return Record(id="", group="", source=source, fields={"question": need(row, "q")}, gold={"answer": need(row, "a")})
"""


def test_which_columns_a_format_reads_is_judged_by_the_first_row_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first row decides for all with the same filled columns, also for rows of other shards."""
    (tmp_path / "odds").mkdir()
    (tmp_path / "odds" / "odd_in_shards.py").write_text(ODD_FORMAT)
    monkeypatch.syspath_prepend(tmp_path)
    asked = ["Apa?", *(f"Lihat {n}!" for n in range(8)), *(f"Siapa {n}?" for n in range(4))]
    rows = [{"q": q, "a": "Itu.", "image": "a.png"} for q in asked]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    both(tmp_path, tmp_path / "in.jsonl", 1, 2, format="odds.odd_in_shards", validation=0.3)


def test_pictures_in_rows_are_stored_once(folder: Path, tmp_path: Path) -> None:
    from dfkdata.common import data_uri

    uri = data_uri.encode((folder / "images" / "a.png").read_bytes())
    rows = [{"query": f"Apa {n}?", "response": "Itu.", "images": [uri]} for n in range(6)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = both(tmp_path, tmp_path / "in.jsonl", 1, 0, format="query_response", validation=0.3)
    assert sum(name.startswith("media/") for name in files) == 1


def plain(path: Path, count: int) -> Path:
    rows = [{"instruction": f"Apa {n // 2}?", "output": "Itu."} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Killed(BaseException):
    """Stands for what ends a process at any moment."""


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("number", [0, 1, 3, 5])
def test_a_run_that_was_stopped_between_shards_does_only_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    source = plain(tmp_path / "in.jsonl", 24)
    convert(source, tmp_path / "whole", format="alpaca", validation=0.3)
    done: list[int] = []
    real, left = ShardRun.convert, [number]

    def convert_some(self: ShardRun, number: int, *more: Any) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        real(self, number, *more)
        done.append(number)

    with monkeypatch.context() as patch:
        patch.setattr(ShardRun, "convert", convert_some)
        with contextlib.suppress(Killed):
            convert(source, tmp_path / "out", format="alpaca", validation=0.3, workers=1)
        before, left[0] = [*done], 99
        convert(source, tmp_path / "out", format="alpaca", validation=0.3, workers=1)
    assert len({*done}) == len(done) >= 5 and done[: len(before)] == before
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def renames(patch: pytest.MonkeyPatch, left: list[int]) -> None:
    """Let the process end at the n-th rename of a file or folder, or before what is left is removed."""
    real = Path.replace, Path.rename, shutil.rmtree

    def wrap(at: int) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real[at](*arguments, **options)

        return call

    patch.setattr(Path, "replace", wrap(0))
    patch.setattr(Path, "rename", wrap(1))
    patch.setattr(shutil, "rmtree", wrap(2))


@pytest.mark.usefixtures("small")
def test_a_run_that_was_killed_at_any_move_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = plain(tmp_path / "in.jsonl", 16)
    convert(source, tmp_path / "whole", format="alpaca", validation=0.3)
    moments, count = 0, 0
    while True:
        out, left = tmp_path / f"out{moments}", [count]
        with monkeypatch.context() as patch:
            renames(patch, left)
            try:
                convert(source, out, format="alpaca", validation=0.3, workers=1)
                break
            except Killed:
                pass
        convert(source, out, format="alpaca", validation=0.3, workers=1)
        assert contents(out) == contents(tmp_path / "whole")
        moments, count = moments + 1, count + 1
    assert moments > 12


@pytest.mark.usefixtures("small")
def test_shards_of_another_conversion_are_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = plain(tmp_path / "in.jsonl", 20), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(ShardRun, "write_plain", stop_at(3))
        with pytest.raises(Killed):
            convert(source, out, format="alpaca", validation=0.3, workers=1)
    assert any((out / ".partial" / "shards").iterdir())
    plain(source, 22)
    convert(source, out, format="alpaca", validation=0.3, workers=1)
    convert(source, tmp_path / "whole", format="alpaca", validation=0.3)
    assert contents(out) == contents(tmp_path / "whole")


def stop_at(count: int) -> Any:
    left, real = [count], ShardRun.write_plain

    def write_plain(self: ShardRun, *columns: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        real(self, *columns)

    return write_plain


@pytest.mark.usefixtures("small")
def test_a_shard_whose_files_a_power_cut_shortened_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = plain(tmp_path / "in.jsonl", 20), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(ShardRun, "write_plain", stop_at(3))
        with pytest.raises(Killed):
            convert(source, out, format="alpaca", validation=0.3, workers=1)
    (out / ".partial" / "shards" / "000001" / "digests").write_bytes(b"")
    convert(source, out, format="alpaca", validation=0.3, workers=1)
    convert(source, tmp_path / "whole", format="alpaca", validation=0.3)
    assert contents(out) == contents(tmp_path / "whole")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"limit": 3}, "--limit"),
    ({"limit": 3, "sample": True}, "--sample"),
    ({"stratify": "instruction"}, "--stratify"),
    ({"split": "sita"}, "--split sita"),
    ({"deep": True}, "--deep"),
    ({"rules": {"TWO_LABELS": "quarantine"}}, "TWO_LABELS"),
]


@pytest.mark.parametrize(("way", "named"), REFUSED, ids=[named for _, named in REFUSED])
def test_what_needs_one_process_is_refused_by_name_and_leaves_nothing(
    tmp_path: Path, way: dict[str, Any], named: str
) -> None:
    source = plain(tmp_path / "in.jsonl", 4)
    with pytest.raises(ConfigError, match=f"{named}.*--workers"):
        convert(source, tmp_path / "out", format="alpaca", workers=2, **way)
    assert not (tmp_path / "out").exists()


def test_inputs_that_are_not_divided_are_refused_by_name(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="--workers reads files, and these rows are in memory"):
        convert([{"instruction": "a", "output": "b"}], tmp_path / "out", format="alpaca", workers=2)
    (tmp_path / "in.zip").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"in\.zip: --workers reads files and folders"):
        convert(tmp_path / "in.zip", tmp_path / "out", format="alpaca", workers=2)
    shutil.copytree(folder / "images", tmp_path / "pictures" / "cat")
    with pytest.raises(ConfigError, match="--workers reads files of rows"):
        convert(tmp_path / "pictures", tmp_path / "out", format="imagefolder", workers=2, question="What?")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("small")
def test_two_processes_write_what_one_writes_and_their_errors_name_shard_and_row(tmp_path: Path) -> None:
    source = plain(tmp_path / "in.jsonl", 40)
    convert(source, tmp_path / "whole", format="alpaca", validation=0.3)
    told: list[int] = []
    convert(source, tmp_path / "out", format="alpaca", validation=0.3, workers=2, progress=told.append)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    (tmp_path / "in.csv").write_text("one,two\n" + "Kabar,Isi.\n" * 80)
    with pytest.raises(DataError, match="it needs") as caught:
        convert(tmp_path / "in.csv", tmp_path / "bad", format="dfk_csv", workers=2)
    assert [note.partition(" (")[0] for note in caught.value.__notes__] == [
        "in shard 1/5",
        "shards that are done stay; the same command goes on",
    ]


WAITING = """
import os, time
from pathlib import Path
from dfkdata.validation.rules import Rule

RULE = Rule("a row that says Tunggu waits", "warn", ("warn", "off"))
HERE = Path(__file__).parent

def check(row):
    if "Tunggu" in str(row["messages"]) and not (HERE / "go").exists():
        (HERE / "waits.part").write_text(str(os.getpid()))
        (HERE / "waits.part").rename(HERE / "waits")
        while not (HERE / "go").exists():
            time.sleep(0.02)
"""
CONVERT = """
import sys
from dfkdata import convert
from dfkdata.conversion import shard_plan
sys.path.insert(0, sys.argv[1])
shard_plan.LEAST = shard_plan.MOST = 400
convert(sys.argv[1] + "/in.jsonl", sys.argv[1] + "/out", format="alpaca", rules={"waits.rule": "warn"}, workers=2)
"""


def test_a_killed_run_takes_its_workers_along_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "waits").mkdir()
    for name, text in (("__init__.py", ""), ("rule.py", WAITING)):
        (tmp_path / "waits" / name).write_text(text)
    rows = [{"instruction": "Tunggu." if n == 30 else f"Apa {n}?", "output": "Itu."} for n in range(60)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = processes.start(CONVERT, [tmp_path], tmp_path / "log")
    shards = tmp_path / "out" / ".partial" / "shards"
    until(lambda: (tmp_path / "waits" / "waits").exists() and len([*shards.glob("00000?/facts.json")]) >= 3)
    worker = int((tmp_path / "waits" / "waits").read_text())
    run.kill()
    run.join()
    until(lambda: not is_running(worker))
    kept = {path: path.stat().st_ino for path in shards.glob("0*/facts.json")}
    (tmp_path / "waits" / "go").touch()
    monkeypatch.syspath_prepend(tmp_path)
    cut(monkeypatch, 400)
    real, seen = shutil.rmtree, dict[Path, int]()

    def look(path: Any, *more: Any, **options: Any) -> None:
        seen.update((path, path.stat().st_ino) for path in shards.glob("0*/facts.json"))
        real(path, *more, **options)

    monkeypatch.setattr(shutil, "rmtree", look)
    convert(tmp_path / "in.jsonl", tmp_path / "out", format="alpaca", rules={"waits.rule": "warn"}, workers=2)
    assert kept.items() <= seen.items() and len(kept) < len(seen)
    convert(tmp_path / "in.jsonl", tmp_path / "whole", format="alpaca", rules={"waits.rule": "warn"})
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def until(holds: Callable[[], bool]) -> None:
    """Wait for something, for at most a minute."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
