"""Traps of training these models that have no other home: heads, kernels, servers, telemetry.

The others stand with what they concern: normalisation, split and validation loss in test_train; mask, think
blocks and stop token in test_mask; truncation, None-filled parts, pixels and tools in test_collate; leaks in
test_packing; hanging ranks in test_ranks; text-only classes in test_families; precision in test_engines."""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import transformers

from dfkdata.errors import BackendError, ConfigError
from dfkeval import loading
from dfktrain import TrainConfig, cli, environment
from dfktrain.engines import transformers as plain
from dfktrain.model import target_modules
from dfktrain.plan import plan


def test_an_adapter_on_the_tied_head_is_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match="'lm_head' is the head, whose weight is the embedding's too"):
        target_modules(model, ("q_proj", "lm_head"))


def test_a_fast_kernel_with_a_wrong_gradient_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    good = dict.fromkeys(("output", "query", "key", "value", "decay", "beta"), 1e-3)
    monkeypatch.setattr(environment, "gdn_difference", lambda device, **shape: good)
    assert environment.require_gated_delta_rule("cuda") == good
    for wrong in (0.3, float("nan")):
        monkeypatch.setattr(
            environment, "gdn_difference", lambda device, wrong=wrong, **shape: good | {"decay": wrong}
        )
        with pytest.raises(BackendError, match=r"decay differs by .* uninstall flash-linear-attention"):
            environment.require_gated_delta_rule("cuda")


def test_a_fast_kernel_that_does_not_run_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(device: str, **shape: Any) -> dict[str, float]:
        raise RuntimeError("0 active drivers")

    monkeypatch.setattr(environment, "gdn_difference", fails)
    with pytest.raises(BackendError, match=r"does not run here: 0 active drivers; install triton>=3\.7\.1"):
        environment.require_gated_delta_rule("cuda")


def test_the_kernel_is_checked_before_a_hybrid_model_is_loaded_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, int, int]] = []
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: sys if name == "fla" else real(name))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(environment, "require_gated_delta_rule", lambda *shape: asked.append(shape))
    plain.check_kernels(plain.model_config(loading.model_source("tiny")))
    plain.check_kernels(transformers.Qwen2VLConfig())
    assert asked == [("cuda", 4, 32)]  # the model's own heads, so that kernels are tuned once


def test_the_refusal_of_the_kernel_library_is_lifted_only_where_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("fla.ops.common.chunk_o")
    module.TRITON_ABOVE_3_7_1 = False  # type: ignore[attr-defined] # a stand-in for the library's flag
    real = importlib.util.find_spec
    known: dict[str, Any] = {"fla": sys, "tilelang": None}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: known[name] if name in known else real(name)
    )
    monkeypatch.setitem(sys.modules, "fla.ops.common.chunk_o", module)
    assert environment._lift_refusal() is True
    assert environment._lift_refusal() is False


def test_what_servers_drop_from_an_adapter_is_said_before_training(
    base_folder: Path, train_file: Path
) -> None:
    def notes(target: str) -> str:
        stage = {"name": "s", "data": [str(train_file)]}
        made = {"model": {"name": str(base_folder)}, "adapter": {"target_modules": target}, "stages": [stage]}
        return " ".join(plan(TrainConfig.model_validate(made)).notes)

    assert "vision tower" in notes("all") and "in_proj_a" in notes("all")
    assert "vision tower" not in notes("language") and "in_proj_a" in notes("language")
    assert notes("servable") == ""


def test_the_command_turns_telemetry_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY", raising=False)
    cli._quiet()
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
