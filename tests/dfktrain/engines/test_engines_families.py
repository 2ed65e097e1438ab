"""Collator, mask, adapter, save, reload and generation on the other model families that recipes use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dfkdata.common.errors import ConfigError, DataError
from dfkeval.models import loader
from dfktrain import TrainConfig, train
from dfktrain.data.collator import Collator
from dfktrain.data.masking import IGNORE
from tests.helpers.models import (
    build_processor,
    build_tokenizer,
    image_row,
    released_template,
    text_row,
    thinking_template,
    write_rows,
)
from tests.helpers.places import GOLDEN

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}

FAMILIES = {
    "qwen2_vl": ("qwen2_5_vl", 14),
    "qwen2_5_vl": ("qwen2_5_vl", 14),
    "qwen3_vl": ("qwen3_vl", 16),
    "qwen3_vl_thinking": ("thinking", 16),
}


def build(family: str) -> tuple[Any, Any]:
    """(random model, processor) of a family."""
    import transformers as hf

    name, patch = FAMILIES[family]
    processor = build_processor(thinking_template() if name == "thinking" else released_template(name), patch)
    token = processor.tokenizer.convert_tokens_to_ids
    ids = {
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
        "tie_word_embeddings": True,
    }
    text = TEXT | {"vocab_size": len(processor.tokenizer), "rope_parameters": ROPE}
    torch.manual_seed(0)
    match family:
        case "qwen2_vl":
            vision = {"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 64, "patch_size": 14}
            config = hf.Qwen2VLConfig(text_config=text, vision_config=vision, **ids)
            model = hf.Qwen2VLForConditionalGeneration(config)
        case "qwen2_5_vl":
            vision = {
                "depth": 2,
                "hidden_size": 32,
                "num_heads": 2,
                "intermediate_size": 64,
                "out_hidden_size": 64,
            }
            vision |= {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]}
            config = hf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
            model = hf.Qwen2_5_VLForConditionalGeneration(config)
        case _:
            vision = {
                "depth": 2,
                "hidden_size": 32,
                "num_heads": 2,
                "intermediate_size": 64,
                "out_hidden_size": 64,
            }
            vision |= {"patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
            rope = ROPE | {"mrope_interleaved": True}
            config = hf.Qwen3VLConfig(
                text_config=text | {"head_dim": 16, "rope_parameters": rope}, vision_config=vision, **ids
            )
            model = hf.Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model.eval(), processor


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    model, processor = build(request.param)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def mixed(pictures: list[str]) -> list[dict[str, Any]]:
    return [
        image_row("a", pictures[:1], "a red circle", "Label: Fitnah"),
        text_row("b", "berita ini", "Label: Netral"),
        image_row("c", pictures[1:3], "two", "blue square"),
    ]


def test_a_mixed_batch_goes_through_and_scores_answers_only(family: Path, mixed: list[Any]) -> None:
    loaded = loader.load(family, device="cpu", dtype="float32")
    batch = Collator(loaded.processor)(mixed)
    logits = loaded.model(**{name: value for name, value in batch.items() if name != "labels"}).logits
    assert bool(torch.isfinite(logits).all())
    for labels, answer in zip(
        batch["labels"], ("Label: Fitnah", "Label: Netral", "blue square"), strict=True
    ):
        assert loaded.processor.tokenizer.decode(labels[labels != IGNORE]) == answer + "<|im_end|>"


def test_an_adapter_is_trained_saved_reloaded_and_generates(
    family: Path, mixed: list[Any], tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "x.jsonl", mixed)
    stage = {"name": "s", "data": [str(data)], "epochs": 6, "batch_size": 3, "learning_rate": 1e-2}
    made = TrainConfig.model_validate(
        {"model": {"name": str(family)}, "adapter": {"rank": 4}, "stages": [stage]}
    )
    result = train(made, tmp_path / "out")
    losses = [line["loss"] for line in result.stages[0].history]
    assert losses[-1] < losses[0]
    assert any("visual" in name for name in result.run["modules"])
    again = loader.load(family, adapter=result.adapter, device="cpu", dtype="float32")
    batch = Collator(again.processor)(mixed[:1])
    start = int((batch.pop("labels")[0] != IGNORE).nonzero()[0])
    text_keys = ("input_ids", "attention_mask", "mm_token_type_ids")
    prompt = {name: value[:, :start] if name in text_keys else value for name, value in batch.items()}
    made_ids = again.model.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert made_ids.shape[1] > start


def test_padding_does_not_change_the_loss_of_a_row(family: Path, mixed: list[Any]) -> None:
    from dfktrain.losses.attach import score_answers

    loaded = loader.load(family, device="cpu", dtype="float32")
    collator = Collator(loaded.processor)
    score_answers(loaded.model)
    with torch.no_grad():
        together = float(loaded.model(**collator(mixed)).loss)
        alone = sum(float(loaded.model(**collator([row])).loss) for row in mixed)
    assert together == pytest.approx(alone, rel=1e-5)


def test_packing_is_refused_by_name_and_padding_used(family: Path, mixed: list[Any], tmp_path: Path) -> None:
    data = write_rows(tmp_path / "x.jsonl", mixed)
    stage = {"name": "s", "data": [str(data)], "steps": 1, "batch_size": 3, "packing": True}
    result = train(
        TrainConfig.model_validate({"model": {"name": str(family)}, "stages": [stage]}), tmp_path / "out"
    )
    assert result.stages[0].packing.startswith("refused: packing is not verified for qwen")


@pytest.fixture(scope="module")
def llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random causal language model with the Qwen2.5 template."""
    import transformers as hf

    folder = tmp_path_factory.mktemp("llm")
    tokenizer = build_tokenizer(released_template("qwen2_5"))
    torch.manual_seed(0)
    model = hf.Qwen2ForCausalLM(hf.Qwen2Config(**TEXT, vocab_size=len(tokenizer)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def llm_config(folder: Path, data: Path, **changes: Any) -> TrainConfig:
    stage = {"name": "s", "data": [str(data)], "epochs": 4, "batch_size": 2, "learning_rate": 1e-2} | changes
    made = {"model": {"name": str(folder), "kind": "llm"}, "adapter": {"rank": 4}, "stages": [stage]}
    return TrainConfig.model_validate(made)


def test_a_language_model_is_trained_on_text_rows_through_the_same_stages(
    llm_folder: Path, tmp_path: Path
) -> None:
    import peft
    import transformers as hf

    rows = [text_row("a", "berita", "Label: Netral"), text_row("b", "tidak benar", "Label: Fitnah")]
    data = write_rows(tmp_path / "x.jsonl", rows)
    result = train(
        llm_config(llm_folder, data, epochs=40, scheduler="constant", save_steps=99), tmp_path / "out"
    )
    losses = [line["loss"] for line in result.stages[0].history]
    assert losses[-1] < 0.95 * losses[0]
    base = hf.AutoModelForCausalLM.from_pretrained(llm_folder)
    tokenizer = hf.AutoTokenizer.from_pretrained(llm_folder)
    batch = Collator(tokenizer)(rows)
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    plain = base(**batch).loss.item()
    assert peft.PeftModel.from_pretrained(base, result.adapter)(**batch).loss.item() < 0.95 * plain


@pytest.mark.parametrize(
    ("layout", "schema"), [("dfk_text/input.csv", "dfk_text"), ("keywords/input.jsonl", "keywords")]
)
def test_a_language_model_trains_on_converted_dfk_rows_in_two_stages(
    llm_folder: Path, tmp_path: Path, layout: str, schema: str
) -> None:
    from dfkdata import convert

    raw = GOLDEN / "formats" / layout
    convert(raw, tmp_path / "data", format=raw.parent.name, max_rejects="100%", schema=schema, validation=0)
    data = tmp_path / "data/train.jsonl"
    made = llm_config(llm_folder, data, epochs=1)
    second = made.stages[0].model_copy(update={"name": "second", "learning_rate": 1e-3})
    result = train(made.model_copy(update={"stages": (*made.stages, second)}), tmp_path / "out")
    assert [stage.samples for stage in result.stages] == [len(data.read_text().splitlines())] * 2
    import json

    card = json.loads((result.adapter / "dfk.json").read_text())
    assert card["schema"] == schema


def one_row(folder: Path) -> Path:
    return write_rows(folder / "x.jsonl", [text_row("a", "berita", "Label: Netral")])


def test_images_are_refused_by_a_language_model(llm_folder: Path, mixed: list[Any], tmp_path: Path) -> None:
    data = write_rows(tmp_path / "x.jsonl", mixed)
    with pytest.raises(DataError, match="cannot see images"):
        train(llm_config(llm_folder, data), tmp_path / "out")
    assert train(llm_config(llm_folder, data, modality="text"), tmp_path / "text").stages[0].samples == 1


@pytest.mark.parametrize(
    ("kind", "said"), [("granite", "change their logits after the head"), ("gpt2", "are not where needed")]
)
def test_a_language_model_whose_loss_would_be_another_function_is_refused(
    llm_folder: Path, tmp_path: Path, kind: str, said: str
) -> None:
    import shutil

    import transformers as hf

    folder = tmp_path / kind
    shutil.copytree(llm_folder, folder)
    size = hf.AutoConfig.from_pretrained(llm_folder).vocab_size
    models = {
        "granite": lambda: hf.GraniteForCausalLM(
            hf.GraniteConfig(**TEXT, vocab_size=size, logits_scaling=8.0)
        ),
        "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=64, n_layer=1, n_head=4, vocab_size=size)),
    }
    models[kind]().save_pretrained(folder)
    with pytest.raises(ConfigError, match=f"{kind} models are not supported: .*{said}"):
        train(llm_config(folder, one_row(tmp_path)), tmp_path / "out")


def test_a_vision_language_checkpoint_is_refused_as_a_language_model(
    base_folder: Path, tmp_path: Path
) -> None:
    """Its adapter would load into the whole model with no effect and only a warning."""
    with pytest.raises(ConfigError, match="would have no effect on the whole model"):
        train(llm_config(base_folder, one_row(tmp_path)), tmp_path / "out")


def test_other_models_are_refused_by_name(llm_folder: Path, tmp_path: Path) -> None:
    made = llm_config(llm_folder, one_row(tmp_path))
    made = made.model_copy(update={"model": made.model.model_copy(update={"kind": "vlm"})})
    with pytest.raises(
        ConfigError, match=r"qwen2 models are not supported as model.kind vlm.*write model.kind: llm"
    ):
        train(made, tmp_path / "out")
    import transformers as hf

    hf.Idefics3Config().save_pretrained(tmp_path / "other")
    made = made.model_copy(update={"model": made.model.model_copy(update={"name": str(tmp_path / "other")})})
    with pytest.raises(ConfigError, match="idefics3 models are not supported"):
        train(made, tmp_path / "out")


def test_the_preflight_of_a_language_model_needs_no_vision(llm_folder: Path, tmp_path: Path) -> None:
    from dfktrain.training.preflight import preflight

    data = write_rows(tmp_path / "x.jsonl", [text_row("a", "berita", "Label: Netral")])
    report = preflight(llm_config(llm_folder, data))
    assert report.faults == []
    assert report.stages[0].image_tokens == [0]
    assert "gated delta rule" not in {kernel.part for kernel in report.kernels}
