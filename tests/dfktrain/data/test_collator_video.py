"""Rows with video: what the collator makes of them, and who refuses them. Here without torchvision a small
video processor of the library's interface stands in; the last test asks the library's own, where it is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dfkdata.common.errors import DataError
from dfkdata.rows.messages import load_rows
from dfkeval.backends._local import likelihood
from dfkeval.backends._local import prompts as _prompts
from dfkeval.backends._openai import protocol
from dfkeval.models import video
from dfkeval.types import GoldAnswer, Request, Sampling
from dfktrain import TrainConfig
from dfktrain.cli import preflight_view
from dfktrain.data.collator import Collator
from dfktrain.data.masking import IGNORE, turns
from dfktrain.engines import LoadedBase
from dfktrain.training.run import train_on
from tests.helpers.models import (
    build_model,
    build_processor,
    image_row,
    released_template,
    text,
    text_row,
    write_rows,
)


class TwoFrames:
    """Every second frame of a (T, 32, 64, 3) video at its own size, with the attributes and the answer of the
    library's class."""

    merge_size, temporal_patch_size, patch_size = 2, 2, 16

    def __call__(self, videos: list[Any], return_metadata: bool, return_tensors: str) -> dict[str, Any]:
        (film,) = [np.load(each) if isinstance(each, str) else each for each in videos]
        taken = np.arange(0, len(film) - len(film) % 4, 2)
        frames = torch.tensor(film[taken], dtype=torch.float32) / 127.5 - 1
        frames = frames.reshape(len(taken) // 2, 2, 1, 2, 16, 2, 2, 16, 3)
        pixels = frames.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(-1, 3 * 2 * 16 * 16)
        about = SimpleNamespace(fps=4, frames_indices=taken)
        grid = torch.tensor([[len(taken) // 2, 2, 4]])
        return {"pixel_values_videos": pixels, "video_grid_thw": grid, "video_metadata": [about]}


@pytest.fixture
def processor() -> Any:
    made = build_processor(released_template("qwen3_5_nothink"))
    made.video_processor = TwoFrames()
    return made


def film(frames: int = 8, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 255, (frames, 32, 64, 3), dtype=np.uint8)


def video_row(name: str, videos: list[Any], asked: str = "apa ini", answer: str = "Label: Fitnah") -> Any:
    row = text_row(name, asked, answer) | {"videos": videos}
    row["messages"][0]["content"] = [*({"type": "video"} for _ in videos), text(asked)]
    return row


def test_each_frame_has_its_time_and_its_tokens_and_none_of_them_carries_loss(processor: Any) -> None:
    sample = Collator(processor).encode(video_row("v", [film()]))
    prompt = processor.tokenizer.decode(sample.input_ids)
    frame = "<|vision_start|><|video_pad|><|video_pad|><|vision_end|>"
    assert f"<0.2 seconds>{frame}<1.2 seconds>{frame}" in prompt  # frames 0 2 and 4 6 of four a second
    assert processor.tokenizer.decode([i for i in sample.labels if i != IGNORE]) == "Label: Fitnah<|im_end|>"


def test_a_mixed_batch_marks_images_with_1_and_videos_with_2_and_the_model_takes_it(
    processor: Any, pictures: list[str]
) -> None:
    rows = [
        video_row("v", [film(), film(4, 1)]),
        image_row("i", pictures[:1], "x", "y"),
        text_row("t", "x", "y"),
    ]
    batch = Collator(processor)(rows)
    kinds = batch["mm_token_type_ids"]
    assert [int((kinds == kind).sum()) for kind in (1, 2)] == [int(batch["image_grid_thw"].prod()) // 4, 6]
    assert batch["video_grid_thw"].tolist() == [[2, 2, 4], [1, 2, 4]]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    model = build_model(processor)
    logits = model(**inputs).logits
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].flip(0)
    moved = (model(**inputs).logits - logits).abs().amax((1, 2))
    assert moved[0] > 1e-4 and moved[1:].max() < 1e-5  # the video reaches its own row and no other


def test_a_model_learns_from_video_rows_and_its_tower_gets_gradients(processor: Any) -> None:
    from dfktrain.losses.attach import score_answers

    model = build_model(processor)
    score_answers(model)
    model(**Collator(processor)([video_row("v", [film()])])).loss.backward()
    assert float(model.model.visual.patch_embed.proj.weight.grad.norm()) > 0


def test_a_run_trains_the_tower_on_videos_unpacked_and_a_text_stage_leaves_them_out(
    processor: Any, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", film())
    rows = [video_row("v", ["a.npy"]), text_row("t", "x", "y")]
    data = str(write_rows(tmp_path / "x.jsonl", rows))
    stage = {"data": [data], "steps": 2, "batch_size": 2, "packing": True, "learning_rate": 1e-2}
    stages = [stage | {"name": kind, "modality": kind} for kind in ("image", "text")]
    made = TrainConfig.model_validate({"adapter": {"rank": 2}, "stages": stages, "model": {"name": "random"}})
    seen, plain = train_on(
        LoadedBase(build_model(processor), processor, "random"), made, tmp_path / "out"
    ).stages
    assert seen.packing == "refused: packing is not verified for rows with video" and plain.packing == "on"
    assert seen.left_out == {"modality is not image": 1} and plain.left_out == {"modality is not text": 1}
    weights = load_file(str(seen.adapter / "adapter_model.safetensors"))
    assert any(".visual." in name and "lora_B" in name and t.any() for name, t in weights.items())


def test_a_file_is_read_from_where_the_rows_lie(processor: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", film())
    (row,) = load_rows(write_rows(tmp_path / "x.jsonl", [video_row("v", ["a.npy"])]))
    batch, given = Collator(processor)([row]), Collator(processor)([video_row("v", [film()])])
    assert all(torch.equal(batch[name], given[name]) for name in given)


@pytest.mark.parametrize("gone", ["gone.mp4", "https://example.org/a.mp4"])
def test_a_video_that_is_not_on_this_machine_is_refused_and_not_fetched(processor: Any, gone: str) -> None:
    with pytest.raises(DataError, match=f"video {gone}: no such file"):
        Collator(processor).encode(video_row("v", [gone]))


def test_placeholders_and_videos_are_as_many_or_the_row_is_refused(processor: Any) -> None:
    for row, found in (
        (video_row("v", [film()]) | {"videos": []}, "1 video placeholders, 0 videos"),
        (text_row("v", "x", "y") | {"videos": [film()]}, "0 video placeholders, 1 videos"),
    ):
        with pytest.raises(DataError, match=f"row v: {found}"):
            Collator(processor).encode(row)
    for row in (text_row("v", "x <|video_pad|>", "y"), text_row("v", "x", "y <|video_pad|>")):
        collator = Collator(processor)
        assert collator.video_id not in collator.encode(row).input_ids, "in a text it is text"


def test_a_video_that_changed_since_its_row_was_encoded_is_refused(processor: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", film())
    collator = Collator(processor)
    sample = collator.encode(video_row("v", [str(tmp_path / "a.npy")]))
    np.save(tmp_path / "a.npy", film(12))
    with pytest.raises(DataError, match="have 6 tokens, 4 when their rows were encoded"):
        collator([sample])


def test_a_prompt_with_video_is_not_shortened(processor: Any) -> None:
    collator = Collator(processor)
    sample = collator.encode(video_row("v", [film()], asked="apa ini " * 20))
    with pytest.raises(DataError, match="a prompt with a video is not shortened"):
        collator.shorten(sample, len(sample) - 1)


def test_every_turn_of_a_row_takes_the_files_shown_up_to_it(processor: Any, pictures: list[str]) -> None:
    row = video_row("v", [film()])
    more = image_row("i", pictures[:1], "dan", "biru")["messages"] + video_row("w", [film(4)])["messages"]
    row |= {"messages": row["messages"] + more, "images": pictures[:1], "videos": [film(), film(4)]}
    samples = [Collator(processor).encode(turn) for turn in turns(row, "all")]
    assert [(len(each.images), len(each.videos)) for each in samples] == [(0, 1), (1, 1), (1, 2)]


def test_the_coloured_row_shows_video_tokens_as_one(processor: Any) -> None:
    collator = Collator(processor)
    shown = preflight_view.coloured(collator.encode(video_row("v", [film()])), collator)
    assert shown.count("<2 video tokens>") == 2


def test_without_a_video_processor_the_refusal_names_the_way_out() -> None:
    bare = build_processor(released_template("qwen3_5_nothink"))
    with pytest.raises(DataError, match=r"row v: holds video: .*(torchvision|Qwen3VLVideoProcessor)"):
        Collator(bare).encode(video_row("v", [film()]))
    with pytest.raises(DataError, match=r"row v: holds video: this model sees text only"):
        Collator(bare.tokenizer).encode(video_row("v", [film()]))


def test_a_video_is_never_asked_about_unseen(processor: Any) -> None:
    request = Request(id="v", messages=video_row("v", [film()])["messages"][:1])
    told = "hold video, which cannot be asked here"
    prompts, failed = _prompts.measured(processor, [request], Sampling())
    assert not prompts and told in str(failed[0].error)
    with pytest.raises(DataError, match=told):
        protocol.body(request, Sampling(), "some")
    gold_answer = GoldAnswer(request=request, turn=text_row("v", "x", "y")["messages"][1])
    with pytest.raises(DataError, match=told):
        likelihood._encoded(gold_answer, processor, False)


def test_ids_and_tensors_equal_those_of_the_librarys_processor(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="needs torchvision, for the library's video processor")
    from transformers import Qwen3VLProcessor, Qwen3VLVideoProcessor

    from dfkeval.models.processor import load_processor

    own = build_processor(released_template("qwen3_5_nothink"))
    frames = Qwen3VLVideoProcessor(size={"shortest_edge": 32 * 32 * 4, "longest_edge": 64 * 64 * 8})
    whole = Qwen3VLProcessor(own.image_processor, own.tokenizer, frames, chat_template=own.chat_template)
    whole.save_pretrained(tmp_path)
    loaded = load_processor(tmp_path)
    row = video_row("v", [film(50), film(31, 1)])
    prompt = whole.apply_chat_template(row["messages"][:1], tokenize=False, add_generation_prompt=True)
    wanted = whole(text=[prompt], videos=row["videos"], return_tensors="pt")
    found = Collator(loaded)([row])
    width = wanted["input_ids"].shape[1]
    for name in ("input_ids", "mm_token_type_ids"):
        assert torch.equal(found[name][:, :width], wanted[name])
    for name in ("pixel_values_videos", "video_grid_thw"):
        assert torch.equal(found[name], wanted[name])
    loaded.save_pretrained(tmp_path / "again")
    assert video.video_fault(load_processor(tmp_path / "again")) is None
