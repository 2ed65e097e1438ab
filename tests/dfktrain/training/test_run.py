"""The recipe: runs repeat, go on, refuse what is another run's, and record what they did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from dfkdata.common.errors import ConfigError, DataError
from dfkeval.models import loader
from dfkeval.models.fingerprint import template_sha256
from dfkeval.models.processor import load_processor
from dfktrain import TrainConfig, train
from dfktrain.config.model import AdapterConfig
from dfktrain.config.stage import DataSource
from dfktrain.data.collator import Collator
from dfktrain.data.masking import IGNORE
from dfktrain.engines import LoadedBase
from dfktrain.training.run import train_on
from dfktrain.training.state import TrainingProgress, TrainResult
from tests.helpers.models import build_model, text_row, write_rows
from tests.helpers.training_runs import assert_same, config, weights


class Finished(NamedTuple):
    """A run over two epochs that several tests read and none changes."""

    config: TrainConfig
    data: Path
    out: Path
    result: TrainResult
    seen: list[TrainingProgress]


@pytest.fixture(scope="module")
def finished(base_folder: Path, rows: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    data = write_rows(folder / "train.jsonl", rows)
    made, seen = config(base_folder, data, epochs=2), list[TrainingProgress]()
    result = train(made, folder / "out", progress=seen.append)
    return Finished(made, data, folder / "out", result, seen)


def test_two_runs_with_one_seed_end_with_the_same_weights(finished: Finished, tmp_path: Path) -> None:
    one, two = finished.result, train(finished.config, tmp_path / "two")
    assert_same(weights(one.adapter), weights(two.adapter))
    assert [line["loss"] for line in one.stages[0].history] == [
        line["loss"] for line in two.stages[0].history
    ]


def test_another_seed_ends_with_other_weights(finished: Finished, tmp_path: Path) -> None:
    one = weights(finished.result.adapter)
    two = weights(train(finished.config.model_copy(update={"seed": 7}), tmp_path / "two").adapter)
    assert not all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("optimizer", ["adamw_torch_fused", "adafactor", "sgd"])
def test_every_optimiser_that_runs_here_lowers_the_loss(
    base_folder: Path, train_file: Path, tmp_path: Path, optimizer: str
) -> None:
    rate = {"sgd": 1.0}.get(optimizer, 1e-2)
    made = config(base_folder, train_file, steps=2, batch_size=8, optimizer=optimizer, learning_rate=rate)
    losses = [line["loss"] for line in train(made, tmp_path / "out").stages[0].history]
    assert losses[-1] < losses[0]


def test_the_card_beside_the_adapter_says_what_inference_must_repeat(
    base_folder: Path, tmp_path: Path
) -> None:
    row = text_row("a", "b", "c", tools=None)
    row["messages"].insert(0, {"role": "system", "content": [{"type": "text", "text": "be brief"}]})
    data = write_rows(tmp_path / "x.jsonl", [row])
    result = train(config(base_folder, data, steps=1, max_pixels=2048), tmp_path / "out")
    card = json.loads((result.adapter / "dfk.json").read_text())
    assert card == json.loads((tmp_path / "out/stages/sft/adapter/dfk.json").read_text())
    processor = load_processor(base_folder)
    assert card["schema"] == "dfk_label"
    assert card["system_prompt"] == "be brief"
    assert card["tools"] is None
    assert card["max_pixels"] == 2048
    assert card["thinking"] is False
    assert card["template_sha256"] == template_sha256(processor)
    assert card["base"]["shapes_sha256"] == loader.load(base_folder, device="cpu").info["shapes_sha256"]


def test_run_json_records_what_is_needed_to_repeat_the_run(base_folder: Path, finished: Finished) -> None:
    import hashlib

    _, train_file, out, result, seen = finished
    run = json.loads((out / "run.json").read_text())
    stage = run["stages"][0]
    assert run["seed"] == 42
    assert run["versions"]["torch"] == torch.__version__
    assert stage["data_sha256"][str(train_file)] == hashlib.sha256(train_file.read_bytes()).hexdigest()
    assert stage["steps"] == 6 == len(stage["history"]) == len(seen)
    collator = Collator(load_processor(base_folder))
    rows = [json.loads(line) for line in train_file.read_text().splitlines()]
    assert stage["tokens"] == 2 * sum(len(collator.encode(row)) for row in rows)
    assert 0 < stage["scored_tokens"] < stage["tokens"]
    assert seen[-1].step == seen[-1].steps == 6
    assert result.run["modules"] == run["modules"]
    assert stage["history"][-1]["loss"] < stage["history"][0]["loss"]


def test_one_adapter_goes_through_all_stages(base_folder: Path, train_file: Path, tmp_path: Path) -> None:
    first = {"name": "a", "data": [str(train_file)], "steps": 2, "learning_rate": 5e-3}
    both = TrainConfig.model_validate(
        {"model": {"name": str(base_folder)}, "stages": [first, first | {"name": "b", "learning_rate": 1e-9}]}
    )
    result = train(both, tmp_path / "out")
    a, b = weights(result.stages[0].adapter), weights(result.stages[1].adapter)
    assert_same(b, weights(result.adapter))
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)
    assert not all(torch.equal(a[name], b[name]) for name in a)


def test_a_stage_that_followed_another_first_stage_is_not_taken_over(
    base_folder: Path, train_file: Path, tmp_path: Path
) -> None:
    stages = [{"name": name, "data": [str(train_file)], "steps": 1} for name in ("a", "b")]
    made = TrainConfig.model_validate({"model": {"name": str(base_folder)}, "stages": stages})
    train(made, tmp_path / "out")
    shutil.rmtree(tmp_path / "out/stages/a")  # as the message about a changed stage advises
    changed = made.model_copy(
        update={"stages": (made.stages[0].model_copy(update={"learning_rate": 1e-5}), made.stages[1])}
    )
    with pytest.raises(ConfigError, match=r"stages.b holds a stage of another configuration"):
        train(changed, tmp_path / "out")


def test_a_warm_start_goes_on_from_the_given_adapter(
    base_folder: Path, finished: Finished, tmp_path: Path
) -> None:
    first = finished.result
    warm = config(base_folder, finished.data, steps=2).model_copy(
        update={"adapter": AdapterConfig(warm_start=str(first.adapter))}
    )
    warm = warm.model_copy(update={"stages": (warm.stages[0].model_copy(update={"learning_rate": 1e-9}),)})
    second = train(warm, tmp_path / "two")
    a, b = weights(first.adapter), weights(second.adapter)
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


def test_a_finished_run_is_not_trained_again(finished: Finished) -> None:
    one, seen = finished.result, list[TrainingProgress]()
    before = weights(one.adapter)
    two = train(finished.config, finished.out, progress=seen.append)
    assert seen == []
    assert two.stages[0].history == one.stages[0].history
    assert_same(before, weights(two.adapter))


def test_a_folder_of_another_configuration_is_refused(base_folder: Path, finished: Finished) -> None:
    with pytest.raises(ConfigError, match="another configuration"):
        train(config(base_folder, finished.data, epochs=2, learning_rate=1e-4), finished.out)


def test_a_folder_of_another_base_of_the_same_shape_is_refused(
    base_folder: Path, processor: Any, train_file: Path, tmp_path: Path
) -> None:
    train(config(base_folder, train_file, steps=1), tmp_path / "out")
    shutil.copytree(base_folder, tmp_path / "moved")  # the same weights at another place
    train(config(tmp_path / "moved", train_file, steps=1), tmp_path / "out")
    other = build_model(processor)
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    other.save_pretrained(tmp_path / "moved")
    with pytest.raises(ConfigError, match="another base"):
        train(config(tmp_path / "moved", train_file, steps=1), tmp_path / "out")


@pytest.mark.parametrize("chooses", [{"best": True}, {"patience": 2}, {}])
def test_validation_rows_that_choose_the_weights_belong_to_the_folder(
    base_folder: Path, train_file: Path, tmp_path: Path, chooses: dict[str, Any]
) -> None:
    held_out = write_rows(tmp_path / "v.jsonl", [text_row("v", "a", "b")])
    made = config(base_folder, train_file, steps=1, validation=[str(held_out)], eval_steps=1, **chooses)
    train(made, tmp_path / "out")
    write_rows(held_out, [text_row("v", "a", "c")])
    if not chooses:
        train(made, tmp_path / "out")
        return
    with pytest.raises(ConfigError, match="other data"):
        train(made, tmp_path / "out")


def test_rows_without_an_answer_stop_the_run_before_the_first_step(base_folder: Path, tmp_path: Path) -> None:
    good, bad = text_row("good", "a", "b"), text_row("bad", "a", "b")
    del bad["messages"][-1]
    data = write_rows(tmp_path / "x.jsonl", [good, bad])
    with pytest.raises(
        DataError, match=r"stage sft: 1 rows cannot be trained on\n  row bad: has no assistant turn"
    ):
        train(config(base_folder, data), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_long_rows_are_dropped_and_counted_or_shortened_as_asked(base_folder: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "x.jsonl", [text_row("a", "b", "c"), text_row("long", "berita " * 80, "c")])
    with pytest.raises(DataError, match=r"row long: \d+ tokens, max_length is 60"):
        train(config(base_folder, data, max_length=60), tmp_path / "out")
    dropped = train(config(base_folder, data, max_length=60, on_too_long="drop"), tmp_path / "drop")
    assert dropped.stages[0].left_out == {"longer than 60 tokens": 1}
    cut = train(config(base_folder, data, max_length=60, on_too_long="truncate_prompt"), tmp_path / "cut")
    assert cut.stages[0].samples == 2


def test_weights_of_sources_are_kept(base_folder: Path, train_file: Path, tmp_path: Path) -> None:
    other = write_rows(tmp_path / "y.jsonl", [text_row(f"y{i}", "b", "c") for i in range(4)])
    made = config(base_folder, train_file, steps=1)
    sources = (DataSource(path=str(train_file), weight=1.5), DataSource(path=str(other), weight=0.5))
    made = made.model_copy(update={"stages": (made.stages[0].model_copy(update={"data": sources}),)})
    assert train(made, tmp_path / "out").stages[0].samples == 12 + 2


def test_a_length_grouped_epoch_holds_rows_with_images(
    base_folder: Path, train_file: Path, tmp_path: Path, rows: list[Any]
) -> None:
    result = train(config(base_folder, train_file, epochs=1, group_by_length=True), tmp_path / "out")
    collator = Collator(load_processor(base_folder))
    assert result.stages[0].tokens == sum(len(collator.encode(row)) for row in rows)


def test_the_validation_loss_is_weighted_by_tokens(
    base_folder: Path, train_file: Path, tmp_path: Path
) -> None:
    loaded = loader.load(base_folder, device="cpu", dtype="float32")
    base = LoadedBase(loaded.model, loaded.processor, "base", loaded.info["shapes_sha256"])
    made = config(base_folder, train_file, steps=2, validation=[str(train_file)])
    result = train_on(base, made, tmp_path / "out")
    reported = [line["eval_loss"] for line in result.stages[0].history if "eval_loss" in line]
    from dfkdata import load_rows

    total = count = 0.0
    for row in load_rows(train_file):
        batch = Collator(base.processor)([row])
        with torch.no_grad():
            total += float(base.model.eval()(**batch).loss)
        count += int((batch["labels"] != IGNORE).sum())
    assert reported[-1] == pytest.approx(total / count, rel=1e-5)


def test_the_best_checkpoint_is_kept_and_a_run_that_stops_gaining_is_stopped(
    base_folder: Path, tmp_path: Path
) -> None:
    """The learning rate makes the validation loss worse and worse after the first evaluation."""
    data = write_rows(tmp_path / "a.jsonl", [text_row(f"a{i}", "b", "Label: Netral") for i in range(4)])
    held = write_rows(tmp_path / "v.jsonl", [text_row("v", "x", "tidak benar pembaca")])
    made = config(
        base_folder, data, steps=30, eval_steps=1, save_steps=1, best=True, patience=3,
        validation=[str(held)], learning_rate=3e-2,
    )  # fmt: skip
    result = train(made, tmp_path / "out")
    losses = {
        int(line["step"]): line["eval_loss"] for line in result.stages[0].history if "eval_loss" in line
    }
    assert result.stages[0].steps < 30
    best = min(losses, key=losses.__getitem__)
    assert best < max(losses)
    kept = weights(tmp_path / f"out/stages/sft/checkpoints/checkpoint-{best}")
    assert_same(weights(result.adapter), kept)


def test_best_saves_wherever_it_evaluates_unless_it_is_told_otherwise(
    base_folder: Path, train_file: Path, held_file: Path, tmp_path: Path
) -> None:
    made = config(
        base_folder, train_file, steps=4, best=True, eval_steps=2, validation=[str(held_file)],
        save_total_limit=9,
    )  # fmt: skip
    train(made, tmp_path / "out")
    saved = {path.name for path in (tmp_path / "out/stages/sft/checkpoints").glob("checkpoint-*")}
    assert saved == {"checkpoint-2", "checkpoint-4"}
