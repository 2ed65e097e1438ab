"""A step's gradient depends neither on how its batch is split nor on the padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dfktrain.data.collator import Collator
from dfktrain.data.masking import IGNORE
from dfktrain.engines import trainable
from tests.helpers.training_runs import difference, step_gradient


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
