"""What is trained and saved: adapters of every kind, whole models, their precision, and what stays untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dfkdata.common.errors import BackendError, ConfigError
from dfkeval.models import loader
from dfkeval.models.processor import load_processor
from dfktrain import train
from dfktrain.config.model import AdapterConfig
from dfktrain.data.collator import Collator
from dfktrain.engines import LoadedBase, adapt, bare, trainable
from dfktrain.training.run import train_on
from dfktrain.training.stage import verify_effect
from dfktrain.training.state import TrainingProgress
from tests.helpers.adapters import EXTRA, released, tensors_of
from tests.helpers.models import build_model
from tests.helpers.training_runs import assert_same, config, weights


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
