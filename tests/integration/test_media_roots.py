"""A file that somebody else wrote names media in its own folder only, at every door and by every spelling."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert, load_rows, read
from dfkdata.cli.app import main as dfkdata_main
from dfkdata.common import media_roots
from dfkdata.common.errors import DataError
from dfkdata.reports.dataset_card import write_card
from dfkdata.rows.huggingface import to_dataset
from dfkdata.validation.overlap import RowFile, RowIndex
from dfkeval import EvalConfig, evaluate, score
from dfkeval.cli.app import main as dfkeval_main
from dfkeval.runs import config as configs
from dfktrain.cli.app import main as dfktrain_main
from dfktrain.config.sections import MonitorConfig
from dfktrain.merging import probes
from dfktrain.training import monitor_plan
from tests.helpers.html import block
from tests.helpers.pictures import picture
from tests.helpers.rows import write

META = {"schema": "answer", "variant": "text", "group": "1", "gold": {"answer": "Noise"}}


def row(image: str) -> dict[str, Any]:
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Noise"}]}
    return {"id": "1", "messages": [question, answer], "images": [image], "meta": META}


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from elsewhere, beside pictures of the user's own, and with two links that lead out of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(media_roots, "_allowed", [])
    for name in ("own/a.png", "foreign/inside/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture("PNG"))
    (tmp_path / "foreign/link.png").symlink_to(tmp_path / "own/a.png")
    (tmp_path / "foreign/door").symlink_to(tmp_path / "own")
    (tmp_path / "answers.jsonl").write_text('{"id": "1", "text": "Noise"}\n')
    return tmp_path / "foreign"


OUTSIDE = (
    "/etc/passwd",
    "../own/a.png",
    "ABSOLUTE",
    "link.png",
    "door/a.png",
    "inside/../../own/a.png",
    "..",
    "/",
)
INSIDE = ("inside/b.png", "./inside/../inside/b.png", "INSIDE")


def rows_file(folder: Path, name: str) -> Path:
    name = {"ABSOLUTE": str(folder.parent / "own/a.png"), "INSIDE": str(folder / "inside/b.png")}.get(
        name, name
    )
    return write(folder / "rows.jsonl", [row(name)])


def evaluation(path: Path) -> EvalConfig:
    backend = {"kind": "scripted", "completions": str(path.parents[1] / "answers.jsonl")}
    return EvalConfig.model_validate({"data": str(path), "backend": backend, "resamples": 100})


def _evaluated(path: Path) -> object:
    return evaluate(evaluation(path), path.parents[1] / "run", overwrite=True)


def _shared(path: Path) -> object:
    with RowIndex([RowFile(path)]) as index:
        return index


def _monitored(path: Path) -> object:
    return monitor_plan.write_rows(MonitorConfig(data=str(path)), 1, path.parents[1] / "watch")


def _data_set(path: Path) -> object:
    pytest.importorskip("datasets")
    return to_dataset(path, embed=True)


def _card(path: Path) -> object:
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "Noise."}]
    plain = write(path.parents[1] / "plain.jsonl", [{"id": "a", "messages": turns}])
    made = path.parents[1] / "plain"
    convert(plain, made, format="messages", validation=0, overwrite=True)
    shutil.copy(made / "manifest.json", path.parent)
    shutil.copy(path, path.with_name("train.jsonl"))
    return write_card(path.parent, path.parents[1] / "card.html")


DOORS: dict[str, Callable[[Path], object]] = {
    "load_rows": lambda path: [*load_rows(path)],
    "evaluation": _evaluated,
    "probes": probes.of_rows,
    "monitoring": _monitored,
    "data set": _data_set,
    "page": _card,
    "overlap": _shared,
}


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("door", DOORS)
def test_a_row_names_no_file_outside_its_folder(door: str, name: str, foreign: Path) -> None:
    with pytest.raises(DataError, match=r"jsonl:1: `images`: .* lies outside .*--media-root") as caught:
        DOORS[door](rows_file(foreign, name))
    assert "root:x:0" not in str(caught.value)


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("door", DOORS)
def test_a_row_names_files_inside_its_folder(door: str, name: str, foreign: Path) -> None:
    DOORS[door](rows_file(foreign, name))


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("format", ["messages", "vqa"])
def test_conversion_and_prediction_read_no_file_outside(format: str, name: str, foreign: Path) -> None:
    path = rows_file(foreign, name)
    if format == "vqa":
        (image,) = json.loads(path.read_text())["images"]
        write(path, [{"question": "What?", "answer": "Noise.", "image": image}])
    ((reject,), summary) = (
        [*read(path, format)],
        convert(path, "out", format=format, validation=0, overwrite=True),
    )
    assert reject.code in ("IMG_OUTSIDE", "IMG_MISSING", "IMG_UNREADABLE"), reject  # type: ignore[union-attr]
    assert summary.rows["out"] == 0


def _ended(main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["dfk", *map(str, words)])
    monkeypatch.setattr(media_roots, "_allowed", [])  # each command is a process of its own
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_commands_refuse_and_take_the_option_and_the_key(
    foreign: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = rows_file(foreign, "../own/a.png")
    shown = {"data": "foreign/rows.jsonl", "backend": {"kind": "scripted", "completions": "answers.jsonl"}}
    Path("eval.yaml").write_text(json.dumps(shown | {"resamples": 100}))
    stage = {"name": "sft", "data": [str(path)], "steps": 1}
    train = {"model": {"name": "tiny"}, "precision": "fp32", "engine": "transformers", "stages": [stage]}
    Path("train.yaml").write_text(json.dumps(train))
    commands = (
        (dfkeval_main, ("run", "eval.yaml", "--out", "run")),
        (dfktrain_main, ("check", "train.yaml")),
    )
    for main, words in commands:
        assert _ended(main, monkeypatch, *words) == 2
        said = "".join(capsys.readouterr())
        assert "rows.jsonl:1" in said and f"--media-root {foreign.parent / 'own'}" in said, said
        assert "Traceback" not in said
        assert _ended(main, monkeypatch, *words, "--media-root", "own") == 0, capsys.readouterr().err
    for name, settings in (("eval.yaml", shown | {"resamples": 100}), ("train.yaml", train)):
        Path(name).write_text(json.dumps(settings | {"media_roots": ["own"]}))
    monkeypatch.chdir("own")  # roots in a configuration are relative to it, like its other paths
    for main, words in commands:
        words = (words[0], f"../{words[1]}", *words[2:])
        assert _ended(main, monkeypatch, *words) == 0, capsys.readouterr().err
    assert "media_roots" not in Path("run/config.json").read_text()


# What dfk itself writes goes on working.


@pytest.fixture
def converted(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A conversion of the user's own, whose rows name pictures beside it."""
    write(foreign.parent / "own/raw.jsonl", [{"question": "What?", "answer": "Noise.", "image": "a.png"}])
    convert(foreign.parent / "own/raw.jsonl", "data", format="vqa", schema="answer", validation=0)
    return foreign.parent / "data"


@pytest.mark.parametrize("paths", ["relative", "absolute"])
def test_a_conversion_opens_the_folders_in_which_it_found_pictures(paths: str, converted: Path) -> None:
    convert("own/raw.jsonl", "data", format="vqa", schema="answer", validation=0, paths=paths, overwrite=True)
    (loaded,) = load_rows("data/train.jsonl")
    assert Path(loaded["images"][0]).samefile("own/a.png")
    write(Path("data/few.jsonl"), [row(str(Path("own/a.png").resolve()))])  # a part that the user has cut out
    assert [*load_rows("data/few.jsonl")]
    with pytest.raises(DataError, match="lies outside"):
        [*load_rows(write(Path("data/more.jsonl"), [row("/etc/passwd")]))]


def test_a_foreign_manifest_opens_no_folder_whatever_it_names(converted: Path) -> None:
    for folders in (["/"], ["../own"], [".."], ["../../../../../.."]):
        facts = json.loads((converted / "manifest.json").read_text()) | {"media_folders": folders}
        (converted / "manifest.json").write_text(json.dumps(facts))
        with pytest.raises(DataError, match=r"manifest\.json names .* your dfk did not write it"):
            [*load_rows(converted / "train.jsonl")]
        (reject,) = read(converted / "train.jsonl", "messages")
        assert reject.code == "IMG_OUTSIDE"  # type: ignore[union-attr]
    media_roots.allow(["own"])
    assert [*load_rows(converted / "train.jsonl")]
    assert type(next(read(converted / "train.jsonl", "messages"))).__name__ == "Record"


def test_without_a_place_to_remember_a_conversion_works_in_its_own_process(
    converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (converted.parent / "state").write_text("a file where the folder would be")
    monkeypatch.setenv("XDG_STATE_HOME", str(converted.parent / "state"))
    monkeypatch.setattr(media_roots, "_written_here", set())
    with pytest.raises(DataError, match="your dfk did not write it on this machine"):
        [*load_rows(converted / "train.jsonl")]
    convert("own/raw.jsonl", "data", format="vqa", schema="answer", validation=0, overwrite=True)
    assert [*load_rows(converted / "train.jsonl")]


def test_rows_for_monitoring_name_the_pictures_of_their_source(converted: Path) -> None:
    written = monitor_plan.write_rows(
        MonitorConfig(data=str(converted / "train.jsonl")), 1, Path("run/watch")
    )
    assert [*load_rows(written)]
    write(written, [*load_rows(written), row("/etc/passwd")])
    with pytest.raises(DataError, match="lies outside"):
        [*load_rows(written)]


def _shows(folder: Path) -> bool:
    """Return whether the page holds the picture of its one sample; if not, it says why."""
    html = (folder / "report.html").read_text()
    (row,) = block(html, "rows-0-0")
    ((name, place),) = row["pictures"]
    assert (place < 0) is ("outside the media roots" in name) is ("pictures-0-0" not in html)
    return bool(place >= 0)


def test_a_page_shows_the_pictures_of_a_run_of_our_own_and_of_a_foreign_one_only_those_inside(
    converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = evaluation(converted / "train.jsonl")
    (loaded,) = load_rows(converted / "train.jsonl")
    write(Path("answers.jsonl"), [{"id": loaded["id"], "text": "Noise."}])
    run = evaluate(settings, "run").folder
    assert _shows(run)
    score(run)
    assert _shows(run)
    shutil.copytree(run, "theirs")
    foreign = Path("theirs")
    samples = json.loads((foreign / "samples.jsonl").read_text())
    samples["images"] = [str(Path("own/a.png").resolve())]
    (foreign / "samples.jsonl").write_text(json.dumps(samples) + "\n\n")
    record = json.loads((foreign / "config.json").read_text())
    record["config"]["media_roots"] = ["/"]
    record["config"]["data"] = "gone.jsonl"
    (foreign / "config.json").write_text(json.dumps(record))
    for command in ("report", "score", "report"):
        assert _ended(dfkeval_main, monkeypatch, command, foreign) == 0
        assert not _shows(foreign)
    assert _ended(dfkeval_main, monkeypatch, "report", run, "--against", foreign) == 0
    assert _ended(dfkeval_main, monkeypatch, "report", foreign, "--media-root", "own") == 0
    assert _shows(foreign)


def test_roots_of_a_configuration_are_relative_to_it(foreign: Path) -> None:
    settings = {"data": "rows.jsonl", "backend": {"kind": "scripted", "completions": "a.jsonl"}}
    (foreign / "eval.yaml").write_text(json.dumps(settings | {"media_roots": ["../own"]}))
    assert configs.read(foreign / "eval.yaml").media_roots == (foreign.parent / "own",)
    assert media_roots.allowed() == (str(foreign.parent / "own"),)


def test_the_check_of_a_folder_takes_the_option(
    foreign: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(foreign / "raw.jsonl", [{"question": "What?", "answer": "x", "image": "../own/a.png"}])
    words = ("check", path, "--from", "vqa")
    assert _ended(dfkdata_main, monkeypatch, *words) == 1
    assert _ended(dfkdata_main, monkeypatch, *words, "--media-root", "own") == 0, capsys.readouterr().err
