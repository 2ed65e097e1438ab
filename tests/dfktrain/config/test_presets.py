"""The presets: they bind, hold the numbers of their sources, stand in the manual, and run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from dfkdata.common.config import load_config, read_mapping
from dfkdata.common.errors import ConfigError
from dfkeval.runs import config as evaluations
from dfkeval.runs import presets
from dfktrain.cli import app
from dfktrain.config import overrides
from dfktrain.config import presets as training_presets
from dfktrain.config.run import TrainConfig
from dfktrain.engines import target_modules
from tests.helpers.commands import called
from tests.helpers.models import text_row, write_rows
from tests.helpers.places import ROOT

#: The presets that repeat a published system; `starter` repeats none.
PUBLISHED = [name for name in training_presets.names() if name != "starter"]
PRESETS = [name for name in PUBLISHED if "dfktrain rft" not in training_presets.find(name).read_text()]

#: What each source gives, typed in from it and from nothing else: preset -> place -> value.
SOURCES: dict[str, dict[str, Any]] = {
    "sita_qwen35": {
        "adapter.rank": 16, "adapter.alpha": 16, "adapter.dropout": 0, "adapter.target_modules": "all-linear",
        "stages.0.epochs": 5, "stages.0.batch_size": 32, "stages.0.accumulation": 1,
        "stages.0.learning_rate": 2e-4, "stages.0.max_length": 2048, "stages.0.optimizer": "adamw_8bit",
        "precision": "fp32", "seed": 3407, "model.name": "unsloth/Qwen3.5-0.8B", "stages.0.warmup_steps": 3,
        "stages.0.scheduler": "linear", "stages.0.weight_decay": 0,
    },
    "siliconflow_sft": {"adapter.kind": "lora", "stages.0.accumulation": 1},
    "siliconflow_sft_plus": {"adapter.kind": "lora", "stages.0.accumulation": 1},
    "text_only_vlm": {
        "stages.0.batch_size": 2, "stages.0.accumulation": 4, "stages.0.warmup_steps": 5,
        "stages.0.epochs": 1, "stages.0.learning_rate": 2e-5, "stages.0.optimizer": "adamw_8bit",
        "stages.0.weight_decay": 0.01,
        "stages.0.scheduler": "linear", "stages.0.save_steps": 500, "stages.0.save_total_limit": 1,
        "stages.0.log_steps": 1, "stages.0.max_length": 2048, "seed": 3407, "adapter.kind": "qlora",
        "model.name": "Qwen/Qwen3-VL-2B-Instruct", "adapter.target_modules": "language",
        "adapter.rank": 256, "adapter.alpha": 256, "adapter.dropout": 0,
    },
    "json_captioner_v1": {"stages.0.learning_rate": 2e-4, "model.name": "Qwen/Qwen3.5-0.8B"},
    "json_captioner_v2": {
        "adapter.rank": 32, "adapter.alpha": 64, "adapter.dropout": 0.05, "adapter.bias": "none",
        "adapter.rslora": False, "adapter.dora": False, "stages.0.epochs": 1, "stages.1.epochs": 2,
        "stages.0.learning_rate": 1e-4, "stages.1.learning_rate": 1e-4, "stages.0.scheduler": "cosine",
        "stages.1.scheduler": "cosine", "stages.0.warmup_ratio": 0.03, "stages.1.warmup_ratio": 0.03,
        "stages.0.batch_size": 16, "stages.1.batch_size": 16, "stages.0.accumulation": 1,
        "stages.1.accumulation": 1, "stages.0.max_length": 2048, "stages.1.max_length": 2048,
        "precision": "bf16", "seed": 42,
    },
    "radiology_vqa": {
        "adapter.kind": "qlora", "adapter.rank": 16, "adapter.alpha": 16, "adapter.dropout": 0,
        "adapter.bias": "none", "adapter.rslora": False, "stages.0.batch_size": 4, "stages.0.accumulation": 8,
        "stages.0.warmup_steps": 5, "stages.0.epochs": 2, "stages.0.learning_rate": 2e-4,
        "stages.0.log_steps": 100, "stages.0.save_steps": 100, "stages.0.save_total_limit": 1,
        "stages.0.optimizer": "adamw_8bit", "stages.0.weight_decay": 0.01, "stages.0.scheduler": "linear",
        "stages.0.max_length": 2048, "seed": 3407, "evaluate.before": True,
    },
}  # fmt: skip


def at(tree: Any, place: str) -> Any:
    """The value at a dotted place of plain values."""
    for step in place.split("."):
        tree = tree[int(step)] if isinstance(tree, list) else tree[step]
    return tree


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_binds_and_holds_the_numbers_of_its_source(name: str) -> None:
    bound = load_config(training_presets.find(name), TrainConfig).model_dump(mode="json")
    found = {place: at(bound, place) for place in SOURCES[name]}
    assert found == SOURCES[name]


def test_every_stage_of_a_curriculum_goes_on_with_the_same_adapter() -> None:
    first, second = (
        load_config(training_presets.find(f"json_captioner_{version}"), TrainConfig)
        for version in ("v1", "v2")
    )
    same = ("rank", "alpha", "target_modules", "kind", "bias", "rslora", "dora")
    assert [getattr(first.adapter, key) for key in same] == [getattr(second.adapter, key) for key in same]
    assert second.adapter.warm_start == "runs/json_captioner_v1/adapter"
    assert [stage.name for stage in second.stages] == ["bulk", "gold"]


@pytest.mark.parametrize("name", PRESETS)
def test_the_evaluation_that_a_preset_ends_with_binds(name: str) -> None:
    wanted = load_config(training_presets.find(name), TrainConfig).evaluate
    if wanted is not None:
        assert evaluations.read(presets.FOLDER / f"{wanted.config}.yaml").metrics


def sections() -> dict[str, str]:
    text = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (\S+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def documented(name: str) -> dict[str, Any]:
    """Place -> value, of the manual's table."""
    rows = [
        re.findall(r"(?<=\|)[^|]*(?=\|)", line) for line in sections()[name].splitlines() if "| `" in line
    ]
    return {row[2].strip().strip("`"): yaml.safe_load(row[3]) for row in rows}


def written_leaves(value: Any, place: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        pairs = [(f"{place}.{key}" if place else str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        pairs = [(f"{place}.{index}", inner) for index, inner in enumerate(value)]
    else:
        return {place: value}
    return {spot: leaf for inner, each in pairs for spot, leaf in written_leaves(each, inner).items()}


@pytest.mark.parametrize("name", PRESETS)
def test_the_manual_shows_every_setting_of_a_preset_with_its_value(name: str) -> None:
    own = ("name", "data")  # of a stage: which file it is, not how it is trained on
    written = {
        place: value
        for place, value in written_leaves(read_mapping(training_presets.find(name))).items()
        if not re.fullmatch(rf"stages\.\d+\.({'|'.join(own)})", place)
    }
    shown = {place: float(value) if _is_number(value) else value for place, value in documented(name).items()}
    assert {place: shown.get(place) for place in written} == written
    bound = load_config(training_presets.find(name), TrainConfig).model_dump(mode="json")
    assert {place: at(bound, place) for place in shown} == shown


def _is_number(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\d+e-\d+", value) is not None


def test_every_published_preset_stands_in_the_manual_and_names_its_place_there() -> None:
    for name in PUBLISHED:
        assert name in sections()
        assert f"docs/recipes.md#{name}" in training_presets.find(name).read_text(encoding="utf-8")


def test_the_checkout_shows_every_preset_under_configs() -> None:
    for path in training_presets.FOLDER.rglob("*.yaml"):
        shown = ROOT / "configs" / path.relative_to(training_presets.FOLDER)
        assert shown.is_file() and shown.resolve() == path.resolve(), (
            f"ln -s ../dfktrain/config/presets/{path.name} configs/{path.name}"
        )


def real_shape() -> Any:
    """The 0.8B network without weights."""
    from transformers import AutoModelForImageTextToText, Qwen3_5Config

    text = {
        "vocab_size": 248320, "hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 24,
        "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 6, "num_attention_heads": 8,
        "num_key_value_heads": 2, "head_dim": 256, "linear_num_key_heads": 16, "linear_num_value_heads": 16,
        "linear_key_head_dim": 128, "linear_value_head_dim": 128, "tie_word_embeddings": True,
    }  # fmt: skip
    vision = {
        "depth": 12, "hidden_size": 768, "num_heads": 12, "intermediate_size": 3072, "out_hidden_size": 1024,
        "patch_size": 16, "num_position_embeddings": 2304,
    }  # fmt: skip
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(
            Qwen3_5Config(text_config=text, vision_config=vision, tie_word_embeddings=True)
        )


def test_the_captioners_seven_names_are_96_modules_of_the_real_shape() -> None:
    network = real_shape()
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(853.0e6, rel=1e-3)
    spec = load_config(training_presets.find("json_captioner_v2"), TrainConfig).adapter.target_modules
    found = target_modules(network, spec)
    assert len(found) == 96
    assert not [name for name in found if "visual" in name]
    assert len(target_modules(network, "all-linear")) == 236


# ------------------------------------------------------------------------------------------------ they run


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that presets name."""

    def rows(split: str) -> list[dict[str, Any]]:
        return [text_row(f"{split}{at}", f"what is {at}", f"it is {at}") for at in range(4)]

    for folder in ("data", "data/gold", "data/bulk"):
        (tmp_path / folder).mkdir()
        for split in ("train", "validation", "test"):
            write_rows(tmp_path / folder / f"{split}.jsonl", rows(split))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("names", [[n] for n in PRESETS if "captioner" not in n] + [
    ["json_captioner_v1", "json_captioner_v2"]
])  # fmt: skip
def test_a_preset_runs_two_steps_on_the_tiny_model_and_says_what_that_changed(
    monkeypatch: Any, capsys: Any, project: Path, names: list[str]
) -> None:
    for name in names:
        assert called(monkeypatch, capsys, "init", name)[0] == 0
        file, out = f"{name}.yaml", project / "runs" / name
        code, _, err = called(monkeypatch, capsys, "run", file, "--out", out, "--override", "tiny")
        assert code == 0, err
        run = json.loads((out / "run.json").read_text())
        assert [stage["steps"] for stage in run["stages"]] == [2] * len(run["stages"])
        before = load_config(training_presets.find(name), TrainConfig).model_dump(mode="json")
        said = [line.removeprefix("override: ") for line in err.splitlines() if line.startswith("override: ")]
        assert f"model.name: {before['model']['name']} -> tiny" in said
        assert f"stages.0.epochs: {before['stages'][0]['epochs']} -> None" in said
        kept = ("adapter.rank", "adapter.alpha", "stages.0.learning_rate", "stages.0.scheduler", "seed")
        assert not [line for line in said for place in kept if line.startswith(place + ":")]
        assert {place: at(run["config"], place) for place in kept} == {p: at(before, p) for p in kept}
    if len(names) == 2:
        assert run["config"]["adapter"]["warm_start"].endswith("runs/json_captioner_v1/adapter")


@pytest.mark.parametrize("name", training_presets.names())
def test_the_commands_at_the_head_of_a_preset_name_the_new_file(name: str, project: Path) -> None:
    text = training_presets.write(name, project / "own.yaml")
    command = "rft" if name == "sita_rft" else "run"
    assert f"dfktrain {command} own.yaml --out" in training_presets.header(text)
    assert f" {name}.yaml --out" not in text


def test_init_writes_the_file_as_it_is_and_overwrites_nothing(
    monkeypatch: Any, capsys: Any, project: Path
) -> None:
    code, out, _ = called(monkeypatch, capsys, "init", "sita_qwen35", "--out", "sub/mine.yaml")
    assert code == 0 and out.startswith("sub/mine.yaml\n") and "dfkdata convert images_v2.csv" in out
    written, shipped = (
        (project / "sub/mine.yaml").read_text(),
        training_presets.find("sita_qwen35").read_text(),
    )
    assert written == shipped.replace(" sita_qwen35.yaml", " mine.yaml")
    code, _, err = called(monkeypatch, capsys, "init", "sita_qwen35", "--out", "sub/mine.yaml")
    assert code == 2 and "exists already" in err


def test_init_names_the_presets_and_the_nearest_one(monkeypatch: Any, capsys: Any) -> None:
    _, out, _ = called(monkeypatch, capsys, "init")
    assert [line.split()[0] for line in out.splitlines()[1:]][
        : len(training_presets.names())
    ] == training_presets.names()
    code, _, err = called(monkeypatch, capsys, "init", "json_captioner_v3")
    assert code == 2 and "did you mean 'json_captioner_v" in err


@pytest.mark.parametrize("command", ["init", "sweep"])
def test_help_ends_with_two_examples(command: str) -> None:
    said = CliRunner().invoke(app.app, [command, "--help"]).output
    assert said.split("Examples:")[1].count(f"dfktrain {command}") == 2


# ------------------------------------------------------------------------------------------------ overrides


def test_an_override_reaches_every_stage_and_set_comes_last(tmp_path: Path) -> None:
    config, file = tmp_path / "train.yaml", tmp_path / "less.yaml"
    config.write_text("model: {name: tiny}\nstages: [{name: a, data: [x]}, {name: b, data: [y], steps: 9}]\n")
    file.write_text("stages.*.steps: 3\nadapter.target_modules: [q_proj, v_proj]\n")
    settings, said = overrides.load(config, [str(file)], ["stages.1.steps=4"])
    assert [stage.steps for stage in settings.stages] == [3, 4]
    assert settings.adapter.target_modules == ("q_proj", "v_proj")
    assert said == [
        'adapter.target_modules: all-linear -> ["q_proj", "v_proj"]',
        "stages.0.steps: None -> 3",
        "stages.1.steps: 9 -> 4",
    ]


def test_an_override_that_changes_nothing_says_nothing(tmp_path: Path) -> None:
    config, file = tmp_path / "train.yaml", tmp_path / "same.yaml"
    config.write_text("model: {name: tiny}\nstages: [{name: a, data: [x], steps: 3}]\n")
    file.write_text("stages.*.steps: 3\nseed: 42\n")
    assert overrides.load(config, [str(file)])[1] == []


def test_a_misspelt_override_is_refused_with_the_nearest_key(tmp_path: Path) -> None:
    config, file = tmp_path / "train.yaml", tmp_path / "less.yaml"
    config.write_text("model: {name: tiny}\nstages: [{name: a, data: [x]}]\n")
    file.write_text("stages.*.step: 3\n")
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        overrides.load(config, [str(file)])
    with pytest.raises(ConfigError, match="known: tiny"):
        overrides.load(config, ["tinny"])
