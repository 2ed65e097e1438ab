"""An embedded picture and its file are one picture to whoever reads it: training, answers, hashes, reports."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import torch

from dfkdata import convert, load_rows, pages
from dfkdata.media import perceptual_hash
from dfktrain import Collator
from tests.helpers.models import build_processor, image_row, released_template
from tests.helpers.rows import write

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def processor() -> Any:
    return build_processor(released_template("qwen3_5_nothink"))


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.effect_noise((96, 48), 60).convert("RGB").save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def uri_of(path: str) -> str:
    return "data:image/png;base64," + base64.b64encode(Path(path).read_bytes()).decode()


def by_collator(image: str, processor: Any) -> Any:
    batch = Collator(processor)([image_row("a", [image], "x", "y")])
    return {name: value.tolist() for name, value in batch.items()}


def by_token_count(image: str, processor: Any) -> Any:
    return Collator(processor).image_tokens(image)


def by_bound(image: str, processor: Any) -> Any:
    from dfkeval.backends._local import prompts
    from dfkeval.types import Request

    request = Request(id="a", messages=[], images=(image,))
    return prompts._image_tokens(processor, request)


def by_hash(image: str, processor: Any) -> Any:
    return perceptual_hash.decode(image)


def by_page(image: str, processor: Any) -> Any:
    return pages.picture(image).partition("src=")[2]


@pytest.mark.parametrize("read", [by_collator, by_token_count, by_bound, by_hash, by_page])
def test_an_embedded_picture_equals_its_file(read: Any, picture: str, processor: Any) -> None:
    assert read(uri_of(picture), processor) == read(picture, processor)


def test_a_row_that_was_embedded_while_converting_trains_like_the_row_with_a_path(
    picture: str, processor: Any, tmp_path: Path
) -> None:
    post = {"question": "What is it?", "answer": "Noise.", "image": "a.png"}
    source = write(tmp_path / "in.jsonl", [post])
    batches = []
    for how in ("link", "embed"):
        convert(source, tmp_path / how, format="vqa", validation=0, materialize=how)
        (row,) = load_rows(tmp_path / how / "train.jsonl")
        assert row["images"][0].startswith("data:") == (how == "embed")
        batches.append(Collator(processor)([row]))
    assert batches[0].keys() == batches[1].keys()
    assert "pixel_values" in batches[0]
    for name in batches[0]:
        assert torch.equal(batches[0][name], batches[1][name]), name
