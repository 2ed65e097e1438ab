"""kill -9 and start again: the same weights, history and counts as an undisturbed run."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dfkdata.common.config import load_config
from dfktrain import TrainConfig, train
from tests.helpers import processes

WORKER = """
import os, signal, sys, torch
torch.set_num_threads(1)
from dfkdata.common.config import load_config
from dfktrain import TrainConfig, train
config, out, stage, step = sys.argv[1:]
def watch(at):
    if at.stage == stage and at.step == int(step):
        os.kill(os.getpid(), signal.SIGKILL)
train(load_config(config, TrainConfig), out, progress=watch)
"""


def run(config: Path, out: Path, die_at: tuple[str, int] = ("", 0)) -> int | None:
    """Exit code of a training process that kills itself at (stage, step)."""
    process = processes.start(WORKER, [config, out, *die_at], out.with_name(f"{out.name}.log"))
    process.join(timeout=240)
    return process.exitcode


@pytest.fixture
def config(base_folder: Path, train_file: Path, tmp_path: Path) -> Path:
    stage: dict[str, Any] = {"data": [str(train_file)], "epochs": 2, "learning_rate": 5e-3}
    stage |= {"save_steps": 1, "warmup_ratio": 0.2}
    a = stage | {"name": "a", "batch_size": 3}
    b = stage | {"name": "b", "batch_tokens": 400, "optimizer": "adafactor"}
    made = {
        "model": {"name": str(base_folder)},
        "adapter": {"rank": 4, "dropout": 0.1, "target_modules": "language"},
        "stages": [a, b],
    }
    path = tmp_path / "train.yaml"
    path.write_text(json.dumps(made))  # JSON is YAML
    return path


def test_a_run_killed_in_each_stage_ends_like_an_undisturbed_one(config: Path, tmp_path: Path) -> None:
    train(load_config(config, TrainConfig), tmp_path / "calm")
    assert run(config, tmp_path / "killed", ("a", 2)) == -signal.SIGKILL
    assert not (tmp_path / "killed/stages/a/adapter").exists()
    assert run(config, tmp_path / "killed", ("a", 5)) == -signal.SIGKILL
    assert run(config, tmp_path / "killed", ("b", 3)) == -signal.SIGKILL
    assert (tmp_path / "killed/stages/a/adapter").exists()
    assert run(config, tmp_path / "killed") == 0
    calm, killed = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("calm", "killed"))
    for name in ("adapter", "stages/a/adapter", "stages/b/adapter"):
        one, two = (
            load_file(tmp_path / side / name / "adapter_model.safetensors") for side in ("calm", "killed")
        )
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), name
    for one, two in zip(calm["stages"], killed["stages"], strict=True):
        assert one["history"] == two["history"]
        assert (one["tokens"], one["scored_tokens"], one["steps"]) == (
            two["tokens"],
            two["scored_tokens"],
            two["steps"],
        )
