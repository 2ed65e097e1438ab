"""Rows that come more often, or count for more, by the value of their gold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dfkdata.common.errors import DataError
from dfktrain import train
from dfktrain.config.stage import Stage
from dfktrain.data.collator import Collator
from dfktrain.data.masking import IGNORE
from dfktrain.data.stage_data import read_stage
from dfktrain.engines import trainable
from tests.helpers.models import text_row, write_rows
from tests.helpers.training_runs import config, difference, step_gradient


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
