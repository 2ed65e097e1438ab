"""Trackers get the log lines of every stage, and what is written is numbers and the configuration."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from dfktrain import TrainConfig, train


def config(base: Path, data: Path, *trackers: str) -> TrainConfig:
    stages = [{"name": name, "data": [str(data)], "steps": 2, "batch_size": 2} for name in ("a", "b")]
    made = {"model": {"name": str(base)}, "stages": stages, "trackers": trackers, "run_name": "first"}
    return TrainConfig.model_validate(made)


def test_tensorboard_holds_the_losses_of_each_stage_beside_it(
    base_folder: Path, train_file: Path, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(config(base_folder, train_file, "tensorboard"), tmp_path / "out")
    for stage in result.stages:
        events = EventAccumulator(str(tmp_path / "out/stages" / stage.name / "tensorboard"))
        events.Reload()
        written = [event.value for event in events.Scalars("train/loss")]
        assert written == pytest.approx([line["loss"] for line in stage.history if "loss" in line])


class Fake(types.ModuleType):
    """The part of wandb that is used, keeping what it was told."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = types.SimpleNamespace(name="wandb", loader=None)  # type: ignore[assignment]
        self.run: Any = None
        self.opened: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []
        self.axes: dict[str, str] = {}

    def init(self, **words: Any) -> None:
        self.run = object()
        self.opened.append(words)

    def define_metric(self, name: str, step_metric: str) -> None:
        self.axes[name] = step_metric

    def log(self, line: dict[str, Any]) -> None:
        self.lines.append(line)


def test_one_wandb_run_gets_the_numbers_of_all_stages_under_their_names(
    monkeypatch: pytest.MonkeyPatch, base_folder: Path, train_file: Path, tmp_path: Path
) -> None:
    fake = Fake()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_API_KEY", "secret-key")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    result = train(config(base_folder, train_file, "wandb"), tmp_path / "out")
    (opened,) = fake.opened
    assert (opened["project"], opened["name"]) == ("dfk", "first")
    assert opened["config"]["stages"][0]["name"] == "a"
    assert fake.axes == {"a/*": "a/step", "b/*": "b/step"}
    for stage in result.stages:
        sent = [line[f"{stage.name}/loss"] for line in fake.lines if f"{stage.name}/loss" in line]
        assert sent == [line["loss"] for line in stage.history if "loss" in line]
    assert "secret-key" not in str(fake.opened) + str(fake.lines)


def test_other_ranks_than_the_first_are_silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dfktrain.training.callbacks.trackers import callbacks

    made = config(tmp_path, tmp_path, "tensorboard")
    monkeypatch.setenv("RANK", "1")
    assert callbacks(made, made.stages[0], tmp_path) == []
    assert not list(tmp_path.iterdir())
