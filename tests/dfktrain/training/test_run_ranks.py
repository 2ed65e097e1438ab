"""Two gloo ranks: the same gradient as one process, also when one rank has text only, and no hang; the same
with weights sharded by FSDP2."""

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

from dfkdata.common import media_roots
from dfkdata.common.config import load_config
from dfktrain import TrainConfig, train
from tests.helpers import processes
from tests.helpers.models import image_row, text_row, write_rows

WORKER = """
import sys, torch
torch.set_num_threads(1)
from dfkdata.common.config import load_config
from dfktrain import TrainConfig, train
train(load_config(sys.argv[1], TrainConfig), sys.argv[2])
"""

COMMAND = """
import sys, torch
torch.set_num_threads(1)
from dfktrain.cli.app import main
sys.argv = ["dfktrain", "run", sys.argv[1], "--out", sys.argv[2]]
main()
"""
"""What torchrun starts on every rank."""

SHARDED = """
import accelerate.state as state
plain = state.AcceleratorState.__init__
def init(self, *words, fsdp_plugin=None, **more):
    plain(self, *words, fsdp_plugin=fsdp_plugin, **more)
    kept = fsdp_plugin or self.__dict__.get("fsdp_plugin")
    if kept is not None:
        self.fsdp_plugin, self.distributed_type = kept, state.DistributedType.FSDP
state.AcceleratorState.__init__ = init
"""
"""accelerate shards on accelerators only, and on CPUs quietly falls back to DDP; this lets it shard there."""

FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(
    config: Path, out: Path, ranks: int, sharded: bool = False, fails: str = "", code: str = WORKER
) -> list[str]:
    """Train in `ranks` processes, started as torchrun starts them; fails loudly after 240 s. fails: what all
    ranks must say when they stop. Returns what each rank printed."""
    port = str(free_port())
    code = SHARDED + code if sharded else code
    workers, logs = [], []
    for rank in range(ranks):
        env = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"} | (FSDP2 if sharded else {})
        if ranks > 1:
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        logs.append(out.with_name(f"{out.name}.{rank}.log"))
        workers.append(processes.start(code, [config, out], logs[-1], env))
    try:
        for worker in workers:
            worker.join(timeout=240)
    finally:
        for worker in workers:
            worker.kill()
    printed = [log.read_text(encoding="utf-8", errors="replace") for log in logs]
    expected = [1 if fails else 0] * ranks
    assert [worker.exitcode for worker in workers] == expected, "\n".join(printed)[-3000:]
    assert all(fails in text for text in printed)
    return printed


def torchrun(config: Path, out: Path, ranks: int) -> None:
    """The command as users start it on several devices."""
    words = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", f"--master-port={free_port()}"]
    words += ["-m", "dfktrain", "run", str(config), "--out", str(out)]
    env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("adapter: ") == 1  # rank 0 alone speaks


def config(tmp_path: Path, base: Path, data: Path, **changes: Any) -> Path:
    stage = {"name": "s", "data": [str(data)], "group_by_length": False, "learning_rate": 1e-3, "steps": 1}
    stage |= {"optimizer": "sgd", "clip": 0, "scheduler": "constant"}  # the step is then the gradient
    made = {"model": {"name": str(base)}, "adapter": {"rank": 4}, "stages": [stage | changes]}
    made |= {"checkpointing": changes.get("checkpointing", "none"), "media_roots": media_roots.allowed()}
    made["stages"][0].pop("checkpointing", None)
    if "batch_tokens" in changes:
        made["stages"][0].pop("group_by_length")
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml"
    path.write_text(json.dumps(made))
    return path


def adapter(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "adapter/adapter_model.safetensors")


@pytest.mark.parametrize("how", ["forks", pytest.param("torchrun", marks=pytest.mark.slow)])
def test_two_ranks_take_the_same_step_as_one(
    base_folder: Path, train_file: Path, tmp_path: Path, how: str
) -> None:
    """The command in both; torchrun brings three interpreters that import torch, and is slow."""
    whole = config(tmp_path, base_folder, train_file, batch_size=8, learning_rate=100)
    train(load_config(whole, TrainConfig), tmp_path / "one")
    halves = config(tmp_path, base_folder, train_file, batch_size=2, accumulation=2, learning_rate=100)
    if how == "torchrun":
        torchrun(halves, tmp_path / "two", 2)
    else:
        printed = run(halves, tmp_path / "two", 2, code=COMMAND)
        assert sum(text.count("adapter: ") for text in printed) == 1  # rank 0 alone speaks
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


def alternating(pictures: list[str], tmp_path: Path) -> Path:
    """Rows of which, after shuffling, one rank sees the texts and the other the images."""
    kinds = [
        [text_row(f"t{i}", "b", "c") for i in range(8)],
        [image_row(f"i{i}", pictures[:1], "b", "c") for i in range(8)],
    ]
    order = torch.randperm(16, generator=torch.Generator().manual_seed(42 * 1_000_003)).tolist()
    rows: list[dict[str, Any]] = [{}] * 16
    for place, index in enumerate(order):  # so that after shuffling, ranks see text and images alternately
        rows[index] = kinds[place % 2][place // 2]
    return write_rows(tmp_path / "mixed.jsonl", rows)


@pytest.mark.parametrize("checkpointing", ["none", "torch"])
def test_a_text_rank_beside_an_image_rank_does_not_hang(
    base_folder: Path, pictures: list[str], tmp_path: Path, checkpointing: str
) -> None:
    data = alternating(pictures, tmp_path)
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


@pytest.mark.parametrize("stages", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sharded_weights_take_the_same_steps_also_beside_a_rank_with_text_only(
    base_folder: Path, pictures: list[str], tmp_path: Path, stages: int
) -> None:
    """FSDP2 over gloo: mixed ranks, an uneven validation set, a launch for each stage, and the adapter loads.
    One process takes twice the batch."""
    from dfkeval.models import loader

    data = alternating(pictures, tmp_path)
    held = write_rows(tmp_path / "held.jsonl", [text_row(f"v{i}", "b", "c d") for i in range(3)])
    stage: dict[str, Any] = {"steps": 2, "learning_rate": 0.1, "validation": [str(held)], "eval_steps": 2}

    def written(batch: int) -> Path:
        path = config(tmp_path, base_folder, data, batch_size=batch, **stage)
        made = json.loads(path.read_text())
        if stages == 2:
            made["stages"].append(made["stages"][0] | {"name": "more", "steps": 1})
        path.write_text(json.dumps(made))
        return path

    train(load_config(written(2), TrainConfig), tmp_path / "one")
    if stages == 2:
        run(written(1), tmp_path / "two", 2, sharded=True, fails="goes on with stage more")
    run(written(1), tmp_path / "two", 2, sharded=True)
    one, two = adapter(tmp_path / "one"), adapter(tmp_path / "two")
    assert one.keys() == two.keys()
    keys = [key for key in one if "lora_B" in key]
    left, right = (torch.cat([side[key].flatten().double() for key in keys]) for side in (one, two))
    assert float((left - right).norm() / left.norm()) <= 1e-5  # after two or three steps
    assert any(".visual." in key and bool(two[key].any()) for key in keys)
    loader.load(base_folder, adapter=tmp_path / "two/adapter", device="cpu")
    histories = [
        [line for stage in json.loads((tmp_path / name / "run.json").read_text())["stages"]
         for line in stage["history"]]
        for name in ("one", "two")
    ]  # fmt: skip
    for key in ("loss", "eval_loss"):
        ours, theirs = ([line[key] for line in history if key in line] for history in histories)
        assert ours == pytest.approx(theirs, rel=1e-5) and ours
