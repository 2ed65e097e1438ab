"""Settings that only change how fast a run is leave its weights as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dfktrain import TrainConfig, train
from dfktrain.training.arguments import loader_workers


@pytest.mark.parametrize("budget", [{"batch_size": 4}, {"batch_tokens": 400}])
def test_workers_and_fused_layers_leave_the_weights_as_they_are(
    base_folder: Path,
    train_file: Path,
    tmp_path: Path,
    budget: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # how long torch waits for each worker of a finished epoch, which in a process of tests does not end by itself
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    stage = {"name": "s", "data": [str(train_file)], "epochs": 1, "learning_rate": 1e-3, **budget}
    weights = []
    for number, speed in enumerate(({}, {"workers": 2}, {"fused_layers": True, "cuda_graphs": True})):
        made = {"model": {"name": str(base_folder)}, "adapter": {"rank": 4}, "stages": [stage], **speed}
        result = train(TrainConfig.model_validate(made), tmp_path / str(number))
        weights.append(load_file(result.adapter / "adapter_model.safetensors"))
        fused = result.run["stages"][0]["fused"]
        assert fused.get("adapter products") == ("on" if "fused_layers" in speed else None)
        assert set(fused.values()) <= {"on", "no GPU"}
    plain, ahead, fused_weights = weights
    assert all(torch.equal(plain[name], ahead[name]) for name in plain)
    # AdamW divides by the gradient's size, so rounding grows to a share of the rate where it is nearly zero
    moved = torch.cat([(plain[name] - fused_weights[name]).flatten() for name in plain])
    assert float(moved.norm() / torch.cat([each.flatten() for each in plain.values()]).norm()) <= 1e-3


@pytest.mark.parametrize(
    ("cores", "gpus", "pictures", "workers"),
    [
        (16, 1, True, 8),
        (16, 1, False, 2),
        (8, 4, True, 1),
        (2, 1, True, 1),
        (1, 0, True, 1),
        (32, 2, True, 8),
    ],
)
def test_workers_are_chosen_by_what_the_machine_has(
    monkeypatch: pytest.MonkeyPatch, cores: int, gpus: int, pictures: bool, workers: int
) -> None:
    config: dict[str, Any] = {"model": {"name": "tiny"}, "stages": [{"name": "s", "data": ["x.jsonl"]}]}
    asked = TrainConfig.model_validate(config)
    assert loader_workers(asked, pictures=pictures) == 0  # no GPU here
    assert loader_workers(asked.model_copy(update={"workers": 3}), pictures=False) == 3
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert loader_workers(asked, pictures=pictures) == workers
    assert loader_workers(asked.model_copy(update={"workers": 0}), pictures=pictures) == 0


@pytest.mark.parametrize("packed", [False, True])
def test_pictures_as_bytes_leave_the_weights_as_they_are(
    base_folder: Path, train_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    stage = {"name": "s", "data": [str(train_file)], "epochs": 1, "batch_tokens": 400, "packing": packed}
    made = {"model": {"name": str(base_folder)}, "adapter": {"rank": 4}, "stages": [stage]}
    weights = []
    for on_device in (False, True):
        monkeypatch.setattr("dfktrain.training.stage._numbers_on_device", lambda on=on_device: on)
        result = train(TrainConfig.model_validate(made), tmp_path / str(on_device))
        weights.append(load_file(result.adapter / "adapter_model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
