"""Training, rejection sampling, sweeps and pushes that are stopped go on by the same command to the same files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from dfkdata.rows.messages import write_text
from tests.fakes.fake_hub import TOKEN, Hub, running
from tests.helpers import processes
from tests.helpers.places import ROOT
from tests.helpers.runs import DFK, dfk_gold, row_of

#: Runs a command that gets a signal before its n-th change of a folder, or may not let files grow.
STOPPED = """
import importlib, os, sys
sys.path.insert(0, sys.argv[1])
from tests.helpers import faults
folder, at, sent = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
os.chdir(folder)
if sent:
    faults.at_change(os.path.join(folder, "out"), at, sent)()
else:
    faults.no_large_files(at)()
sys.argv = sys.argv[5:]
importlib.import_module(sys.argv[0] + ".cli.app").main()
"""
STAGE = {"name": "sft", "data": ["rows.jsonl"], "steps": 2, "save_steps": 1, "batch_size": 2}
TRAINING = {"model": {"name": "tiny"}, "precision": "fp32", "engine": "transformers", "adapter": {"rank": 2}}
EVALUATION = {
    "schema": "dfk_label",
    "backend": {"kind": "scripted", "completions": "answers.jsonl"},
    "resamples": 100,
}
WORDS = {
    "train": "dfktrain run train.yaml --out {o}/t",
    "rft": "dfktrain rft rft.yaml --out {o}/r",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    rows = [row_of(at, DFK) for at in range(4)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [
        {"id": f"{row['id']}#{draw}", "text": write_text(dfk_gold(at + draw - 1), DFK.form)}  # type: ignore[arg-type]
        for at, row in enumerate(rows)
        for draw in (1, 2)
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    (folder / "train.yaml").write_text(json.dumps(TRAINING | {"stages": [STAGE]}))
    sample = EVALUATION | {"data": "rows.jsonl", "sampling": {"repeats": 2, "temperature": 0.7}}
    rft = {"sample": sample, "accept": {"schema_valid": {}, "label_match": {}}}
    training = TRAINING | {"stages": [STAGE | {"data": ["accepted"]}]}
    (folder / "rft.yaml").write_text(json.dumps(rft | {"train": training}))
    return folder


def called(home: Path, words: str, at: int, sent: int, **env: str) -> tuple[int, str]:
    log = home / "log"
    process = processes.start(
        STOPPED, [ROOT, home, at, sent, *words.format(o=home / "out").split()], log, env
    )
    process.join()
    return int(process.exitcode or 0), log.read_text(encoding="utf-8")


def whole(home: Path, words: str) -> dict[str, str]:
    status, said = called(home, words, 10**9, signal.SIGKILL)
    assert status == 0, said
    return content(home / "out")


def content(folder: Path) -> dict[str, str]:
    """The hash of what a command is for: weights, rows without their provenance, and samples without times."""
    kept = ("adapter_model.safetensors", "accepted.jsonl", "samples.jsonl")
    return {
        str(path.relative_to(folder)): hashlib.sha256(_timeless(path)).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.name in kept and "checkpoints" not in path.parts
    }


def _timeless(path: Path) -> bytes:
    if path.suffix != ".jsonl":
        return path.read_bytes()
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    for row in rows:
        row.get("meta", {}).pop("rft", None)
        row |= dict.fromkeys(row.keys() & {"seconds", "first_token_seconds"})
    return json.dumps(rows).encode()


def fresh(home: Path) -> None:
    shutil.rmtree(home / "out", ignore_errors=True)
    (home / "out").mkdir()


def test_a_training_that_may_write_no_weights_is_one_message(home: Path) -> None:
    fresh(home)
    status, said = called(home, WORDS["train"], 100_000, 0)
    assert status == 2 and "Traceback" not in said and "too large" in said.lower(), said


@pytest.mark.slow
@pytest.mark.parametrize("name", WORDS)
def test_a_command_that_is_killed_goes_on_to_the_same_files(home: Path, name: str) -> None:
    fresh(home)
    reference, kills = whole(home, WORDS[name]), 0
    assert reference
    for at in (*range(2, 20, 4), *range(20, 400, 17)):
        fresh(home)
        status, said = called(home, WORDS[name], at, signal.SIGKILL)
        if status == 0:
            break
        assert status == -signal.SIGKILL, said
        kills += 1
        assert whole(home, WORDS[name]) == reference, at
    assert kills >= 5


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_to_the_same_files(home: Path) -> None:
    words = "dfktrain sweep sweep.yaml --out {o}/s --vary stages.0.learning_rate=1e-4,5e-3"
    backend = {"kind": "transformers", "model": "none", "adapter": "none"}
    asked = {
        "data": "rows.jsonl",
        "backend": backend,
        "schema": "dfk_label",
        "resamples": 100,
        "sampling": {"max_new_tokens": 4},
    }
    (home / "ask.yaml").write_text(json.dumps(asked))
    held_out = [row_of(at, DFK) for at in (5, 6)]
    (home / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held_out))
    evaluation = {"config": "ask.yaml", "data": "held_out.jsonl"}
    (home / "sweep.yaml").write_text(json.dumps(TRAINING | {"stages": [STAGE], "evaluate": evaluation}))
    fresh(home)
    reference = whole(home, words)
    assert len([name for name in reference if name.endswith(".safetensors")]) >= 2
    for at in (3, 7):
        fresh(home)
        status, said = called(home, words, at, signal.SIGKILL)
        assert status == -signal.SIGKILL, said
        assert whole(home, words) == reference, at


@pytest.mark.slow
def test_a_push_that_is_killed_sends_nothing_or_all_and_the_same_command_sends_all(home: Path) -> None:
    fresh(home)
    whole(home, WORDS["train"])
    words = f"dfktrain push {home}/out/t --to org/model".split()

    def pushed(hub: Hub, kill_at: int) -> int:
        """Push, and kill the process when it asks the hub for the `kill_at`-th time to take something."""
        env = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
        process = processes.start(processes.COMMAND, [home, *words], home / "log", env)
        posts, real = 0, hub.post

        def post(path: str, body: bytes) -> Any:
            nonlocal posts
            posts += 1
            if posts == kill_at:
                os.kill(int(process.pid or 0), signal.SIGKILL)
            return real(path, body)

        hub.post = post  # type: ignore[method-assign]
        process.join()
        hub.post = real  # type: ignore[method-assign]
        assert process.exitcode in (0, -signal.SIGKILL), (home / "log").read_text()
        return posts

    with running() as hub:
        posts = pushed(hub, 0)
        reference = dict(hub.revisions["main"])
    assert any(name.endswith(".safetensors") for name in reference) and posts >= 3
    for at in range(1, posts + 1):
        with running() as hub:
            pushed(hub, at)
            assert hub.revisions["main"] in ({}, reference), at
            pushed(hub, 0)
            assert hub.revisions["main"] == reference, at
