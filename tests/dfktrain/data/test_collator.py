"""Batches: shapes, images, lengths, and what is refused."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from dfkdata.common.errors import DataError
from dfktrain.config.stage import Stage
from dfktrain.data.collator import Collator
from dfktrain.data.masking import IGNORE
from dfktrain.data.stage_data import read_stage
from tests.helpers.models import image_row, text_row, tool_row, write_rows


def test_a_mixed_batch_holds_only_arguments_of_forward(
    processor: Any, model: Any, rows: list[dict[str, Any]]
) -> None:
    batch = Collator(processor)(rows)
    assert set(batch) <= set(inspect.signature(model.forward).parameters)
    assert batch["labels"].shape == batch["input_ids"].shape == batch["mm_token_type_ids"].shape
    assert int((batch["input_ids"] == processor.image_token_id).sum()) == int(
        batch["mm_token_type_ids"].sum()
    )
    assert batch["image_grid_thw"].shape == (6, 3)
    assert int(batch["image_grid_thw"].prod(-1).sum()) == batch["pixel_values"].shape[0]
    model(**batch)  # the model agrees on image tokens and features


def test_a_text_only_batch_carries_no_pixels(processor: Any, model: Any) -> None:
    batch = Collator(processor)([text_row("a", "b", "c")])
    assert "pixel_values" not in batch
    model(**batch)


def test_labels_are_the_inputs_where_there_is_loss(processor: Any, rows: list[dict[str, Any]]) -> None:
    batch = Collator(processor)(rows)
    scored = batch["labels"] != IGNORE
    assert torch.equal(batch["labels"][scored], batch["input_ids"][scored])
    assert not bool(scored[batch["attention_mask"] == 0].any())
    assert bool(scored.any(dim=1).all())


def test_a_row_is_the_same_alone_and_in_a_batch(processor: Any, rows: list[dict[str, Any]]) -> None:
    collator = Collator(processor)
    batch = collator(rows)
    for index, row in enumerate(rows):
        alone = collator([row])
        width = alone["input_ids"].shape[1]
        assert torch.equal(batch["input_ids"][index, :width], alone["input_ids"][0])
        assert torch.equal(batch["labels"][index, :width], alone["labels"][0])


def test_the_row_is_not_changed(processor: Any, rows: list[dict[str, Any]]) -> None:
    before = copy.deepcopy(rows)
    Collator(processor)(rows)
    assert rows == before


def test_the_pixel_budget_is_kept_and_touches_no_shared_state(processor: Any, pictures: list[str]) -> None:
    row = image_row("i", pictures[4:5], "x", "y")  # 120 x 120 pixels
    shared = copy.deepcopy(dict(type(processor.image_processor).size))
    own = copy.deepcopy(dict(processor.image_processor.size))
    counts = {}
    for budget in (32 * 32, 64 * 64, 96 * 96, None):
        batch = Collator(processor, max_pixels=budget)([row])
        pixels = int(batch["image_grid_thw"].prod(-1).sum()) * 16 * 16
        assert pixels <= (budget or own["longest_edge"])
        counts[budget] = int(batch["mm_token_type_ids"].sum())
    assert counts == {1024: 1, 4096: 4, 9216: 9, None: 4}
    assert dict(type(processor.image_processor).size) == shared
    assert dict(processor.image_processor.size) == own


def test_the_pixel_budget_holds_where_the_processor_class_has_limits_of_its_own(
    processor: Any, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Collator(processor, max_pixels=48 * 48)(rows)
    kind = type(processor.image_processor)
    monkeypatch.setattr(kind, "max_pixels", property(lambda self: self.size["longest_edge"]), raising=False)
    monkeypatch.setattr(kind, "min_pixels", property(lambda self: self.size["shortest_edge"]), raising=False)
    batch = Collator(processor, max_pixels=48 * 48)(rows)
    assert torch.equal(batch["image_grid_thw"], right["image_grid_thw"])
    assert torch.equal(batch["pixel_values"], right["pixel_values"])


def test_the_budget_gives_the_same_pixels_as_the_loader_at_inference(
    base_folder: Any, pictures: list[str]
) -> None:
    from dfkdata.media.images import open_image
    from dfkeval.models.processor import load_processor

    row = image_row("i", pictures[4:5], "x", "y")
    trained = Collator(load_processor(base_folder), max_pixels=48 * 48)([row])
    asked = load_processor(base_folder, max_pixels=48 * 48)
    seen = asked.image_processor(images=[open_image(pictures[4])], return_tensors="pt")
    assert torch.equal(trained["pixel_values"], seen["pixel_values"])


def test_a_row_over_max_length_is_refused_with_the_ways_out(processor: Any) -> None:
    with pytest.raises(DataError, match=r"row long: \d+ tokens, max_length is 20; .*on_too_long"):
        Collator(processor, max_length=20)([text_row("long", "berita " * 30, "y")])


def test_shortening_cuts_plain_prompt_text_only(processor: Any, pictures: list[str]) -> None:
    collator = Collator(processor)
    sample = collator.encode(image_row("i", pictures[:2], "berita " * 60, "Label: Fitnah"))
    for width in range(len(sample) - 40, len(sample)):
        short = collator.shorten(sample, width)
        assert len(short) == width
        assert short.scored == sample.scored
        assert short.input_ids.count(processor.image_token_id) == sample.input_ids.count(
            processor.image_token_id
        )
        assert short.input_ids[-5:] == sample.input_ids[-5:]
    with pytest.raises(DataError, match="do not fit 20 even without"):
        collator.shorten(sample, 20)


def test_shortening_keeps_the_beginning_of_the_text(processor: Any) -> None:
    collator = Collator(processor)
    sample = collator.encode(text_row("t", " ".join(f"kata{at}." for at in range(60)), "y"))
    written = processor.tokenizer.decode(collator.shorten(sample, len(sample) - 40).input_ids)
    assert "kata0. kata1. kata2." in written and "kata59." not in written


def test_a_picture_inside_the_answer_carries_no_loss(processor: Any, pictures: list[str]) -> None:
    row = text_row("drawn", "draw", "see")
    row["messages"][-1]["content"].append({"type": "image"})
    sample = Collator(processor).encode(row | {"images": pictures[:1]})
    image = processor.image_token_id
    labels = {label for token, label in zip(sample.input_ids, sample.labels, strict=True) if token == image}
    assert labels == {IGNORE} and sample.scored > 0


def test_more_placeholders_than_images_are_refused(processor: Any, pictures: list[str]) -> None:
    row = image_row("odd", pictures[:1], "x", "y")
    row["messages"][0]["content"].insert(0, {"type": "image"})
    with pytest.raises(DataError, match="row odd: 2 image placeholders in the prompt, 1 images in the row"):
        Collator(processor)([row])


def test_an_image_token_written_in_a_text_is_text(processor: Any) -> None:
    collator = Collator(processor)
    batch = collator([text_row("sly", "look: <|image_pad|>", "y")])
    assert collator.image_id not in batch["input_ids"].tolist()[0]
    assert "look: < |image_pad|>" in processor.tokenizer.decode(batch["input_ids"][0])


def test_a_missing_image_is_refused_by_name(processor: Any) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        Collator(processor)([image_row("i", ["gone.png"], "x", "y")])


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_video_and_audio_are_refused_by_name(processor: Any, kind: str) -> None:
    row = text_row("v", "x", "y")
    row["messages"][0]["content"].append({"type": kind})
    with pytest.raises(DataError, match=f"row v: holds {kind}"):
        Collator(processor)([row])


@pytest.mark.parametrize(("key", "kind"), [("videos", "video"), ("audios", "audio")])
def test_video_and_audio_files_without_a_placeholder_are_refused_too(
    processor: Any, key: str, kind: str
) -> None:
    with pytest.raises(DataError, match=f"row v: holds {kind}"):
        Collator(processor)([text_row("v", "x", "y") | {key: ["a.bin"]}])


def test_an_answer_with_a_none_filled_image_key_is_still_text(processor: Any, pictures: list[str]) -> None:
    """Columnar loaders fill missing keys with None, and templates that test for the key alone would render an
    image."""
    row = image_row("n", pictures[:1], "x", "Label: Fitnah")
    filled = copy.deepcopy(row)
    for turn in filled["messages"]:
        turn["content"] = [{"image": None, "video": None, "text": None} | part for part in turn["content"]]
    collator = Collator(processor)
    assert collator.encode(filled) == collator.encode(row)


def test_a_tool_row_keeps_its_tools(processor: Any, pictures: list[str]) -> None:
    batch = Collator(processor)([tool_row("c", pictures[:1])])
    assert "emit" in processor.tokenizer.decode(batch["input_ids"][0])


def test_shortening_never_cuts_a_turns_header(processor: Any) -> None:
    collator = Collator(processor)
    sample = collator.encode(text_row("t", "berita ini benar", "y"))
    refused = 0
    for width in range(1, len(sample)):
        try:
            short = collator.shorten(sample, width)
        except DataError:
            refused += 1
            continue
        written = processor.tokenizer.decode(short.input_ids)
        assert "<|im_start|>user\n" in written and "<|im_start|>assistant\n<think>" in written
    assert 0 < refused < len(sample) - 1


def test_a_turn_that_the_template_refuses_is_a_refused_row(processor: Any) -> None:
    row = text_row("odd", "x", "y")
    row["messages"][0]["content"] = [{"type": "riddle"}]
    with pytest.raises(DataError, match="row odd: the chat template refuses it"):
        Collator(processor).encode(row)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"meta": "x"}, "meta is not an object"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs is not an object"),
        ({"tools": "emit"}, "tools is not a list of objects"),
        ({"user": {"content": ["x"]}}, r"messages\[0\].content is neither"),
        ({"user": {"content": 5}}, r"messages\[0\].content is neither"),
        ({"answer": {"tool_calls": ["emit"]}}, r"messages\[1\].tool_calls is not a list of objects"),
        (
            {"answer": {"tool_calls": [{"function": {}}]}},
            r"messages\[1\].tool_calls: a call names no function",
        ),
        (
            {"answer": {"tool_calls": [{"function": {"name": "emit", "arguments": "{}"}}]}},
            r"messages\[1\].tool_calls: arguments are not an object",
        ),
        *(
            (
                {"answer": {"tool_calls": [{"function": {"name": "emit", "arguments": arguments}}]}},
                r"messages\[1\].tool_calls: arguments are not an object",
            )
            for arguments in (None, [], ["a"], 0, 3, False, "", "text")
        ),
    ],
)
def test_a_row_written_by_hand_with_a_value_of_a_wrong_kind_is_refused_with_its_place(
    processor: Any, tmp_path: Path, part: dict[str, Any], told: str
) -> None:
    row = text_row("odd", "x", "y")
    for at, name in enumerate(("user", "answer")):
        row["messages"][at] |= part.get(name, {})
    row |= {key: value for key, value in part.items() if key not in ("user", "answer")}
    with pytest.raises(DataError, match=f"row odd: {told}"):
        Collator(processor).encode(row)
    refused: list[str] = []
    stage = Stage.model_validate(
        {"name": "s", "data": [str(write_rows(tmp_path / "x.jsonl", [row]))], "steps": 1}
    )
    read_stage(stage, Collator(processor), 0, refused)
    assert len(refused) == 1


def test_a_null_that_the_tool_does_not_declare_is_not_trained_on(processor: Any) -> None:
    kinds = {"kota": {"type": "string"}, "musim": {"type": ["string", "null"]}}
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": kinds}},
    }

    def encoded(arguments: dict[str, Any]) -> list[int]:
        row = text_row("a", "x", "y") | {"tools": [tool]}
        row["messages"][1] |= {"tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
        return Collator(processor).encode(row).labels

    assert encoded({"kota": "Bogor", "zona": None}) == encoded({"kota": "Bogor"})
    assert encoded({"kota": None}) == encoded({})
    assert encoded({"musim": None}) != encoded({})
