"""Bytes of pictures become the processor's own numbers."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch
from PIL import Image

from dfktrain.data.collator import Collator
from dfktrain.data.packing import Packer
from dfktrain.data.pixels import BYTES, byte_pixels
from tests.helpers.models import image_row, text_row


@pytest.mark.parametrize("budget", [None, 32 * 32 * 4, 32 * 32 * 40])
def test_numbers_from_bytes_are_the_processors(
    processor: Any, pictures: list[str], budget: int | None
) -> None:
    collators = [Collator(processor, max_pixels=budget) for _ in range(2)]
    collators[1].byte_pixels = byte_pixels(processor.image_processor)
    made = collators[1].byte_pixels
    assert made is not None
    rows = [
        image_row("a", pictures[:3], "x", "y"),
        text_row("t", "x", "y"),
        image_row("b", pictures[3:], "x", "y"),
    ]
    theirs, ours = (collator(rows) for collator in collators)
    assert ours[BYTES].dtype == torch.uint8 and "pixel_values" not in ours
    assert ours[BYTES].numel() * 8 == theirs["pixel_values"].numel() * 4
    assert torch.equal(made.values(ours[BYTES]), theirs["pixel_values"])
    assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])
    packed = Packer(collators[1])(rows)
    assert torch.equal(packed[BYTES], ours[BYTES])


@pytest.mark.parametrize("change", ["other numbers", "another kind", "other filter"])
def test_a_processor_whose_numbers_are_others_gets_no_bytes(processor: Any, change: str) -> None:
    images = processor.image_processor
    if change == "another kind":
        assert byte_pixels(types.SimpleNamespace(size={})) is None
        return

    class Other(type(images)):  # type: ignore[misc] # the class is known at run time only
        def __call__(self, *given: Any, **options: Any) -> Any:
            out = super().__call__(*given, **options)
            out["pixel_values"] = out["pixel_values"] * 1.01
            return out

    other = Other.from_dict(images.to_dict())
    if change == "other filter":
        other = type(images).from_dict(images.to_dict())
        made = byte_pixels(other)
        assert made is not None
        made.filter = Image.Resampling.NEAREST
        from dfktrain.data.pixels import _equal

        assert not _equal(made, other)
        return
    assert byte_pixels(other) is None
