"""Two gloo ranks: the same gradient as one process, also when one rank has text only, and no hang."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from train_helpers import image_row, text_row, write_rows

WORKER = """
import sys, torch
torch.set_num_threads(1)
from dfkdata.config import load_config
from dfktrain import TrainConfig, train
train(load_config(sys.argv[1], TrainConfig), sys.argv[2])
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(config: Path, out: Path, ranks: int) -> None:
    """Train in `ranks` processes, started as torchrun starts them; fails loudly after 240 s."""
    port = str(free_port())
    workers = []
    for rank in range(ranks):
        env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        if ranks > 1:
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        words = [sys.executable, "-c", WORKER, str(config), str(out)]
        workers.append(
            subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    try:
        said = [worker.communicate(timeout=240)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0] * ranks, "\\n".join(said)[-3000:]


def torchrun(config: Path, out: Path, ranks: int) -> None:
    """The command as users start it on several devices."""
    words = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", f"--master-port={free_port()}"]
    words += ["-m", "dfktrain.cli", "run", str(config), "--out", str(out)]
    env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("adapter: ") == 1  # rank 0 alone speaks


def config(tmp_path: Path, base: Path, data: Path, **changes: Any) -> Path:
    stage = {"name": "s", "data": [str(data)], "group_by_length": False, "learning_rate": 1e-3, "steps": 1}
    stage |= {"optimizer": "sgd", "clip": 0, "scheduler": "constant"}  # the step is then the gradient
    made = {"model": {"name": str(base)}, "adapter": {"rank": 4}, "stages": [stage | changes]}
    made |= {"checkpointing": changes.get("checkpointing", "none")}
    made["stages"][0].pop("checkpointing", None)
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml"
    path.write_text(json.dumps(made))
    return path


def adapter(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "adapter/adapter_model.safetensors")


def test_two_ranks_take_the_same_step_as_one(base_folder: Path, train_file: Path, tmp_path: Path) -> None:
    run(config(tmp_path, base_folder, train_file, batch_size=8, learning_rate=100), tmp_path / "one", 1)
    torchrun(
        config(tmp_path, base_folder, train_file, batch_size=2, accumulation=2, learning_rate=100),
        tmp_path / "two",
        2,
    )
    one, two = adapter(tmp_path / "one"), adapter(tmp_path / "two")
    keys = [key for key in one if "lora_B" in key]  # they start at zero: the gradient times the rate
    left, right = (torch.cat([side[key].flatten().double() for key in keys]) for side in (one, two))
    assert float(left.norm()) > 0
    assert float((left - right).norm() / left.norm()) <= 1e-6
    history = [
        json.loads((tmp_path / name / "run.json").read_text())["stages"][0]["history"]
        for name in ("one", "two")
    ]
    assert history[0][0]["loss"] == pytest.approx(history[1][0]["loss"], rel=1e-6)


@pytest.mark.parametrize("checkpointing", ["none", "torch"])
def test_a_text_rank_beside_an_image_rank_does_not_hang(
    base_folder: Path, pictures: list[str], tmp_path: Path, checkpointing: str
) -> None:
    kinds = [
        [text_row(f"t{i}", "b", "c") for i in range(8)],
        [image_row(f"i{i}", pictures[:1], "b", "c") for i in range(8)],
    ]
    order = torch.randperm(16, generator=torch.Generator().manual_seed(42 * 1_000_003)).tolist()
    rows: list[dict[str, Any]] = [{}] * 16
    for place, index in enumerate(order):  # so that after shuffling, ranks see text and images alternately
        rows[index] = kinds[place % 2][place // 2]
    data = write_rows(tmp_path / "mixed.jsonl", rows)
    made = config(
        tmp_path,
        base_folder,
        data,
        batch_size=1,
        steps=3,
        optimizer="adamw_torch",
        checkpointing=checkpointing,
    )
    run(made, tmp_path / "out", 2)
    losses = [
        line["loss"] for line in json.loads((tmp_path / "out/run.json").read_text())["stages"][0]["history"]
    ]
    assert len(losses) == 3
    moved = [
        name for name, tensor in adapter(tmp_path / "out").items() if ".visual." in name and "lora_B" in name
    ]
    assert moved


def test_two_ranks_share_batches_of_a_token_budget(
    base_folder: Path, train_file: Path, tmp_path: Path
) -> None:
    stage = {"batch_tokens": 400, "packing": True, "steps": None, "epochs": 1, "optimizer": "adamw_torch"}
    run(config(tmp_path, base_folder, train_file, **stage), tmp_path / "out", 2)
    done = json.loads((tmp_path / "out/run.json").read_text())["stages"][0]
    assert done["packing"] == "on"
    assert done["steps"] >= 2
    assert len(done["history"]) == done["steps"]
