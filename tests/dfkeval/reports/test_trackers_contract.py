"""Numbers of a run in TensorBoard files and in W&B: what arrives, and what never leaves."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from dfkdata.common import plugins
from dfkdata.common.errors import ConfigError
from dfkeval import evaluate
from dfkeval.cli import app
from dfkeval.reports import trackers
from dfkeval.runs.run import Run
from tests.helpers.runs import DFK, config_of, gold_answers, write_answers, write_rows

SECRET = "rahasia besar"


class FakeSession:
    """What `wandb.init` returns, keeping what it is told."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.summary: dict[str, Any] = {}
        self.finished = False
        self.url = "https://example.invalid/run"

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[FakeSession]:
    """Every session that was opened with the stand-in for wandb."""
    opened: list[FakeSession] = []
    fake = ModuleType("wandb")
    fake.__spec__ = importlib.util.spec_from_loader("wandb", loader=None)

    def init(**settings: Any) -> FakeSession:
        opened.append(FakeSession(settings))
        return opened[-1]

    fake.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return opened


def run_of(tmp_path: Path, name: str = "run", **more: Any) -> Run:
    answers = [(i, SECRET if k < 3 else text) for k, (i, text) in enumerate(gold_answers(DFK, 12))]
    data = write_rows(tmp_path / "test.jsonl", DFK, 12)
    path = write_answers(tmp_path / "answers.jsonl", answers)
    return evaluate(config_of(data, path, ["validity", "labels"], **more), tmp_path / "runs" / name)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder))
    found.Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]
    }


@pytest.mark.parametrize("name", plugins.names(trackers.FAMILY))
def test_every_tracker_keeps_the_contract(name: str) -> None:
    module = plugins.load(trackers.FAMILY, name)
    assert isinstance(module.PACKAGE, str)
    assert list(inspect.signature(module.send).parameters) == ["run", "step", "folder"]


def test_tensorboard_files_hold_every_number_of_the_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = run_of(tmp_path, trackers=["tensorboard"])
    got = scalars(run.folder / "tensorboard")
    want = {name.replace(".", "/", 1): value for name, value in trackers.numbers(run)}
    assert {tag: value for tag, [(_, value)] in got.items()} == pytest.approx(want)
    assert got["labels/accuracy"] == [(0, pytest.approx(0.75))]
    assert "labels/accuracy.low" in got and got["outcomes/ok"] == [(0, pytest.approx(0.75))]
    written = b"".join(path.read_bytes() for path in (run.folder / "tensorboard").iterdir())
    assert SECRET.encode() not in written
    assert b"| labels.accuracy | 0.750 |" in written


def test_sending_again_replaces_the_files_of_the_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = run_of(tmp_path, trackers=["tensorboard"])
    trackers.send(run, ["tensorboard"], step=7)
    assert scalars(run.folder / "tensorboard")["labels/accuracy"] == [(7, pytest.approx(0.75))]


def test_wandb_gets_numbers_and_configuration_and_no_texts(
    tmp_path: Path, sessions: list[FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    run = run_of(tmp_path, trackers=["wandb"])
    (session,) = sessions
    assert session.finished
    assert session.logged == [(0, dict(trackers.numbers(run)))]
    assert session.summary["labels.accuracy"] == 0.75 and session.summary["n"] == 12
    assert (session.settings["project"], session.settings["name"]) == ("dfk", "run")
    assert session.settings["config"]["metrics"] == ["validity", "labels"]
    told = repr((session.settings, session.logged, session.summary))
    assert SECRET not in told and "Unggahan" not in told


def test_a_run_that_is_sent_again_is_the_same_one_there(tmp_path: Path, sessions: list[FakeSession]) -> None:
    run, other = run_of(tmp_path), run_of(tmp_path, "other")
    for each in (run, run, other):
        trackers.send(each, ["wandb"])
    ids = [session.settings["id"] for session in sessions]
    assert ids[0] == ids[1] != ids[2]
    assert {session.settings["resume"] for session in sessions} == {"allow"}


def test_a_missing_package_and_an_unknown_name_are_said_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"tracker 'wandb' needs wandb: pip install \"dfk\[trackers\]\""):
        run_of(tmp_path, trackers=["wandb"])
    with pytest.raises(ConfigError, match=r"is not one of dfkeval\.reports\.trackers: tensorboard, wandb"):
        run_of(tmp_path, trackers=["mlflow"])
    assert not (tmp_path / "runs").exists()


def test_the_command_puts_several_runs_on_one_axis(tmp_path: Path, sessions: list[FakeSession]) -> None:
    pytest.importorskip("tensorboard")
    folders = [str(run_of(tmp_path, name).folder) for name in ("a", "b")]
    logs = tmp_path / "logs"
    called = CliRunner().invoke(
        app.app, ["track", *folders, "--to", "tensorboard", "--to", "wandb", "--folder", str(logs)]
    )
    assert called.exit_code == 0, called.output
    assert [scalars(logs / name)["labels/accuracy"][0][0] for name in ("a", "b")] == [0, 1]
    assert [session.logged[0][0] for session in sessions] == [0, 1]
    assert f"{folders[1]}: {logs / 'b'}" in called.stdout


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"cannot be written.*--folder"):
        trackers.send(run, ["tensorboard"], folder=tmp_path / "file")
