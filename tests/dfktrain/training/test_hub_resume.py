"""A stopped run goes to the Hub and on from there, on a machine that has nothing of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dfkdata.common.config import load_config
from dfkdata.common.errors import BackendError, ConfigError
from dfktrain import TrainConfig, hub, train
from dfktrain.training import hub_resume
from dfktrain.training.state import TrainingProgress
from tests.fakes.fake_hub import Hub
from tests.helpers.commands import called
from tests.helpers.models import text_row, write_rows


class Stopped(Exception):
    """The machine is taken away."""


@pytest.fixture(scope="module")
def config(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages with dropout. The second unlearns the answers of the first, by which it is validated: its
    best checkpoint, which it keeps, is its first."""
    folder = tmp_path_factory.mktemp("configured")
    answers = {"a": "benar " * 6, "b": "pembaca menyesatkan " * 3}
    for name, answer in answers.items():
        write_rows(folder / f"{name}.jsonl", [text_row(f"{name}{at}", f"{at}", answer) for at in range(6)])
    stage: dict[str, Any] = {"batch_size": 2, "log_steps": 1, "learning_rate": 3e-2}
    a = stage | {"name": "a", "data": [str(folder / "a.jsonl")], "steps": 4}
    b = stage | {"name": "b", "data": [str(folder / "b.jsonl")], "steps": 6, "save_steps": 2}
    b |= {"validation": [str(folder / "a.jsonl")], "eval_steps": 2, "best": True}
    made = {"model": {"name": str(base_folder)}, "adapter": {"rank": 4, "dropout": 0.1}, "stages": [a, b]}
    made["on_overlap"] = "warn"
    path = folder / "train.yaml"
    path.write_text(json.dumps(made))  # JSON is YAML
    return path


def stopped(config: Path, out: Path, stage: str, step: int) -> Path:
    """A run that ends at a step of a stage without warning."""

    def stop(at: TrainingProgress) -> None:
        if (at.stage, at.step) == (stage, step):
            raise Stopped

    with pytest.raises(Stopped):
        train(load_config(config, TrainConfig), out, progress=stop)
    return out


@pytest.fixture(scope="module")
def halted(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped at step 5 of its second stage."""
    return stopped(config, tmp_path_factory.mktemp("halted") / "run", "b", 5)


def test_a_run_that_goes_on_from_the_hub_ends_like_an_undisturbed_one(
    config: Path, halted: Path, fake: Hub, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    train(load_config(config, TrainConfig), tmp_path / "calm")
    code, said, err = called(monkeypatch, capsys, "push", halted, "--to", "org/model", "--checkpoint")
    assert code == 0, err
    address = f"hf://org/model@{fake.oid('main')}"
    assert f"--resume {address}" in said
    there = tmp_path / "elsewhere"
    code, _, err = called(monkeypatch, capsys, "run", config, "--out", there, "--resume", address)
    assert code == 0 and "after 1 finished stages and step 4 of the next" in err, err
    calm, far = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("calm", "elsewhere"))
    for name in ("adapter", "stages/a/adapter", "stages/b/adapter"):
        one, two = (
            load_file(tmp_path / side / name / "adapter_model.safetensors") for side in ("calm", "elsewhere")
        )
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one), name
    for one, two in zip(calm["stages"], far["stages"], strict=True):
        for key in ("history", "tokens", "scored_tokens", "steps", "fingerprint", "samples"):
            assert one[key] == two[key], key
    first = there / "stages/a/stage.json"
    assert first.read_bytes() == fake.revisions["main"]["checkpoint/stages/a/stage.json"]  # not trained again
    assert not list(there.glob(".resume-*"))


def test_what_is_sent_is_the_state_alone_and_names_no_folder(halted: Path, config: Path) -> None:
    files = {file.name: file for file in hub_resume.plan(halted)}
    at = "checkpoint/stages/b/checkpoints/"
    whole = {"adapter_config.json", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "complete"}
    whole |= {"rng_state.pth", "trainer_state.json", "chat_template.jinja"}
    assert {name.rpartition("/")[2] for name in files if name.startswith(f"{at}checkpoint-4/")} == whole
    assert f"{at}checkpoint-2/adapter_model.safetensors" in files  # the best so far
    assert f"{at}checkpoint-2/optimizer.pt" not in files and f"{at}checkpoint-2/complete" not in files
    assert {"checkpoint/stages/a/stage.json", "checkpoint/stages/b/started.json"} < set(files)
    for file in files.values():
        data = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
        assert str(halted.parent).encode() not in data and str(config.parent).encode() not in data, file.name
    state = json.loads(bytes(files[f"{at}checkpoint-4/trainer_state.json"].content))  # type: ignore[arg-type]
    assert state["best_model_checkpoint"] == "checkpoint-2" and state["global_step"] == 4


def test_the_best_checkpoint_is_at_home_where_it_came_to(halted: Path, fake: Hub, tmp_path: Path) -> None:
    address = hub.send(hub_resume.plan(halted), "org/model", replaces=hub_resume.FOLDER)
    hub_resume.restore(address, tmp_path / "out")
    folder = tmp_path / "out/stages/b/checkpoints"
    state = json.loads((folder / "checkpoint-4/trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(folder / "checkpoint-2")


def test_a_newer_state_takes_the_place_of_the_older_one(
    config: Path, halted: Path, fake: Hub, tmp_path: Path
) -> None:
    early = stopped(config, tmp_path / "early", "b", 3)
    fake.revisions["main"]["README.md"] = b"mine"
    hub.send(hub_resume.plan(early), "org/model", replaces=hub_resume.FOLDER)
    assert any("/checkpoint-2/optimizer.pt" in name for name in fake.revisions["main"])
    hub.send(hub_resume.plan(halted), "org/model", replaces=hub_resume.FOLDER)
    names = set(fake.revisions["main"])
    assert names == {file.name for file in hub_resume.plan(halted)} | {"README.md"}


def test_a_folder_that_is_as_far_keeps_what_it_has_and_one_that_is_not_is_refused(
    config: Path, halted: Path, fake: Hub, tmp_path: Path
) -> None:
    address = hub.send(hub_resume.plan(halted), "org/model")
    copy = tmp_path / "copy"
    shutil.copytree(halted, copy)
    (copy / "stages/b/mine.txt").write_text("kept")
    assert hub_resume.restore(address, copy) == hub_resume.State(1, 4)
    assert (copy / "stages/b/mine.txt").read_text() == "kept"
    early = stopped(config, tmp_path / "early", "b", 3)
    with pytest.raises(ConfigError, match=r"less far .*step 2 .*step 4"):
        hub_resume.restore(address, early)


def test_a_file_that_is_not_the_one_that_was_pushed_stops_it(halted: Path, fake: Hub, tmp_path: Path) -> None:
    hub.send(hub_resume.plan(halted), "org/model")
    name = "checkpoint/stages/b/checkpoints/checkpoint-4/optimizer.pt"
    fake.revisions["main"][name] = b"other" + fake.revisions["main"][name][5:]
    with pytest.raises(BackendError, match=r"optimizer\.pt is not the file that was pushed"):
        hub_resume.restore("hf://org/model", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["stages/../../evil", "/etc/x", "stages/b/checkpoints/checkpoint-4/../x", "run.json"]
)
def test_a_state_that_would_be_put_outside_the_stages_is_refused(
    name: str, halted: Path, fake: Hub, tmp_path: Path
) -> None:
    hub.send(hub_resume.plan(halted), "org/model")
    index = json.loads(fake.revisions["main"]["checkpoint/resume.json"])
    index["files"][name] = "0" * 64
    fake.revisions["main"]["checkpoint/resume.json"] = json.dumps(index).encode()
    with pytest.raises(BackendError, match="not of the form"):
        hub_resume.restore("hf://org/model", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_configuration_does_not_go_on_from_it(
    config: Path, halted: Path, fake: Hub, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    address = hub.send(hub_resume.plan(halted), "org/model")
    words = ["run", config, "--out", tmp_path / "out", "--resume", address, "--set", "seed=7"]
    code, _, err = called(monkeypatch, capsys, *words)
    assert code == 2 and "holds a stage of another configuration" in err


def test_what_has_no_state_says_what_to_do(
    config: Path, halted: Path, fake: Hub, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    fake.revisions["main"]["adapter_model.safetensors"] = b"x"
    with pytest.raises(ConfigError, match=r"no state to resume.*warm_start: hf://org/model"):
        hub_resume.restore("hf://org/model", tmp_path / "out")
    early = stopped(config, tmp_path / "early", "a", 1)
    with pytest.raises(ConfigError, match="no whole checkpoint yet"):
        hub_resume.plan(early)
    (early / "run.json").write_text("{}")
    code, _, err = called(monkeypatch, capsys, "push", early, "--to", "org/model", "--checkpoint")
    assert code == 2 and "finished, there is nothing to resume; push it without --checkpoint" in err


def test_a_dry_run_of_a_state_asks_nobody(halted: Path, fake: Hub, monkeypatch: Any, capsys: Any) -> None:
    code, said, _ = called(
        monkeypatch, capsys, "push", halted, "--to", "org/model", "--checkpoint", "--dry-run"
    )
    assert code == 0 and fake.asked == [] and "nothing was sent" in said
    assert "checkpoint/stages/b/checkpoints/checkpoint-4/optimizer.pt" in said
