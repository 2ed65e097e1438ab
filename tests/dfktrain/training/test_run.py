"""The recipe: gradients do not depend on the batch split, runs repeat, adapters come back as they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from dfkdata.common.errors import BackendError, ConfigError, DataError
from dfkeval.models import loader
from dfkeval.models.fingerprint import template_sha256
from dfkeval.models.processor import load_processor
from dfktrain import TrainConfig, train
from dfktrain.config.model import AdapterConfig
from dfktrain.config.stage import DataSource, Stage
from dfktrain.data.collator import Collator
from dfktrain.data.masking import IGNORE
from dfktrain.data.stage_data import read_stage
from dfktrain.engines import LoadedBase, adapt, bare, trainable
from dfktrain.losses.attach import score_answers
from dfktrain.training.run import train_on
from dfktrain.training.stage import verify_effect
from dfktrain.training.state import TrainingProgress, TrainResult
from dfktrain.training.trainer import AnswerTrainer
from tests.helpers.adapters import EXTRA, released, tensors_of
from tests.helpers.models import build_model, text_row, write_rows


def config(base: Path, data: Path, **changes: Any) -> TrainConfig:
    stage = {
        "name": "sft",
        "data": [str(data)],
        "batch_size": 3,
        "learning_rate": 5e-3,
        "scheduler": "constant",
    }
    return TrainConfig.model_validate({"model": {"name": str(base)}, "stages": [stage | changes]})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(str(folder / "adapter_model.safetensors"))


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


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


@pytest.fixture
def adapted(model: Any, processor: Any) -> Any:
    """A model with an adapter that is not at its start, so that every weight has a gradient."""
    torch.manual_seed(1)
    made, _ = adapt(LoadedBase(model, processor, "random"), AdapterConfig(rank=4, alpha=4))
    with torch.no_grad():
        for name, parameter in trainable(made):
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    score_answers(made)
    return made.train()


def step_gradient(
    model: Any, collator: Any, rows: list[Any], sizes: list[int], folder: Path, accumulation: int
) -> dict[str, torch.Tensor]:
    """The gradients that the Trainer has just before its optimiser step over `rows`, split as `sizes`
    says."""
    from transformers import TrainerCallback, TrainingArguments

    caught: dict[str, torch.Tensor] = {}

    class Catch(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            caught.update(
                {name: p.grad.clone() for name, p in trainable(kwargs["model"]) if p.grad is not None}
            )

    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=sizes[0],
        gradient_accumulation_steps=accumulation,
        max_steps=1, max_grad_norm=0.0, learning_rate=0.0, report_to="none", use_cpu=True, disable_tqdm=True,
        remove_unused_columns=False, label_names=["labels"], save_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = AnswerTrainer(
        group_by_length=False,
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=collator,
        callbacks=[Catch()],
    )
    trainer.train()
    model.zero_grad()
    return caught


def difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """Norm of the difference relative to the norm."""
    assert left.keys() == right.keys()
    one, two = (torch.cat([side[name].flatten().double() for name in left]) for side in (left, right))
    return float((one - two).norm() / one.norm())


def test_the_gradient_of_a_step_does_not_depend_on_how_it_is_split(
    adapted: Any, processor: Any, rows: list[Any], tmp_path: Path
) -> None:
    collator = Collator(processor)
    whole = step_gradient(adapted, collator, rows, [8], tmp_path, 1)
    for batch, accumulation in ((4, 2), (2, 4), (1, 8), (3, 3)):
        split = step_gradient(adapted, collator, rows, [batch], tmp_path, accumulation)
        assert difference(whole, split) <= 1e-6, (batch, accumulation)


def test_the_gradient_is_that_of_the_mean_over_scored_tokens(
    adapted: Any, processor: Any, rows: list[Any], tmp_path: Path
) -> None:
    """Against the plain formula: the library's logits, one cross entropy over all scored tokens."""
    batch = Collator(processor)(rows)
    ours = step_gradient(adapted, Collator(processor), rows, [8], tmp_path, 1)
    labels = batch.pop("labels")
    logits = adapted(**batch).logits[:, :-1]
    torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), ignore_index=IGNORE
    ).backward()
    plain = {name: p.grad.clone() for name, p in trainable(adapted) if p.grad is not None}
    assert difference(plain, ours) <= 1e-6


def test_padding_side_changes_neither_loss_nor_gradient(
    adapted: Any, processor: Any, rows: list[Any], tmp_path: Path
) -> None:
    collator = Collator(processor)

    def on_the_left(samples: list[Any]) -> dict[str, torch.Tensor]:
        batch = collator(samples)
        for index in range(len(samples)):
            shift = int((batch["attention_mask"][index] == 0).sum())
            for name in ("input_ids", "attention_mask", "labels", "mm_token_type_ids"):
                batch[name][index] = torch.roll(batch[name][index], shift)
        assert bool((batch["attention_mask"][:, -1] == 1).all())
        return batch

    right = step_gradient(adapted, collator, rows, [4], tmp_path, 2)
    left = step_gradient(adapted, on_the_left, rows, [4], tmp_path, 2)
    assert difference(right, left) <= 1e-6
    with torch.no_grad():
        adapted.eval()
        assert float(adapted(**collator(rows)).loss) == pytest.approx(
            float(adapted(**on_the_left(rows)).loss), rel=1e-6
        )


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


def test_a_saved_adapter_gives_the_same_logits_when_it_is_loaded_by_the_evaluation(
    base_folder: Path, train_file: Path, tmp_path: Path, rows: list[Any]
) -> None:
    loaded = loader.load(base_folder, device="cpu", dtype="float32")
    base = LoadedBase(loaded.model, loaded.processor, "base", loaded.info["shapes_sha256"])
    result = train_on(base, config(base_folder, train_file, epochs=2), tmp_path / "out")
    batch = Collator(base.processor)(rows)
    del batch["labels"]
    again = loader.load(base_folder, adapter=result.adapter, device="cpu", dtype="float32")
    with torch.no_grad():
        live = base.model.eval()(**batch).logits
        reloaded = again.model(**batch).logits
    assert torch.equal(live, reloaded)


@pytest.mark.parametrize(
    ("adapter", "mark"),
    [
        ({"rslora": True}, "lora_A"),
        ({"dora": True}, "lora_magnitude_vector"),
        ({"bias": "lora_only"}, ".bias"),
        ({"kind": "peft", "method": "peft.IA3Config", "options": {"feedforward_modules": []}}, "ia3_l"),
    ],
)
def test_every_adapter_option_is_trained_saved_and_reloaded_to_the_same_logits(
    base_folder: Path, train_file: Path, tmp_path: Path, rows: list[Any], adapter: dict[str, Any], mark: str
) -> None:
    size = {} if "kind" in adapter else {"rank": 4}
    wanted = AdapterConfig.model_validate(adapter | size | {"target_modules": "all-linear"})
    made = config(base_folder, train_file, steps=3).model_copy(update={"adapter": wanted})
    loaded = loader.load(base_folder, device="cpu", dtype="float32")
    base = LoadedBase(loaded.model, loaded.processor, "base", loaded.info["shapes_sha256"])
    result = train_on(base, made, tmp_path / "out")
    saved = weights(result.adapter)
    assert any(mark in name for name in saved)
    assert result.run["trained_parameters"] == sum(tensor.numel() for tensor in saved.values())
    batch = Collator(base.processor)(rows)
    del batch["labels"]
    again = loader.load(base_folder, adapter=result.adapter, device="cpu", dtype="float32")
    with torch.no_grad():
        live = base.model.eval()(**batch).logits
        assert torch.equal(live, again.model(**batch).logits)
        if wanted.bias == "none":  # trained biases are the base's own parameters and stay
            with again.model.disable_adapter():
                assert not torch.equal(live, again.model(**batch).logits)


@pytest.mark.parametrize("optimizer", ["adamw_torch_fused", "adafactor", "sgd"])
def test_every_optimiser_that_runs_here_lowers_the_loss(
    base_folder: Path, train_file: Path, tmp_path: Path, optimizer: str
) -> None:
    rate = {"sgd": 1.0}.get(optimizer, 1e-2)
    made = config(base_folder, train_file, steps=4, batch_size=8, optimizer=optimizer, learning_rate=rate)
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


def test_training_on_text_leaves_the_vision_tower_untouched_bit_for_bit(
    model: Any, processor: Any, train_file: Path, tmp_path: Path
) -> None:
    import hashlib

    def tower() -> str:
        digest = hashlib.sha256()
        for name, parameter in sorted(bare(base.model).named_parameters()):
            if ".visual." in name and "lora" not in name:
                digest.update(parameter.detach().numpy().tobytes())
        return digest.hexdigest()

    base = LoadedBase(model, processor, "random")
    before = tower()
    made = config(tmp_path, train_file, modality="text", epochs=2, weight_decay=0.1)
    result = train_on(base, made, tmp_path / "out")
    assert tower() == before
    moved = [
        name for name, tensor in weights(result.adapter).items() if "lora_B" in name and bool(tensor.any())
    ]
    assert moved and not [name for name in moved if ".visual." in name]


def test_full_fine_tuning_on_text_leaves_the_vision_tower_untouched_bit_for_bit(
    processor: Any, train_file: Path, tmp_path: Path
) -> None:
    before = {name: p.clone() for name, p in build_model(processor).named_parameters()}
    base = LoadedBase(build_model(processor), processor, "random")
    made = config(tmp_path, train_file, modality="text", epochs=1, weight_decay=0.1)
    train_on(base, made.model_copy(update={"adapter": AdapterConfig(kind="full")}), tmp_path / "out")
    for name, parameter in base.model.named_parameters():
        assert torch.equal(parameter, before[name]) == (".visual." in name), name


def test_an_adapter_that_changes_nothing_stops_the_run(model: Any, processor: Any, rows: list[Any]) -> None:
    made, _ = adapt(LoadedBase(model, processor, "random"), AdapterConfig(rank=2))
    batch = Collator(processor)(rows[:1])
    with pytest.raises(BackendError, match="does not change the model's output"):
        verify_effect(made, batch)
    with torch.no_grad():
        next(p for name, p in trainable(made) if "lora_B" in name and "language" in name).fill_(0.1)
    verify_effect(made, batch)


def test_the_adapter_is_fp32_and_sits_on_exactly_the_resolved_modules(model: Any, processor: Any) -> None:
    made, modules = adapt(
        LoadedBase(model.to(torch.bfloat16), processor, "random"), AdapterConfig(target_modules="language")
    )
    carriers = {name.split(".lora_")[0].removeprefix("base_model.model.") for name, _ in trainable(made)}
    assert carriers == set(modules)
    assert {p.dtype for _, p in trainable(made)} == {torch.float32}


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


def test_any_peft_method_can_be_named_by_its_dotted_path(
    base_folder: Path, train_file: Path, tmp_path: Path
) -> None:
    adapter = AdapterConfig(
        kind="peft", method="peft.LoHaConfig", options={"r": 4}, target_modules="language"
    )
    made = config(base_folder, train_file, steps=3).model_copy(update={"adapter": adapter})
    result = train(made, tmp_path / "out")
    assert any("hada" in name for name in weights(result.adapter))
    loader.load(base_folder, adapter=result.adapter, device="cpu")
    for wrong, said in (
        ("peft.NoConfig", "no such class"),
        ("json.JSONDecoder", "is not a PEFT configuration"),
    ):
        bad = made.model_copy(update={"adapter": adapter.model_copy(update={"method": wrong})})
        with pytest.raises(ConfigError, match=said):
            train(bad, tmp_path / "bad")
    bad = made.model_copy(update={"adapter": adapter.model_copy(update={"options": {"rr": 4}})})
    with pytest.raises(ConfigError, match="options do not fit"):
        train(bad, tmp_path / "bad")


def labelled(tmp_path: Path) -> Path:
    rows = [text_row(f"n{i}", "b", "c") for i in range(6)]
    rows += [text_row(f"f{i}", "b", "Label: Fitnah") for i in range(2)]
    for row in rows:
        row["meta"]["gold"] = {"label": "netral" if row["id"][0] == "n" else "fitnah"}
    return write_rows(tmp_path / "labels.jsonl", rows)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("balanced", {"n": 6, "f": 6}),
        ({"netral": 0.5}, {"n": 3, "f": 2}),
        ({"fitnah": 2.5}, {"n": 6, "f": 5}),
    ],
)
def test_rows_are_resampled_by_their_gold_value(
    processor: Any, tmp_path: Path, weights: Any, expected: Any
) -> None:
    stage = Stage(name="s", data=(str(labelled(tmp_path)),), resample={"field": "label", "weights": weights})
    data = read_stage(stage, Collator(processor), seed=1)
    counted = {kind: sum(sample.id[0] == kind for sample in data.samples) for kind in "nf"}
    assert counted == expected
    again = read_stage(stage, Collator(processor), seed=1)
    assert [sample.id for sample in again.samples] == [sample.id for sample in data.samples]


def test_resampling_by_a_value_that_no_row_has_is_refused(processor: Any, tmp_path: Path) -> None:
    data = (str(labelled(tmp_path)),)
    stage = Stage(name="s", data=data, resample={"field": "label", "weights": {"hoaks": 2}})
    with pytest.raises(DataError, match=r"no row has label 'hoaks' \(there are fitnah, netral\)"):
        read_stage(stage, Collator(processor), seed=1)
    stage = Stage(name="s", data=data, resample={"field": "lable"})
    with pytest.raises(DataError, match=r"meta\.gold has no 'lable'"):
        read_stage(stage, Collator(processor), seed=1)


def weighed(processor: Any, tmp_path: Path, weights: Any) -> tuple[Collator, list[Any]]:
    stage = Stage(
        name="s", data=(str(labelled(tmp_path)),), label_weights={"field": "label", "weights": weights}
    )
    collator = Collator(processor)
    return collator, read_stage(stage, collator, seed=1).samples


def test_label_weights_average_one_over_the_scored_tokens_and_keep_their_ratio(
    processor: Any, tmp_path: Path
) -> None:
    for weights, ratio in (("balanced", 3.0), ({"fitnah": 2}, 2.0)):
        _, samples = weighed(processor, tmp_path, weights)
        assert len(samples) == 8  # no row comes twice
        tokens = sum(sample.scored for sample in samples)
        assert sum(s.scored * s.weight for s in samples) / tokens == pytest.approx(1)
        found = {sample.value: sample.weight for sample in samples}
        assert found["fitnah"] / found["netral"] == pytest.approx(ratio)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("batch", "accumulation"), [(8, 1), (3, 3), (1, 8)])
def test_a_weighed_step_is_the_weighed_sum_of_its_rows_however_it_is_split(
    adapted: Any, processor: Any, tmp_path: Path, batch: int, accumulation: int, packed: bool
) -> None:
    """Against the plain formula, from the library's logits of every row alone."""
    from dfktrain.data.packing import Packer, patch_fallbacks

    collator, samples = weighed(processor, tmp_path, "balanced")
    patch_fallbacks("qwen3_5")
    batcher = Packer(collator) if packed else collator
    ours = step_gradient(adapted, batcher, samples, [batch], tmp_path, accumulation)
    scored = sum(sample.scored for sample in samples)
    for sample in samples:
        alone = collator([sample])
        labels = alone.pop("labels")
        alone.pop("loss_weights")
        logits = adapted(**alone).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=IGNORE, reduction="sum")
        (loss * sample.weight / scored).backward()
    plain = {name: p.grad.clone() for name, p in trainable(adapted) if p.grad is not None}
    assert difference(plain, ours) <= 1e-6


def test_a_run_with_label_weights_takes_other_steps_and_validates_unweighed(
    base_folder: Path, tmp_path: Path
) -> None:
    data = labelled(tmp_path)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    held = write_rows(tmp_path / "held.jsonl", [row | {"id": f"held {row['id']}"} for row in rows])
    for weights, name in ((None, "plain"), ({"field": "label", "weights": {"fitnah": 9}}, "weighed")):
        made = config(base_folder, data, steps=1, batch_size=8, validation=[str(held)], learning_rate=1e-9,
                      label_weights=weights)  # fmt: skip
        history = train(made, tmp_path / name).stages[0].history
        losses = {key: line[key] for line in history for key in ("loss", "eval_loss") if key in line}
        if weights is None:
            plain = losses
    assert losses["loss"] != pytest.approx(plain["loss"], rel=1e-5)
    assert losses["eval_loss"] == pytest.approx(plain["eval_loss"], rel=1e-6)


def test_weighing_by_a_value_that_no_row_has_is_refused(processor: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"label_weights\.weights: no row has label 'hoaks'"):
        weighed(processor, tmp_path, {"hoaks": 2})


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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rank": 8}, "rank is 4, written is 8"),
        ({"alpha": 4}, "alpha is 32"),
        ({"rslora": True}, "rslora is False, written is True"),
        ({"target_modules": "language"}, "it sits on 2 modules, target_modules names 31"),
    ],
)
def test_a_warm_adapter_that_is_not_the_one_written_down_is_refused(
    model: Any, processor: Any, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    adapter = AdapterConfig(rank=4, target_modules=("q_proj", "v_proj"))
    base = LoadedBase(model, processor, "random")
    made, _ = adapt(base, adapter)
    with torch.no_grad():
        for name, parameter in trainable(made):
            if "lora_B" in name:
                parameter.normal_()
    made.save_pretrained(tmp_path / "warm")
    base = LoadedBase(made.unload(), processor, "random")
    warm = adapter.model_copy(update={"warm_start": str(tmp_path / "warm")})
    with pytest.raises(ConfigError, match=f"not the adapter that is written here: .*{said}"):
        adapt(base, warm.model_copy(update=change))
    again, _ = adapt(LoadedBase(build_model(processor), processor, "random"), warm)
    again.save_pretrained(tmp_path / "again")
    assert_same(weights(tmp_path / "again"), weights(tmp_path / "warm"))


def test_an_adapter_trained_with_another_template_carries_it_to_the_evaluation(
    base_folder: Path, train_file: Path, tmp_path: Path
) -> None:
    plain = load_processor(base_folder).chat_template
    (tmp_path / "own.jinja").write_text("{# own #}" + plain)
    made = config(base_folder, train_file, steps=1)
    for name, template in (("own", str(tmp_path / "own.jinja")), ("named", "qwen3_5")):
        own = made.model_copy(update={"model": made.model.model_copy(update={"chat_template": template})})
        result = train(own, tmp_path / name)
        again = loader.load(base_folder, adapter=result.adapter, device="cpu")
        assert again.processor.chat_template != plain
        assert again.info["template_sha256"] == result.run["template_sha256"]
    assert not (train(made, tmp_path / "plain").adapter / "chat_template.jinja").exists()


def test_a_vision_adapter_on_text_rows_is_refused_and_on_images_is_proved(
    base_folder: Path, train_file: Path, tmp_path: Path
) -> None:
    adapter = AdapterConfig(target_modules="vision")
    made = config(base_folder, train_file, steps=2).model_copy(update={"adapter": adapter})
    assert train(made, tmp_path / "images").stages[0].steps == 2  # the first row of the file has no image
    text = made.model_copy(update={"stages": (made.stages[0].model_copy(update={"modality": "text"}),)})
    with pytest.raises(ConfigError, match="the adapter sits on the vision tower: nothing to train"):
        train(text, tmp_path / "text")


@pytest.mark.parametrize("packed", [False, True])
def test_a_run_in_bf16_keeps_fp32_adapters_and_follows_the_fp32_run(
    base_folder: Path, train_file: Path, tmp_path: Path, packed: bool
) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        made = config(base_folder, train_file, steps=4, packing=packed, learning_rate=1e-3)
        result = train(made.model_copy(update={"precision": precision}), tmp_path / precision)
        assert {tensor.dtype for tensor in weights(result.adapter).values()} == {torch.float32}
        assert result.stages[0].packing == ("on" if packed else "off")
        losses[precision] = [line["loss"] for line in result.stages[0].history]
    assert losses["bf16"] == pytest.approx(losses["fp32"], abs=0.05)
    assert losses["bf16"] != losses["fp32"]


def test_in_bf16_no_activation_is_cast_to_fp32_for_an_adapter(
    base_folder: Path, train_file: Path, tmp_path: Path
) -> None:
    loaded = loader.load(base_folder, device="cpu", dtype="bfloat16")
    base = LoadedBase(loaded.model, loaded.processor, "base")
    seen: set[torch.dtype] = set()

    def watch(at: TrainingProgress) -> None:
        if at.step == 1:
            for name, module in base.model.named_modules():
                if name.endswith("lora_A.default"):
                    module.register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].dtype))
        elif at.step == 3:  # the proof after training runs without autocast
            for module in base.model.modules():
                module._forward_pre_hooks.clear()

    train_on(
        base, config(base_folder, train_file, steps=3), tmp_path / "out", precision="bf16", progress=watch
    )
    assert seen == {torch.bfloat16}


def test_a_finished_stage_of_full_fine_tuning_is_restored_bit_for_bit(
    processor: Any, train_file: Path, tmp_path: Path
) -> None:
    made = config(tmp_path, train_file, modality="text", steps=2).model_copy(
        update={"adapter": AdapterConfig(kind="full")}
    )
    first = LoadedBase(build_model(processor), processor, "random")
    train_on(first, made, tmp_path / "out")
    second = LoadedBase(build_model(processor), processor, "random")
    train_on(second, made, tmp_path / "out")
    states = [dict(base.model.named_parameters()) for base in (first, second)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert (tmp_path / "out/adapter/tokenizer.json").is_file()


@pytest.mark.parametrize("shards", [1, 2])
def test_full_fine_tuning_keeps_the_tensors_that_the_class_does_not_load(
    base_folder: Path, train_file: Path, tmp_path: Path, shards: int
) -> None:
    from dfkeval.models import loader
    from dfktrain.weights.safetensors_io import weight_files

    source = released(base_folder, tmp_path / "base", shards=shards)
    made = config(source, train_file, steps=2).model_copy(update={"adapter": AdapterConfig(kind="full")})
    whole = train(made, tmp_path / "out").adapter

    def extra(folder: Path) -> bytes:
        (found,) = [(file, e) for file in weight_files(folder) for e in file.entries if e.name == EXTRA]
        assert found[1].dtype == "BF16"
        return found[0].path.read_bytes()[found[1].start : found[1].end]

    assert extra(whole) == extra(source)
    again = loader.load(whole, device="cpu", dtype="float32").model
    trained = tensors_of(whole)
    assert all(
        torch.equal(value, trained[name]) for name, value in again.state_dict().items() if name in trained
    )
    assert len(trained) == len(dict(again.named_parameters())) + 1
