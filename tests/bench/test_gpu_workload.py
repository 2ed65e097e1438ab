"""What the GPU benchmarks count: operations, bytes, tokens and forced lengths."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

BENCH = Path(__file__).resolve().parents[2] / "bench"
NOTHING = {"tokens": 0.0, "scored": 0.0, "patches": 0.0, "squares": 0.0, "patch_squares": 0.0}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


@pytest.fixture
def linear_weights(bench: Any) -> tuple[Any, dict[str, int]]:
    """The configuration of a small model, and the linear weights of its parts."""
    from transformers import Qwen3_5ForConditionalGeneration

    config = bench("base_model").make_config("tiny")
    with torch.device("meta"):
        model = Qwen3_5ForConditionalGeneration(config)
    parts = {"body": 0, "tower": 0, "merger": 0, "head": 0}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            part = "merger" if "merger" in name else "tower" if "visual" in name else "body"
            parts["head" if name == "lm_head" else part] += module.weight.numel()
    return config, parts


def test_frozen_weights_cost_two_products_a_token(bench: Any, linear_weights: Any) -> None:
    config, parts = linear_weights
    count = bench("gpu_workload").training_flops
    text = config.text_config
    rule = 21 * 3 * text.linear_num_value_heads * text.linear_value_head_dim * text.linear_key_head_dim
    assert count(config, NOTHING | {"tokens": 1.0}, rank=0) == 4 * parts["body"] + rule
    assert count(config, NOTHING | {"scored": 1.0}, rank=0) == 4 * parts["head"]
    assert count(config, NOTHING | {"patches": 4.0}, rank=0) == 4 * (4 * parts["tower"] + parts["merger"])


def test_a_decode_step_reads_every_weight_once(bench: Any, linear_weights: Any) -> None:
    config, parts = linear_weights
    moved = bench("gpu_workload").decode_bytes(config, 0, 100)
    assert moved == 2 * (parts["body"] + parts["head"])


def test_forced_lengths_end_each_row_at_its_own(bench: Any) -> None:
    forced = bench("forced_lengths").ForcedLengths({7: 2, 8: 3}, [0, 1])
    written: list[list[int]] = [[], []]
    ids = torch.tensor([[5, 7, 5], [8, 5, 5]])
    for _ in range(4):
        logits = torch.tensor([[[9.0, 9.0, 1.0]], [[9.0, 9.0, 1.0]]])
        forced.apply(ids, logits)
        for row, token in zip(written, logits[:, -1].argmax(-1).tolist(), strict=True):
            row.append(token)
        ids = torch.zeros(2, 1, dtype=torch.long)
    assert written == [[2, 0, 0, 0], [2, 2, 0, 0]]


def test_real_tokens_are_counted_without_padding(bench: Any) -> None:
    count = bench("step_recorder").count
    ids, labels = torch.ones(2, 4, dtype=torch.long), torch.tensor([[-100, 3, 3, 3], [-100, 3, -100, -100]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    assert [int(each) for each in count({"input_ids": ids, "labels": labels, "attention_mask": mask})] == [
        6,
        4,
        2,
        8,
    ]
    packed = {
        "input_ids": ids.view(1, 8),
        "labels": labels.view(1, 8),
        "cu_seq_lens_q": torch.tensor([0, 4, 8]),
    }
    assert [int(each) for each in count(packed)] == [8, 4, 2, 8]


def test_adapter_weights_have_one_name_everywhere(bench: Any) -> None:
    plain_name = bench("step_recorder").plain_name
    inner = "model.layers.0.q_proj.lora_A"
    assert plain_name(f"base_model.model.{inner}.default.weight") == f"{inner}.weight"
    assert plain_name(f"module.base_model.model.{inner}.default.weight") == f"{inner}.weight"
