"""A key that the engine, the model kind or this machine does not support is refused by name before anything
loads."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.config import bind
from dfkdata.common.errors import ConfigError
from dfktrain import TrainConfig, train
from dfktrain.engines import unsupported

ENGINES = ("transformers", "unsloth")
PACKAGES = ("bitsandbytes", "flash_attn", "wandb", "tensorboard")

UNABLE: dict[str, tuple[dict[str, Any], dict[str, str | None]]] = {
    "precision fp32": ({}, {"unsloth": "trains in bf16, not in fp32"}),
    "model.kind": ({"model": {"kind": "llm"}}, {"unsloth": "llm is not built"}),
    "model.attention": ({"model": {"attention": "eager"}}, {"unsloth": "chooses its own attention"}),
    "adapter.kind peft": (
        {"adapter": {"kind": "peft", "method": "peft.LoHaConfig"}},
        {"unsloth": "peft methods are not supported"},
    ),
    "adapter.dora": ({"adapter": {"dora": True}}, {"unsloth": "adapter.dora: is not supported"}),
    "adapter.loftq": (
        {"adapter": {"kind": "qlora", "loftq": True}},
        {"unsloth": "adapter.loftq: is not supported"},
    ),
    "checkpointing unsloth": ({"checkpointing": "unsloth"}, {"transformers": "needs engine: unsloth"}),
    "checkpointing torch": ({"checkpointing": "torch"}, {}),
    "fused_layers": (
        {"fused_layers": True},
        {"unsloth": "fused_layers: engine unsloth has kernels of its own"},
    ),
    "cuda_graphs": (
        {"cuda_graphs": True},
        {"unsloth": "cuda_graphs: engine unsloth has layers of its own"},
    ),
    "workers": ({"workers": 4}, {}),
    "adapter.rslora": ({"adapter": {"rslora": True}}, {}),
    "adapter.bias": ({"adapter": {"bias": "lora_only"}}, {}),
    "adapter.kind full": ({"adapter": {"kind": "full"}}, {}),
    "adapter.kind qlora": ({"adapter": {"kind": "qlora"}}, {}),
    "optimizer 8 bit": ({"stage": {"optimizer": "adamw_8bit"}}, {}),
    "optimizer paged": ({"stage": {"optimizer": "paged_adamw_8bit"}}, {}),
    "packing": ({"stage": {"packing": True}}, {}),
    "batch_tokens": ({"stage": {"batch_tokens": 64}}, {}),
    "trackers": ({"trackers": ["tensorboard", "wandb"]}, {}),
}
"""Key -> (the configuration that asks for it, engine -> what is said where the engine cannot)."""


def config(**changes: Any) -> TrainConfig:
    made = dict(changes)
    stage = {"name": "a", "data": ["x.jsonl"]} | made.pop("stage", {})
    made["model"] = {"name": "tiny"} | made.get("model", {})
    return bind(made | {"stages": [stage]}, TrainConfig)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The packages of `PACKAGES` that seem to be installed; all of them, and a GPU, unless taken out."""
    present, real = set(PACKAGES), importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: (real("json") if name in present else None) if name in PACKAGES else real(name),
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    return present


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("key", UNABLE)
def test_an_engine_refuses_exactly_the_keys_that_it_does_not_support(
    packages: set[str], engine: str, key: str
) -> None:
    changes, said = UNABLE[key]
    precision = "fp32" if key == "precision fp32" else "bf16"
    found = unsupported(config(**changes), engine, precision)
    if engine in said:
        assert len(found) == 1 and str(said[engine]) in found[0]
    else:
        assert found == []


@pytest.mark.parametrize(
    ("gone", "changes", "said"),
    [
        (
            "bitsandbytes",
            {"adapter": {"kind": "qlora"}},
            "adapter.kind qlora needs bitsandbytes: pip install",
        ),
        ("bitsandbytes", {"stage": {"optimizer": "adamw_8bit"}}, "stages.a.optimizer: adamw_8bit needs"),
        ("flash_attn", {"model": {"attention": "flash_attention_2"}}, "has no wheel: pip install flash-attn"),
        ("wandb", {"trackers": ["wandb"]}, "trackers: wandb needs wandb: pip install wandb"),
        ("tensorboard", {"trackers": ["tensorboard"]}, "pip install tensorboard"),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_missing_package_is_named_with_the_key_that_needs_it(
    packages: set[str], engine: str, gone: str, changes: dict[str, Any], said: str
) -> None:
    before = unsupported(config(**changes), engine, "bf16")
    packages.remove(gone)
    (found,) = set(unsupported(config(**changes), engine, "bf16")) - set(before)
    assert said in found


@pytest.mark.parametrize("changes", [{"adapter": {"kind": "qlora"}}, {"stage": {"optimizer": "adamw_8bit"}}])
def test_what_needs_a_gpu_is_refused_on_a_cpu(
    packages: set[str], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (found,) = unsupported(config(**changes), "transformers", "fp32")
    assert "needs a GPU" in found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stage": {"max_pixels": 64}}, "stages.a.max_pixels: model.kind llm sees no images"),
        ({"stage": {"modality": "image"}}, "stages.a.modality image"),
        ({"adapter": {"target_modules": "vision"}}, "has no vision tower"),
    ],
)
def test_a_language_model_refuses_the_keys_of_images(changes: dict[str, Any], said: str) -> None:
    (found,) = unsupported(config(model={"kind": "llm"}, **changes), "transformers", "fp32")
    assert said in found
    assert unsupported(config(**changes), "transformers", "fp32") == []


def test_all_refusals_come_at_once_and_nothing_is_loaded(tmp_path: Path) -> None:
    made = config(
        model={"name": str(tmp_path / "nowhere"), "attention": "flash_attention_2"}, checkpointing="unsloth"
    )
    with pytest.raises(ConfigError, match=r"(?s)flash_attn.*checkpointing: unsloth"):
        train(made, tmp_path / "out")


def test_unsloth_refuses_several_processes(packages: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    (found,) = unsupported(config(), "unsloth", "bf16")
    assert "trains on one GPU, here are 2 processes" in found
