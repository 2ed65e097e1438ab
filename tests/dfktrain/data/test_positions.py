"""Positions that are worked out beside the loader are the network's own."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from dfktrain.data.collator import Collator
from dfktrain.data.positions import PositionedCollator, positioned
from tests.helpers.models import image_row, text_row


@pytest.fixture
def mixed(pictures: list[str]) -> list[dict[str, Any]]:
    return [
        image_row("a", pictures[:2], "berita " * 9, "Label: Fitnah"),
        text_row("b", "x", "Label: Netral dan benar"),
        image_row("c", pictures[2:3], "a red circle", "blue square"),
        image_row("d", pictures[3:6], "three", "benar"),
        text_row("e", "pembaca " * 30, "tidak"),
    ]


def test_positions_equal_the_networks_own_in_every_order_of_rows(
    model: Any, processor: Any, mixed: list[Any]
) -> None:
    collate = PositionedCollator(Collator(processor))
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    for rows in itertools.permutations(mixed, 3):
        batch = collate(rows)
        if "image_grid_thw" not in batch:
            assert "position_ids" not in batch
            continue
        own, _ = model.model.get_rope_index(**{name: batch[name] for name in names})
        assert torch.equal(batch["position_ids"], own)


def test_the_loss_does_not_change(model: Any, processor: Any, mixed: list[Any]) -> None:
    collator = Collator(processor)
    states = [
        model.model(
            **{name: value for name, value in make(mixed).items() if name != "labels"}, use_cache=False
        ).last_hidden_state
        for make in (collator, PositionedCollator(collator))
    ]
    assert torch.equal(*states)


def test_only_families_whose_positions_are_proved_get_them(processor: Any) -> None:
    collator = Collator(processor)
    assert positioned(collator, "qwen2_vl") is collator
    assert isinstance(positioned(collator, "qwen3_5"), PositionedCollator)


def test_worker_processes_make_the_same_batches(processor: Any, mixed: list[Any]) -> None:
    collate = PositionedCollator(Collator(processor))
    samples = [collate.collator.encode(row) for row in mixed]
    alone, ahead = (
        list(DataLoader(samples, 2, collate_fn=collate, num_workers=workers)) for workers in (0, 2)
    )
    for left, right in zip(alone, ahead, strict=True):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)
