"""Packed equals unpacked, with images, in logits and gradients; and what leaks without our path does show."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from dfkdata.common.errors import ConfigError
from dfktrain import TrainConfig, train
from dfktrain.config.model import AdapterConfig
from dfktrain.data import packing
from dfktrain.data.collator import Collator
from dfktrain.data.packing import Packer, conv_by_sequence, packed_difference, packed_positions
from dfktrain.data.samplers import TokenBudgetSampler
from dfktrain.engines import LoadedBase, adapt, trainable
from dfktrain.losses.attach import score_answers
from dfktrain.losses.cross_entropy import scored_states
from tests.helpers.models import image_row, text_row


@pytest.fixture
def mixed(pictures: list[str]) -> list[dict[str, Any]]:
    """Text and images, more than one GDN chunk of 64 tokens in some rows."""
    return [
        image_row("a", pictures[:2], "berita " * 30, "Label: Fitnah"),
        text_row("b", "x", "Label: Netral dan benar"),
        image_row("c", pictures[2:3], "a red circle", "blue square"),
        text_row("d", "pembaca " * 50, "tidak"),
        image_row("e", [pictures[4], pictures[5]], "two", "benar"),
    ]


def adapted(model: Any, processor: Any) -> Any:
    torch.manual_seed(1)
    made, _ = adapt(LoadedBase(model, processor, "random"), AdapterConfig(rank=4, alpha=4))
    with torch.no_grad():
        for name, parameter in trainable(made):
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    score_answers(made)
    return made.train()


def step(model: Any, batches: list[dict[str, Any]]) -> tuple[float, torch.Tensor]:
    """Summed loss and flat gradient over batches."""
    model.zero_grad()
    total = 0.0
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        total += loss.item()
    return total, torch.cat([p.grad.flatten().double() for _, p in trainable(model) if p.grad is not None])


def test_packed_hidden_states_equal_lone_ones_with_images(
    model: Any, processor: Any, mixed: list[Any]
) -> None:
    packing.patch_fallbacks("qwen3_5")
    packer = Packer(Collator(processor))
    samples = [packer.collator.encode(row) for row in mixed]
    assert packed_difference(model.model, packer, samples) <= 1e-6


def test_packed_logits_equal_lone_ones_at_every_scored_position(
    model: Any, processor: Any, mixed: list[Any]
) -> None:
    packing.patch_fallbacks("qwen3_5")
    collator = Collator(processor)
    packed = Packer(collator)(mixed)
    labels = packed.pop("labels")
    with torch.no_grad():
        ours, _ = scored_states(model.model(**packed, use_cache=False).last_hidden_state, labels)
        rows = []
        for row in mixed:
            batch = collator([row])
            aims = batch.pop("labels")
            rows.append(scored_states(model.model(**batch, use_cache=False).last_hidden_state, aims)[0])
        difference = (model.lm_head(ours) - model.lm_head(torch.cat(rows))).abs().max()
    assert float(difference) <= 1e-6


def test_packed_loss_and_gradient_equal_lone_ones(model: Any, processor: Any, mixed: list[Any]) -> None:
    packing.patch_fallbacks("qwen3_5")
    collator = Collator(processor)
    made = adapted(model, processor)
    lone_loss, lone = step(made, [collator([row]) for row in mixed])
    packed_loss, packed = step(made, [Packer(collator)(mixed)])
    assert packed_loss == pytest.approx(lone_loss, rel=1e-6)
    assert float((packed - lone).norm() / lone.norm()) <= 1e-6


def test_without_our_path_the_same_batch_leaks(model: Any, processor: Any, mixed: list[Any]) -> None:
    """The library's fallbacks ignore borders: the proof must see that, or it proves nothing."""
    packing.patch_fallbacks("qwen3_5")
    packer = Packer(Collator(processor))
    samples = [packer.collator.encode(row) for row in mixed]
    for lost in ("seq_idx", "cu_seq_lens_q", "position_ids"):
        batch = {name: value for name, value in packer(samples).items() if name not in (lost, "labels")}
        whole = {name: value for name, value in packer(samples).items() if name != "labels"}
        with torch.no_grad():
            leaking = model.model(**batch, use_cache=False).last_hidden_state
            apart = model.model(**whole, use_cache=False).last_hidden_state
        assert float((leaking - apart).abs().max() / apart.abs().max()) > packing.LEAK, lost


def test_positions_equal_those_of_the_model(model: Any, processor: Any, mixed: list[Any]) -> None:
    collator = Collator(processor)
    for row in mixed:
        batch = collator([row])
        grids = batch.get("image_grid_thw")
        kinds = batch["mm_token_type_ids"]
        ours = packed_positions(kinds[0], [kinds.shape[1]], grids, 2)
        theirs, _ = model.model.get_rope_index(batch["input_ids"], kinds, image_grid_thw=grids)
        assert torch.equal(ours[1:], theirs)
        assert torch.equal(ours[0, 0], torch.arange(kinds.shape[1]))
    lengths = [len(collator.encode(row)) for row in mixed]
    whole = Packer(collator)(mixed)["position_ids"]
    assert torch.equal(whole[0, 0], torch.cat([torch.arange(length) for length in lengths]))


def test_the_convolution_equals_one_run_a_sequence() -> None:
    torch.manual_seed(0)
    weight, bias, lengths = torch.randn(6, 4), torch.randn(6), [1, 2, 3, 9, 5]
    states = torch.randn(1, 6, sum(lengths))
    seq_idx = packing.borders(lengths)["seq_idx"]
    ours = conv_by_sequence(states, weight, bias, "silu", seq_idx)
    runs = []
    for part in states.split(lengths, dim=-1):
        out = torch.nn.functional.conv1d(part, weight.unsqueeze(1), bias, padding=3, groups=6)[
            ..., : part.shape[-1]
        ]
        runs.append(torch.nn.functional.silu(out))
    assert torch.allclose(ours, torch.cat(runs, dim=-1), atol=1e-6)


def test_calls_without_borders_are_the_librarys_own(model: Any, processor: Any, mixed: list[Any]) -> None:
    batch = Collator(processor)(mixed)
    with torch.no_grad():
        before = model(**batch).logits
        packing.patch_fallbacks("qwen3_5")
        packing.patch_fallbacks("qwen3_5")
        after = model(**batch).logits
    assert torch.equal(before, after)
    module = importlib.import_module("transformers.models.qwen3_5.modeling_qwen3_5")
    assert module.dfk_packing is True


def test_packing_is_refused_for_models_without_a_proved_path() -> None:
    with pytest.raises(ConfigError, match="packing is not verified for llama models"):
        packing.patch_fallbacks("llama")


def test_a_packed_run_takes_the_same_steps_as_a_padded_one(
    base_folder: Path, train_file: Path, tmp_path: Path
) -> None:
    stage = {"name": "s", "data": [str(train_file)], "epochs": 2, "batch_size": 4, "learning_rate": 1e-3}
    histories = []
    for packed in (False, True):
        made = {"model": {"name": str(base_folder)}, "stages": [stage | {"packing": packed}]}
        result = train(TrainConfig.model_validate(made), tmp_path / str(packed))
        assert result.stages[0].packing == ("on" if packed else "off")
        histories.append([line["loss"] for line in result.stages[0].history])
    assert histories[0] == pytest.approx(histories[1], rel=1e-4)


def test_where_packing_is_refused_padded_batches_are_used_and_the_run_says_so(
    base_folder: Path, train_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "packed_difference", lambda *_: 0.4)
    stage = {"name": "s", "data": [str(train_file)], "steps": 2, "batch_size": 4, "packing": True}
    made = {"model": {"name": str(base_folder)}, "stages": [stage]}
    result = train(TrainConfig.model_validate(made), tmp_path / "out")
    assert result.run["stages"][0]["packing"].startswith(
        "refused: packed samples see each other: states differ"
    )


@pytest.mark.parametrize("packed", [False, True])
def test_batches_of_a_token_budget_hold_every_sample_once_and_stay_below_it(packed: bool) -> None:
    lengths = [5 + (37 * i) % 90 for i in range(200)] + [500]
    batches = TokenBudgetSampler(lengths, 300, 1, packed=packed)
    seen = list(batches)
    assert sorted(index for batch in seen for index in batch) == list(range(201))
    for batch in seen:
        size = sum(lengths[i] for i in batch) if packed else len(batch) * max(lengths[i] for i in batch)
        assert size <= 300 or batch == [200]
    assert len(seen) == len(batches) < 70
    batches.set_epoch(1)
    assert list(batches) != seen and sorted(map(tuple, batches)) == sorted(map(tuple, seen))


def test_ranks_share_token_batches_evenly() -> None:
    lengths = [10 + i % 7 for i in range(101)]
    shares = [list(TokenBudgetSampler(lengths, 60, 1, packed=True, rank=rank, ranks=3)) for rank in range(3)]
    assert len({len(share) for share in shares}) == 1
    assert {index for share in shares for batch in share for index in batch} == set(range(101))


def test_a_run_with_a_token_budget_sees_every_token(
    base_folder: Path, train_file: Path, tmp_path: Path
) -> None:
    stage = {"name": "s", "data": [str(train_file)], "epochs": 1}
    totals = []
    for more in ({"batch_size": 4}, {"batch_tokens": 400}, {"batch_tokens": 400, "packing": True}):
        made = {"model": {"name": str(base_folder)}, "stages": [stage | more]}
        result = train(TrainConfig.model_validate(made), tmp_path / str(len(totals)))
        totals.append((result.stages[0].tokens, result.stages[0].scored_tokens))
    assert totals[0] == totals[1] == totals[2]
