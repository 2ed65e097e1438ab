"""The training configuration: strict, all errors at once, honest about contradictions."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.config import bind, load_config
from dfkdata.common.errors import ConfigError
from dfktrain import TrainConfig

MINIMAL = """
model: {name: tiny}
adapter: {kind: lora, rank: 16, alpha: 32, dropout: 0.0, target_modules: all-linear}
stages:
  - {name: sft, data: [train.jsonl], epochs: 1, batch_size: 8, learning_rate: 1e-3, scheduler: cosine,
     warmup_ratio: 0.03, max_length: 2048}
seed: 42
"""


def config(**changes: Any) -> dict[str, Any]:
    return {"model": {"name": "tiny"}, "stages": [{"name": "a", "data": ["x.jsonl"]}]} | changes


def stage(**changes: Any) -> dict[str, Any]:
    return config(stages=[{"name": "a", "data": ["x.jsonl"]} | changes])


def test_the_minimal_configuration_of_the_manual_is_read_with_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(MINIMAL)
    loaded = load_config(path, TrainConfig)
    assert loaded.stages[0].learning_rate == 1e-3
    assert loaded.stages[0].warmup_ratio == 0.03
    assert loaded.adapter.rank == 16


def test_an_override_reaches_a_stage(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(MINIMAL)
    assert load_config(path, TrainConfig, ["stages.0.learning_rate=5e-5"]).stages[0].learning_rate == 5e-5


def test_every_misspelt_key_is_named_with_the_nearest_known_one() -> None:
    wrong = config(
        adaptor={}, stages=[{"name": "a", "data": ["x.jsonl"], "learning_rte": 1e-4, "warmup_step": 3}]
    )
    with pytest.raises(ConfigError) as caught:
        bind(wrong, TrainConfig)
    message = str(caught.value)
    assert "did you mean 'learning_rate'" in message
    assert "did you mean 'warmup_steps'" in message
    assert "did you mean 'adapter'" in message


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (config(precision="fp16"), "fp16 gives NaN gradients"),
        (config(adapter={"kind": "full", "rank": 8}), "has no rank"),
        (config(adapter={"target_modules": "all-liner"}), "is not one of all-linear"),
        (config(checkpointing="unsloth", engine="transformers"), "needs engine: unsloth"),
        (stage(epochs=1, steps=5), "epochs and steps are both set"),
        (stage(warmup_ratio=0.1, warmup_steps=5), "both set"),
        (stage(best=True), "need validation"),
        (stage(resample={"field": "a"}, label_weights={"field": "a"}), "resample and label_weights"),
        (stage(label_weights={"field": "a", "weights": {"b": 0}}), "greater than 0"),
        (
            stage(label_weights={"field": "a", "weights": {False: 1}}),
            "reads one of the values as False; quote",
        ),
        (stage(resample={"field": "a", "weights": {1.5: 1}}), "reads one of the values as 1.5; quote it"),
        (stage(name="a/b"), "should match pattern"),
        (stage(optimizer="sgd", beta2=0.9), "beta2 belongs to adamw"),
        (stage(batch_tokens=9, group_by_length=False), "leave group_by_length out"),
        (stage(best=True, validation=["v"], save_steps=5), "needs eval_steps as well"),
        (stage(best=True, validation=["v"], save_steps=5, eval_steps=2), "a multiple of eval_steps 2"),
        (config(stages=[{"name": "a", "data": ["x"]}] * 2), "two stages are called 'a'"),
        (config(stages=[]), "at least 1"),
    ],
)
def test_a_contradiction_is_refused_and_named(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        bind(wrong, TrainConfig)


@pytest.mark.parametrize("key", ["resample", "label_weights"])
def test_weights_of_class_indexes_need_no_quotes(key: str) -> None:
    made = bind(stage(**{key: {"field": "label", "weights": {0: 2, "1": 1}}}), TrainConfig)
    assert getattr(made.stages[0], key).weights == {"0": 2.0, "1": 1.0}


def test_a_list_is_not_called_too_short_because_its_entry_is_wrong() -> None:
    with pytest.raises(ConfigError) as caught:
        bind(config(stages=[{"name": "a", "data": []}]), TrainConfig)
    assert str(caught.value).count("at least 1 item") == 1 and "stages.0.data" in str(caught.value)


def test_paths_are_beside_the_configuration_file_and_a_hub_name_stays(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    made = bind(config(model={"name": "base"}), TrainConfig).resolved(tmp_path)
    assert made.model.name == str(tmp_path / "base")
    assert made.stages[0].sources[0].path == str(tmp_path / "x.jsonl")
    assert bind(config(model={"name": "Qwen/Qwen3.5-0.8B"}), TrainConfig).resolved(tmp_path).model.name == (
        "Qwen/Qwen3.5-0.8B"
    )


def test_importing_dfktrain_and_its_configuration_loads_no_torch() -> None:
    code = (
        "import sys, dfktrain, dfktrain.config.run, dfktrain.cli.app\n"
        "print([m for m in ('torch', 'transformers', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ({"kind": "peft"}, "belong together"),
        ({"method": "peft.LoHaConfig"}, "belong together"),
        (
            {"kind": "peft", "method": "peft.LoHaConfig", "rank": 4},
            "takes its settings from options, not from rank",
        ),
        ({"options": {"r": 4}}, "options belong to kind: peft"),
        ({"loftq": True}, "needs kind: qlora"),
        ({"target_modules": {"visoin": False}}, "did you mean 'vision'"),
    ],
)
def test_an_adapter_key_that_its_kind_does_not_support_is_refused(adapter: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        bind(config(adapter=adapter), TrainConfig)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trackers": ["wandb"]}, "trackers: wandb needs wandb: pip install wandb"),
        ({"stages": [{"name": "a", "data": ["x"], "optimizer": "adamw_8bit"}]}, "needs bitsandbytes"),
        ({"checkpointing": "unsloth"}, "the engine here is transformers"),
    ],
)
def test_a_package_that_a_key_needs_is_named_before_anything_loads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    from dfktrain import train

    real = importlib.util.find_spec
    gone = ("wandb", "bitsandbytes")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else real(name))
    with pytest.raises(ConfigError, match=said):
        train(bind(config(model={"name": "nowhere"}, **changes), TrainConfig), tmp_path)
