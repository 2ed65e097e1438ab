"""Whatever the machine or a signal does to a command: one message, an exit status of 2 or 128 + signal, no traceback,
and the command that is named goes on to the same result."""

from __future__ import annotations

import encodings.utf_8_sig  # a user who may not read Python's own folder cannot import it later
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dfkdata.cli import app as dfkdata
from dfkeval.cli import app as dfkeval
from dfktrain.cli import app as dfktrain
from tests.helpers import faults
from tests.helpers.runs import DFK, gold_answers, write_answers, write_rows

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
ENCODINGS = encodings.utf_8_sig
MAINS = {"dfkdata": dfkdata.main, "dfkeval": dfkeval.main, "dfktrain": dfktrain.main}
CONFIG = "data: test.jsonl\nschema: dfk_label\nbackend: {kind: scripted, completions: answers.jsonl}\nresamples: 100\n"
#: Command -> its words; {i} stands for the inputs and {o} for the folder that it writes into.
WRITING = {
    "convert": "dfkdata convert {i}/alpaca.jsonl --from alpaca --to messages --out {o}/data",
    "merge": "dfkdata merge {i}/data {i}/more --out {o}/merged --on-overlap drop-train",
    "card": "dfkdata card {i}/data --out {o}/card.html",
    "run": "dfkeval run {i}/eval.yaml --out {o}/run",
    "score": "dfkeval score {o}/scored",
    "report": "dfkeval report {o}/scored",
    "compare": "dfkeval compare {i}/run-eval {i}/run-s1 --csv {o}/c.csv",
    "merge-runs": "dfkeval merge-runs {i}/run-s1 {i}/run-s2 --out {o}/whole",
    "samples": "dfkeval samples {i}/run-eval --out {o}/s.csv",
    "suspects": "dfkeval suspects {i}/run-eval --csv {o}/u.csv",
    "eval init": "dfkeval init json_captioner --out {o}/e.yaml",
    "label": "dfkeval label {i}/captions.csv --out {o}/l --tool-choice auto --backend {i}/backend.yaml",
    "predict": "dfkeval predict --input {i}/captions.csv --out {o}/p.jsonl --schema caption --backend {i}/backend.yaml",
    "train init": "dfktrain init sita_qwen35 --out {o}/t.yaml",
}
READING = {
    "check": "dfkdata check {i}/alpaca.jsonl --from alpaca",
    "preview": "dfkdata preview {i}/alpaca.jsonl --from alpaca",
    "schema": "dfkdata schema caption",
    "diff": "dfkdata diff {i}/data {i}/data",
    "pool": "dfkeval pool {i}/run-eval",
    "history": "dfkeval history {i}",
    "check config": "dfktrain check {i}/train.yaml --config-only",
}
#: Commands whose work may be stopped, and what they say of it.
GOING_ON = {
    "convert": "the same command converts again (with --workers it goes on)",
    "merge": "the same command merges again",
    "run": "keeps every answer that came; the same command goes on there",
    "score": "keeps its answers; the same command scores them again",
    "report": "the same command writes the pages again",
    "merge-runs": "the same command with --overwrite puts them together again",
    "label": "keeps every caption that was answered; the same command goes on there",
    "predict": "keeps every answer that came; the same command goes on there",
}


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A folder that other users may enter, with inputs and finished runs."""
    folder = Path(tempfile.mkdtemp(prefix="faults"))
    folder.chmod(0o755)
    inputs = folder / "in"
    inputs.mkdir()
    write_rows(inputs / "test.jsonl", DFK, 8)
    write_answers(inputs / "answers.jsonl", gold_answers(DFK, 8))
    for name, more in (("eval", ""), ("s1", "shard: 1/2\n"), ("s2", "shard: 2/2\n")):
        (inputs / f"{name}.yaml").write_text(CONFIG + more)
    rows = [
        json.dumps({"instruction": f"Apa {at}?", "input": "", "output": f"Jawab {at}"}) for at in range(20)
    ]
    (inputs / "alpaca.jsonl").write_text("\n".join(rows) + "\n")
    (inputs / "captions.csv").write_text("caption\n" + "".join(f"A red dog {at}.\n" for at in range(4)))
    (inputs / "backend.yaml").write_text("{kind: scripted, completions: answers.jsonl}\n")
    (inputs / "train.yaml").write_text("model: {name: tiny}\nstages: [{name: a, data: [data/train.jsonl]}]\n")
    runs = [f"dfkeval run {{i}}/{name}.yaml --out {{i}}/run-{name}" for name in ("eval", "s1", "s2")]
    more = "dfkdata convert {i}/alpaca.jsonl --from alpaca --to messages --out {i}/more --seed 7"
    for words in (WRITING["convert"].replace("{o}", "{i}"), more, *runs):
        assert called(words, folder).status == 0
    yield folder
    shutil.rmtree(folder)


def called(words: str, home: Path, *happens: Callable[[], None]) -> faults.Ended:
    filled = [word.format(i=home / "in", o=home / "out") for word in words.split()]
    return faults.run(MAINS[filled[0]], filled, *happens)


def fresh(home: Path) -> Path:
    """Return an empty folder to write into, with a scored run."""
    out = home / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    shutil.copytree(home / "in/run-eval", out / "scored")
    return out


def as_another_user() -> None:
    """Skip where this user is not root, or another one may not read our code, which commands import as they go."""
    if os.getuid() != 0:
        pytest.skip("only root becomes another user")

    def reads() -> None:
        for module in (sys.modules["dfkeval"], sys.modules["typer"]):
            Path(str(module.__file__)).read_bytes()

    if faults.run(reads, ["x"], faults.as_nobody).status != 0:
        pytest.skip("another user may not read our code here")


def check(ended: faults.Ended, status: int, *said: str) -> None:
    assert ended.status == status, ended.said
    assert "Traceback" not in ended.said and "Exception ignored" not in ended.said, ended.said
    for words in said:
        assert words in " ".join(ended.said.split()), ended.said


def content(folder: Path) -> dict[str, str]:
    """Return the hash of each file; times and a lock that a killed process left aside."""
    own = {"environment.json", "report.md", "report.html", ".lock"}
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in own
    }


@pytest.mark.parametrize("name", WRITING)
def test_a_file_that_may_not_grow_is_one_message(home: Path, name: str) -> None:
    fresh(home)
    ended = called(WRITING[name], home, faults.no_large_files())
    check(ended, 2, GOING_ON.get(name, ""))
    assert "file too large" in ended.said.lower()


@pytest.mark.parametrize("name", ["convert", "run", "label", "predict", "merge-runs"])
def test_a_full_disk_is_one_message(home: Path, name: str) -> None:
    out = fresh(home)
    if not faults.can_mount(out):
        pytest.skip("mounting is not allowed here")
    check(
        called(WRITING[name], home, faults.full_disk(out, 4096)), 2, "no space left on device", GOING_ON[name]
    )


@pytest.mark.parametrize("name", [*READING, "run", "convert"])
def test_a_full_standard_output_is_one_message(home: Path, name: str) -> None:
    fresh(home)
    check(called((READING | WRITING)[name], home, faults.stdout_full), 2, "no space left on device")


@pytest.mark.parametrize("name", WRITING)
def test_another_users_folder_is_one_message(home: Path, name: str) -> None:
    as_another_user()
    out = fresh(home)
    for path in [out, *out.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    check(called(WRITING[name], home, faults.as_nobody), 2)


@pytest.mark.parametrize(
    "name", [name for name in {**WRITING, **READING} if "init" not in name and name != "schema"]
)
def test_another_users_file_is_one_message(home: Path, name: str) -> None:
    as_another_user()
    out = fresh(home)
    out.chmod(0o777)
    closed = [path for folder in (home / "in", out) for path in folder.rglob("*") if path.is_file()]
    try:
        for path in closed:
            path.chmod(0o600)
        check(called((WRITING | READING)[name], home, faults.as_nobody), 2)
    finally:
        for path in closed:
            path.chmod(0o644)


@pytest.mark.parametrize(
    ("name", "sent"),
    [(name, signal.SIGTERM) for name in GOING_ON]
    + [(name, sent) for name in ("convert", "run", "label") for sent in (signal.SIGINT, signal.SIGHUP)],
)
def test_a_signal_ends_a_command_which_then_goes_on(home: Path, name: str, sent: signal.Signals) -> None:
    out = fresh(home)
    stopped = called(WRITING[name], home, faults.at_change(out, 5, sent))
    check(stopped, 128 + sent, f"stopped by {sent.name}", GOING_ON[name])
    after = called(WRITING[name] + (" --overwrite" if name == "merge-runs" else ""), home)
    gone_on = content(out)
    out = fresh(home)
    reference = called(WRITING[name], home)
    assert after.status == reference.status, after.said
    assert gone_on == content(out)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(("name", "moves"), [("convert", (15, 19, 21, 23)), ("merge", (14, 17, 20))])
def test_a_folder_whose_files_were_being_moved_is_written_again(
    home: Path, sent: signal.Signals, name: str, moves: tuple[int, ...]
) -> None:
    out = fresh(home)
    called(WRITING[name], home)
    whole = content(out)
    for at in moves:
        out = fresh(home)
        stopped = called(WRITING[name], home, faults.at_change(out, at, sent))
        assert stopped.status == (128 + sent if sent == signal.SIGTERM else -sent), stopped.said
        check(called(WRITING[name], home), 0)
        assert content(out) == whole, at


@pytest.mark.slow
@pytest.mark.parametrize("name", GOING_ON)
def test_a_command_that_is_killed_at_any_change_goes_on_to_the_same_result(home: Path, name: str) -> None:
    out = fresh(home)
    reference = called(WRITING[name], home).status
    whole, at = content(out), 0
    while True:
        at += 1
        out = fresh(home)
        if called(WRITING[name], home, faults.at_change(out, at, signal.SIGKILL)).status != -signal.SIGKILL:
            break
        again = WRITING[name] + (" --overwrite" if name == "merge-runs" else "")
        assert called(again, home).status == reference, at
        assert content(out) == whole, at
    assert at > 8


def test_a_reader_that_goes_away_is_no_traceback(home: Path) -> None:
    def nobody_reads() -> None:
        reads, writes = os.pipe()
        os.close(reads)
        os.dup2(writes, 1)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115

    ended = called(READING["schema"], home, nobody_reads)
    assert ended.status in (1, 141) and ended.said == ""
