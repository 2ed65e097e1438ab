"""Engines: version gates, import order, one module list, one hash of a base with and without weights."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.errors import BackendError, ConfigError
from dfkeval.models import loader
from dfktrain import TrainConfig, engines
from dfktrain.config.model import AdapterConfig
from dfktrain.engines import LoadedBase, adapt, unsloth
from dfktrain.engines import transformers as plain


def config(base: Path | str, **changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {"model": {"name": str(base)}, "stages": [{"name": "a", "data": ["x.jsonl"]}]} | changes
    )


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Pretend versions; "unsloth" present unless removed."""
    versions = {
        "unsloth": "2026.10.9",
        "bitsandbytes": "0.50.2",
        "transformers": "5.17.0",
        "torch": "2.11.0+cu130",
    }
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: (
            ((versions.get(name) and sys) or None) if name in ("unsloth", "bitsandbytes") else real(name)
        ),
    )
    monkeypatch.setattr(importlib.metadata, "version", lambda name: versions[name])
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    return versions


def test_unsloth_is_used_where_its_tested_set_and_a_gpu_are_here(installed: dict[str, str]) -> None:
    assert unsloth.available() is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unsloth": ""}, "needs unsloth: pip install"),
        ({"bitsandbytes": ""}, "needs bitsandbytes, also for 16-bit LoRA"),
        ({"unsloth": "2026.11.1"}, "is written for unsloth 2026.10.7"),
        ({"transformers": "5.23.0"}, "needs transformers<=5.17.0, found 5.23.0"),
        ({"torch": "2.15.0"}, "needs torch<2.15, found 2.15.0"),
    ],
)
def test_a_version_set_that_is_not_tested_is_named(
    installed: dict[str, str], change: dict[str, str], said: str
) -> None:
    installed.update(change)
    assert said in str(unsloth.available())


def test_unsloth_without_a_gpu_is_refused_and_auto_takes_transformers(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="engine 'unsloth' needs a CUDA device"):
        engines.select_engine("unsloth")
    assert engines.select_engine("auto")[0] == "transformers"


def test_unsloth_after_transformers_is_refused_because_it_could_not_patch_it() -> None:
    with pytest.raises(BackendError, match="imported before unsloth"):
        unsloth._import_first()


@pytest.mark.parametrize(
    ("changes", "precision", "said"),
    [
        ({"model": {"name": "x/y", "kind": "llm"}}, "bf16", "use engine: transformers for llm"),
        ({}, "fp32", "in bf16"),
    ],
)
def test_what_unsloth_does_not_support_is_refused(changes: dict[str, Any], precision: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        unsloth.load(config("x/y", **changes), precision)


def test_an_adapter_on_other_modules_than_asked_for_stops_the_run(model: Any, processor: Any) -> None:
    made, modules = adapt(
        LoadedBase(model, processor, "random"), AdapterConfig(rank=2, target_modules="language")
    )
    unsloth.check_modules(made, modules)
    with pytest.raises(BackendError, match="were asked for"):
        unsloth.check_modules(made, modules[1:])


def test_the_hash_of_a_base_is_the_same_with_and_without_its_weights(base_folder: Path) -> None:
    loaded = loader.load(base_folder, device="cpu")
    assert engines.shapes_without_weights(str(base_folder)) == loaded.info["shapes_sha256"]


def test_four_bit_without_bitsandbytes_is_named(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else real(name)
    )
    with pytest.raises(ConfigError, match="qlora needs bitsandbytes"):
        plain.load(config(base_folder, adapter={"kind": "qlora"}), "fp32")


@pytest.mark.parametrize(
    ("cuda", "native", "wanted", "expected"),
    [
        (True, True, "auto", "bf16"),
        (True, False, "auto", "fp32"),
        (False, False, "auto", "fp32"),
        (True, True, "fp32", "fp32"),
    ],
)
def test_precision_auto_is_bf16_only_where_it_is_native(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, native: bool, wanted: str, expected: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: native)
    assert engines.select_precision(wanted)[0] == expected


def test_an_emulated_bf16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: False)
    with pytest.raises(ConfigError, match="this GPU only emulates it"):
        engines.select_precision("bf16")


def test_nothing_of_the_recipe_imports_transformers_before_the_engine_is_chosen() -> None:
    import subprocess

    code = (
        "import sys, dfktrain.training.run, dfktrain.engines\n"
        "print([m for m in ('transformers', 'peft') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("rank", "card"), [("1", 1), ("5", 1), (None, None)])
def test_every_process_of_a_launch_loads_onto_its_own_card(
    rank: str | None, card: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: False)
    if rank is None:
        monkeypatch.delenv("LOCAL_RANK", raising=False)
    else:
        monkeypatch.setenv("LOCAL_RANK", rank)

    def load(config: TrainConfig, precision: str) -> LoadedBase:
        assert chosen == ([] if card is None else [card])
        raise BackendError("seen")

    monkeypatch.setattr(plain, "load", load)
    with pytest.raises(BackendError, match="seen"):
        engines.load_base(config("tiny", engine="transformers", precision="fp32"))
