"""The model is asked while it is trained, and the training does not notice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dfkdata.common.errors import ConfigError, DataError
from dfkeval import evaluate, load_run
from dfktrain import TrainConfig, train
from dfktrain.training import monitor_plan
from dfktrain.training.callbacks.monitor import untouched
from tests.helpers.models import image_row, text_row, write_rows


@pytest.fixture
def files(tmp_path: Path, pictures: list[str]) -> dict[str, Path]:
    """Eight rows to train on, and twelve to watch, one of them with a picture."""
    meta = {"schema": "answer", "gold": {"answer": "yes"}}
    rows = [text_row(f"r{at}", f"{at}?", "yes", meta={"group": str(at), **meta}) for at in range(12)]
    rows[3] = image_row("i3", pictures[:1], "?", "yes") | {"meta": {"group": "3", **meta}}
    return {
        "train": write_rows(tmp_path / "train.jsonl", rows[:8]),
        "watch": write_rows(tmp_path / "watch.jsonl", rows),
    }


def configured(files: dict[str, Path], watch: dict[str, Any] | None, **more: Any) -> TrainConfig:
    """Six steps with dropout, watched every two where `watch` is given."""
    stage = {"name": "s", "data": [str(files["train"])], "steps": 6, "batch_size": 4, "max_length": 96}
    stage |= {"learning_rate": 5e-3, "save_steps": 2} | more.pop("stage", {})
    made: dict[str, Any] = {
        "model": {"name": "tiny"},
        "adapter": {"rank": 4, "dropout": 0.2},
        "stages": [stage],
    }
    return TrainConfig.model_validate(made | ({"watch": watch} if watch else {}) | more)


def watched(files: dict[str, Path], **more: Any) -> dict[str, Any]:
    """A watch of eight rows every two steps."""
    asked = {"data": str(files["watch"]), "limit": 8, "metrics": ["answers"], "every_steps": 2}
    return asked | {"sampling": {"max_new_tokens": 3}} | more


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The adapter's tensors."""
    return load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize("how", [{"checkpointing": "torch"}, {"precision": "bf16"}])
def test_a_watched_run_ends_with_the_weights_of_one_that_is_not(
    files: dict[str, Path], tmp_path: Path, how: dict[str, Any]
) -> None:
    plain = train(configured(files, None, **how), tmp_path / "plain")
    asked = train(configured(files, watched(files), **how), tmp_path / "asked")
    one, two = weights(tmp_path / "plain"), weights(tmp_path / "asked")
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    losses = [[line["loss"] for line in run.stages[0].history if "loss" in line] for run in (plain, asked)]
    assert losses[0] == losses[1]
    points = [line for line in asked.stages[0].history if "watch/answers.exact" in line]
    assert [line["step"] for line in points] == [0, 2, 4, 6]
    assert points[-1]["watch/answers.f1"] > points[0]["watch/answers.f1"]
    assert not any(key.startswith("watch/") for line in plain.stages[0].history for key in line)


def test_the_last_point_is_what_the_saved_adapter_answers(files: dict[str, Path], tmp_path: Path) -> None:
    """Also with recomputed activations, in training mode until the moment it is asked."""
    out = tmp_path / "out"
    train(configured(files, watched(files), checkpointing="torch"), out)
    point = load_run(out / "stages/s/watch/step-000006")
    assert len(point.samples) == 8 and {sample.outcome for sample in point.samples} == {"ok"}
    backend = {"kind": "transformers", "model": "tiny", "adapter": out / "adapter"}
    later = evaluate(point.config.model_copy(update={"backend": _backend(backend)}), tmp_path / "later")
    assert [sample.text for sample in later.samples] == [sample.text for sample in point.samples]
    first = load_run(out / "stages/s/watch/step-000000")
    assert [sample.text for sample in first.samples] != [sample.text for sample in point.samples]


def _backend(value: dict[str, Any]) -> Any:
    from dfkeval.runs.config import backend_of

    return backend_of(value)


@pytest.mark.parametrize("where", ["run", "stage"])
def test_a_watch_that_is_added_to_a_finished_run_does_not_train_it_again(
    files: dict[str, Path], tmp_path: Path, where: str
) -> None:
    out = tmp_path / "out"
    before = train(configured(files, None), out)
    asked = watched(files)
    config = configured(files, asked) if where == "run" else configured(files, None, stage={"watch": asked})
    assert config.monitor_of(config.stages[0]) is not None
    again = train(config, out)
    assert again.stages[0].fingerprint == before.stages[0].fingerprint
    assert again.stages[0].seconds == before.stages[0].seconds  # loaded, not trained


def test_a_watched_run_that_was_stopped_goes_on_to_the_same_weights_and_points(
    files: dict[str, Path], tmp_path: Path
) -> None:
    calm = train(configured(files, watched(files)), tmp_path / "calm")

    def stop(at: Any) -> None:
        if at.step == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(configured(files, watched(files)), tmp_path / "again", progress=stop)
    assert not (tmp_path / "again/run.json").exists()
    again = train(configured(files, watched(files)), tmp_path / "again")
    one, two = weights(tmp_path / "calm"), weights(tmp_path / "again")
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert calm.stages[0].history == again.stages[0].history  # no point lost, none twice
    points = [line["step"] for line in again.stages[0].history if "watch/answers.exact" in line]
    assert points == [0, 2, 4, 6]


def test_the_slice_is_drawn_by_the_seed_and_nothing_else(files: dict[str, Path], tmp_path: Path) -> None:
    asked = configured(files, watched(files, limit=5)).watch
    assert asked is not None
    one, two, other = (
        monitor_plan.write_rows(asked, seed, tmp_path / name).read_bytes()
        for seed, name in ((1, "a"), (1, "b"), (2, "c"))
    )
    assert one == two != other
    drawn = [json.loads(line)["id"] for line in one.splitlines()]
    assert len(set(drawn)) == 5 and drawn != [f"r{at}" for at in range(5)]
    whole = monitor_plan.write_rows(asked.model_copy(update={"limit": 99}), 1, tmp_path / "d")
    assert len(whole.read_bytes().splitlines()) == 12


def test_a_stage_may_watch_other_rows_than_the_run(files: dict[str, Path]) -> None:
    own = configured(files, watched(files), stage={"watch": watched(files, every_steps=5)})
    found = own.monitor_of(own.stages[0])
    assert found is not None and found.every_steps == 5


def test_paths_of_a_watch_lie_beside_the_configuration(tmp_path: Path) -> None:
    made = {"model": {"name": "tiny"}, "watch": {"data": "w.jsonl"}}
    made["stages"] = [{"name": "s", "data": ["x"], "watch": {"data": "v.jsonl"}}]
    config = TrainConfig.model_validate(made).resolved(tmp_path)
    assert config.watch is not None and config.stages[0].watch is not None
    assert (config.watch.data, config.stages[0].watch.data) == (
        str(tmp_path / "w.jsonl"),
        str(tmp_path / "v.jsonl"),
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": "lost.jsonl"}, DataError, "lost.jsonl"),
        ({"metrics": ["answrs"]}, ConfigError, "did you mean 'answers'"),
        ({"metrics": ["labels"]}, ConfigError, "labels"),
        ({"schema": "nothing"}, ConfigError, "nothing"),
    ],
)
def test_what_could_not_be_watched_is_said_before_a_model_is_loaded(
    files: dict[str, Path], tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    config = configured(files, watched(files) | change, model={"name": "no/such-model"})
    with pytest.raises(error, match=message):
        train(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_language_model_is_not_watched(files: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="watch asks vision-language models"):
        configured(files, watched(files), model={"name": "x", "kind": "llm"})


def test_random_states_and_modes_survive_whatever_happens_inside() -> None:
    import random

    import numpy as np

    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout()).train()
    net[0].eval()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    with pytest.raises(ZeroDivisionError), untouched(net):
        net.eval()
        random.random(), np.random.rand(), torch.rand(9)
        raise ZeroDivisionError
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected
    assert [module.training for module in net.modules()] == [True, False, True]
