"""Loss flags of turns in training: weight 0 has no label, other weights scale the loss of their turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dfkdata.common.errors import DataError
from dfktrain.config.stage import Stage
from dfktrain.data.collator import Collator
from dfktrain.data.masking import IGNORE
from dfktrain.data.packing import Packer
from dfktrain.data.stage_data import read_stage, read_validation
from dfktrain.losses.attach import score_answers
from tests.helpers.models import build_model, text, write_rows

OFF: list[dict[str, Any]] = [
    {"weight": 0},
    {"loss": False},
    {"train": False},
    {"loss_weight": 0.0},
    {"loss_scale": 0},
]


def row(name: str, *flags: dict[str, Any]) -> dict[str, Any]:
    """A conversation with one answer for each of `flags`."""
    turns: list[dict[str, Any]] = []
    for number, flag in enumerate(flags):
        turns.append({"role": "user", "content": [text(f"berita {number}")]})
        turns.append({"role": "assistant", "content": [text(f"benar {number}")], **flag})
    return {"id": name, "images": [], "messages": turns}


def scored(collator: Collator, sample: Any) -> str:
    labels = [label for label in sample.labels if label != IGNORE]
    return str(collator.tokenizer.decode(labels)).removesuffix("<|im_end|>")


def stage(path: Path, **more: Any) -> Stage:
    return Stage.model_validate({"name": "s", "data": [str(path)], "steps": 1} | more)


@pytest.mark.parametrize("flag", OFF, ids=str)
@pytest.mark.parametrize("on", [{}, {"weight": 1}, {"loss": True}], ids=str)
@pytest.mark.parametrize("pattern", ["10", "01", "101", "110", "011", "000"])
def test_a_turn_of_weight_0_has_no_label(
    processor: Any, tmp_path: Path, flag: dict[str, Any], on: dict[str, Any], pattern: str
) -> None:
    conversation = row("r", *(on if mark == "1" else flag for mark in pattern))
    path = write_rows(tmp_path / "x.jsonl", [row("plain", {}), conversation])
    collator = Collator(processor)
    expected = [f"benar {number}" for number, mark in enumerate(pattern) if mark == "1"]
    data = read_stage(stage(path, turns="all"), collator, 0)
    assert [scored(collator, sample) for sample in data.samples] == ["benar 0", *expected]
    last = read_stage(stage(path), collator, 0)
    held = read_validation(stage(path, validation=[str(path)]), collator)
    target = expected[-1:] if pattern[-1] == "1" else []
    for samples in (last.samples, held):
        assert [scored(collator, sample) for sample in samples] == ["benar 0", *target], (
            "the target never moves"
        )
    reason = (
        "the last assistant turn has the weight 0" if expected else "every assistant turn has the weight 0"
    )
    if target:
        assert not last.left_out
        assert scored(collator, collator.encode(conversation)) == target[0]
    else:
        assert [key.startswith(reason) for key in last.left_out] == [True]
        with pytest.raises(DataError, match=f"row r: {reason}"):
            collator.encode(conversation)


@pytest.mark.parametrize(
    "turn",
    [{"weight": -1}, {"loss": "no"}, {"train_detail": [1]}, {"masked": True}, {"loss": True, "weight": 0}],
)
def test_a_flag_that_cannot_be_honoured_is_refused_with_the_row(processor: Any, turn: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"row r: messages\[1\]"):
        Collator(processor).encode(row("r", turn))


def test_a_question_that_asks_to_be_trained_on_is_refused(processor: Any) -> None:
    odd = row("r", {})
    odd["messages"][0]["train"] = True
    with pytest.raises(DataError, match=r"row r: messages\[0\] asks to be trained on"):
        Collator(processor).encode(odd)


def test_weights_scale_the_loss_of_their_turn_padded_and_packed(processor: Any) -> None:
    model = build_model(processor)
    score_answers(model)
    collator, weights = Collator(processor), (0.5, 1, 3.0)
    rows = [row(f"r{number}", {}, {"weight": weight}) for number, weight in enumerate(weights)]
    plain = [row("p", {}, {}) for _ in weights]

    def loss(make: Any, batch: list[dict[str, Any]]) -> Any:
        model.zero_grad()
        value = model(**make(batch)).loss
        value.backward()
        return value.detach(), torch.cat(
            [part.grad.flatten() for part in model.parameters() if part.grad is not None]
        )

    alone = [loss(collator, [one]) for one in plain]
    for part in (0, 1):
        expected = sum(weight * one[part] for weight, one in zip(weights, alone, strict=True))
        together = loss(collator, rows)[part]
        split = sum(loss(collator, [one])[part] for one in rows)
        for found in (together, split):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(loss(collator, plain)[1], loss(collator, [one | {} for one in plain])[1])
    packed = Packer(collator)(rows)
    padded = collator(rows)
    assert torch.equal(packed["loss_weights"][0], padded["loss_weights"][padded["attention_mask"].bool()])


def test_rows_of_weight_1_have_no_weights_in_the_batch(processor: Any) -> None:
    batch = Collator(processor)([row("a", {"weight": 1}), row("b", {"loss": True}), row("c", {})])
    assert "loss_weights" not in batch


def test_label_weights_multiply_the_weights_of_turns(processor: Any, tmp_path: Path) -> None:
    rows = [row("a", {"weight": 0.5}), row("b", {}), row("c", {})]
    for one, label in zip(rows, "xyy", strict=True):
        one["meta"] = {"gold": {"label": label}}
    path = write_rows(tmp_path / "x.jsonl", rows)
    plan = {"label_weights": {"field": "label", "weights": "balanced"}, "validation": [str(path)]}
    data = read_stage(stage(path, **plan), Collator(processor), 0)
    shares = [sample.weight for sample in data.samples]
    assert shares[0] == pytest.approx(shares[1])  # twice as rare, half the weight
    assert [sample.weight for sample in read_validation(stage(path, **plan), Collator(processor))] == [
        0.5,
        1,
        1,
    ]
