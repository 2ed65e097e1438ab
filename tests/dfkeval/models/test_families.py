"""One entry holds what is known of a model family: a new one is used by every caller."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.errors import ConfigError
from dfkeval.models import adapters, families, tiny
from dfkeval.models.families import FAMILIES, ModelFamily
from dfkeval.models.processor import load_processor

NEW = ModelFamily(
    vision=("eyes",),
    linear_attention=("recurrence",),
    unserved=("recurrence",),
    unloaded=("draft",),
    layout=("trunk",),
    processor="tests.dfkeval.models.test_families:Processor",
    video_processor_class="FilmProcessor",
    packable=True,
)


class Processor:
    """A processor that notes what it was asked."""

    def __init__(self, source: str) -> None:
        self.source, self.video = source, ""

    @classmethod
    def from_pretrained(cls, source: str, *, trust_remote_code: bool) -> Processor:
        assert not trust_remote_code
        return cls(source)

    def add_video(self, source: str, kind: str) -> None:
        self.video = kind


@pytest.fixture()
def entry(monkeypatch: pytest.MonkeyPatch) -> ModelFamily:
    monkeypatch.setitem(FAMILIES, "new_vl", NEW)
    return NEW


def saved(folder: Path, *modules: str) -> Path:
    """An adapter on these layers."""
    numpy, safetensors = pytest.importorskip("numpy"), pytest.importorskip("safetensors.numpy")
    folder.mkdir()
    keys = {
        f"base_model.model.{name}.lora_{side}.weight": numpy.zeros((2, 2))
        for name in modules
        for side in "AB"
    }
    safetensors.save_file(keys, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    return folder


def test_variants_of_an_entry_are_of_its_family_and_others_have_the_usual_facts(entry: ModelFamily) -> None:
    assert families.family_of("new_vl") is families.family_of("new_vl_text") is entry
    assert families.family_of("qwen3_5_text") is FAMILIES["qwen3_5"] and FAMILIES["qwen3_5"].hybrid
    assert not families.family_of("llama").hybrid and families.family_of("qwen3_50") != FAMILIES["qwen3_5"]
    assert families.is_packable("new_vl") and not families.is_packable("new_vl_text")


def test_layers_are_recognised_by_the_names_of_the_new_entry(entry: ModelFamily) -> None:
    assert families.is_vision("trunk.eyes.blocks.0.qkv") and not families.is_unserved("trunk.layers.0.q_proj")
    assert families.is_linear_attention("trunk.layers.1.recurrence.in")
    assert adapters.plain_name("base_model.model.trunk.layers.0.q_proj") == "layers.0.q_proj"
    assert families.is_outside_layers("draft.fc", text_only=False)
    assert families.is_outside_layers("eyes.fc", text_only=True)
    assert not families.is_outside_layers("eyes.fc", text_only=False)


@pytest.mark.parametrize("layer", ["trunk.eyes.blocks.0.qkv", "trunk.layers.1.recurrence.in"])
def test_an_adapter_on_layers_that_servers_skip_is_refused(
    entry: ModelFamily, tmp_path: Path, layer: str
) -> None:
    adapters.check_served(saved(tmp_path / "served", "trunk.layers.0.q_proj"))
    with pytest.raises(ConfigError, match="merge first"):
        adapters.check_served(saved(tmp_path / "skipped", layer))


def test_the_entry_names_the_processor_class(entry: ModelFamily, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = shutil.copytree(tiny.path(), tmp_path / "model")
    settings: dict[str, Any] = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": "new_vl"}))
    processor = load_processor(folder)
    assert isinstance(processor, Processor) and processor.video == "FilmProcessor"
    assert type(load_processor("tiny")).__name__ == "ImageTextProcessor"


def test_one_reader_sorts_the_keys_of_an_adapter_by_their_meaning(tmp_path: Path) -> None:
    start = "base_model.model.model.language_model"
    layer = f"{start}.layers.0.q_proj"
    keys = [
        f"{layer}.lora_A.default.weight", f"{layer}.lora_B.default.weight", f"{layer}.lora_B.default.bias",
        f"{layer}.lora_magnitude_vector.default.weight", f"{start}.norm.modules_to_save.default.weight",
        f"{start}.embed_tokens.weight", f"{start}.embed_tokens.lora_embedding_A", "other",
    ]  # fmt: skip
    sorted_keys = adapters.AdapterKeys.read(tmp_path, keys, {"modules_to_save": ["norm"]})
    assert sorted_keys.parts == {
        "layers.0.q_proj": dict(
            zip(("lora_A.weight", "lora_B.weight", "lora_B.bias", "magnitude"), keys, strict=False)
        )
    }
    assert sorted_keys.names == {"layers.0.q_proj": "model.language_model.layers.0.q_proj"}
    assert sorted_keys.replaced == {"norm.weight": keys[4]} and sorted_keys.copies == {
        "embed_tokens.weight": keys[5]
    }
    assert list(sorted_keys.unexpected) == keys[6:]
    with pytest.raises(ConfigError, match="mean the same place"):
        adapters.AdapterKeys.read(tmp_path, [keys[0], f"base_model.model.{layer}.lora_A.weight"], {})
