"""Adapters as others save them: the layouts of PEFT and of Unsloth, and a scaffold instead of a card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dfkeval
from dfkdata.common.errors import ConfigError, DataError
from dfkeval.evaluation import preflight
from dfkeval.evaluation.rows import read_rows
from dfkeval.models import adapters, loader, metadata
from dfkeval.runs import config as configs
from tests.helpers.runs import (
    CAPTION,
    caption_gold,
    caption_text,
    config_of,
    gold_answers,
    write_answers,
    write_rows,
)

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

#: Chooses what Unsloth 2026.10.9 chooses in the built-in model: all linear layers but the merger's. It too
#: writes one pattern instead of a list of modules.
UNSLOTH_TARGETS = (
    r"(?:.*?(?:visual|language).*?(?:attn|mlp).*?\.(?:qkv|proj|linear_fc1|linear_fc2|out_proj"
    r"|in_proj_(?:qkv|z|b|a)|(?:gate|up|down|q|k|v|o)_proj))"
)


def saved(folder: Path, targets: str | list[str]) -> Path:
    """A trained-looking adapter of the tiny model, saved by PEFT."""
    torch.manual_seed(3)
    net = loader.load("tiny", dtype="float32", device="cpu").model
    adapted = peft.get_peft_model(net, peft.LoraConfig(r=2, lora_alpha=4, target_modules=targets))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0.0, 0.3)
    adapted.save_pretrained(folder)
    return folder


def by_peft(folder: Path) -> Path:
    found = saved(folder, ["q_proj", "v_proj", "in_proj_qkv", "down_proj"])
    config = json.loads((found / "adapter_config.json").read_text())
    assert "peft_version" in config and isinstance(config["target_modules"], list)  # written since 0.18
    return found


def by_unsloth(folder: Path) -> Path:
    """The layout of `model.save_pretrained` in Unsloth 2026.10.9, as seen on the built-in model: keys as
    PEFT's, in fp32; whole numbers where PEFT has fractions; facts of its own in `auto_mapping`."""
    found = saved(folder, UNSLOTH_TARGETS)
    path = found / "adapter_config.json"
    config = json.loads(path.read_text()) | {
        "auto_mapping": {
            "base_model_class": "Qwen3_5ForConditionalGeneration",
            "parent_library": "transformers.models.qwen3_5.modeling_qwen3_5",
            "unsloth_fixed": True,
        },
        "base_model_name_or_path": "unsloth/qwen3.5-0.8b-unsloth-bnb-4bit",
        "lora_alpha": 4,
        "lora_dropout": 0,
        "peft_version": "0.21.2",
        "target_modules": UNSLOTH_TARGETS,
        "task_type": "CAUSAL_LM",
        "a_setting_of_a_later_version": None,
    }
    path.write_text(json.dumps(config))
    keys = adapters.modules(found)
    assert len(keys) == 54 and not any("merger" in name for name in keys)
    assert {name.rpartition(".")[2] for name in keys if "linear_attn" in name} == {
        "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj"
    }  # fmt: skip
    return found


@pytest.mark.parametrize("layout", [by_peft, by_unsloth])
def test_both_layouts_load_by_shapes_whatever_their_base_is_called(
    tmp_path: Path, layout: Callable[[Path], Path]
) -> None:
    folder = layout(tmp_path / "adapter")
    whole = loader.load("tiny", adapter=folder, dtype="float32", device="cpu")
    names = adapters.modules(folder)
    assert any("visual" in name for name in names) is (layout is by_unsloth)
    assert len(names) == sum(
        1 for name, _ in whole.model.named_parameters() if name.endswith("lora_A.default.weight")
    )
    assert adapters.rank(folder) == 2
    outline = loader.outline("tiny", adapter=folder)
    assert outline.info["adapter_sha256"] == whole.info["adapter_sha256"]


@pytest.mark.parametrize("layout", [by_peft, by_unsloth])
def test_a_key_too_few_or_too_many_is_an_error_in_both_layouts(
    tmp_path: Path, layout: Callable[[Path], Path]
) -> None:
    from safetensors.torch import load_file, save_file

    folder = layout(tmp_path / "adapter")
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    last = max(tensors)
    save_file({key: each for key, each in tensors.items() if key != last}, path)
    with pytest.raises(ConfigError, match="1 places got no key"):
        loader.load("tiny", adapter=folder, dtype="float32", device="cpu")
    save_file(tensors | {"base_model.model.lm_head.lora_A.weight": torch.ones(2, 4)}, path)
    with pytest.raises(ConfigError, match="1 keys of the file have no place"):
        loader.load("tiny", adapter=folder, dtype="float32", device="cpu")


def test_what_is_no_adapter_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no adapter_config\.json there"):
        adapters.folder(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="pickled adapters are not loaded"):
        adapters.shapes(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ConfigError, match="is broken"):
        adapters.shapes(tmp_path)


def scaffold(path: Path, **changes: Any) -> Path:
    """A task_1 file as the caption adapters were trained with."""
    call = {"type": "function", "function": {"name": "emit_caption_schema", "arguments": caption_gold(0)}}
    row = {
        "messages": [
            {"role": "system", "content": CAPTION.prompt.system},
            {"role": "user", "content": caption_text(0)},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ],
        "tools": CAPTION.tools,
    } | changes
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return path


def test_a_scaffold_stands_for_the_card_of_an_adapter_without_one(tmp_path: Path) -> None:
    given = scaffold(tmp_path / "task_1.jsonl")
    data = write_rows(tmp_path / "test.jsonl", CAPTION, 2)
    answers = write_answers(tmp_path / "a.jsonl", gold_answers(CAPTION, 2))
    config = config_of(data, answers, ["validity"], scaffold=given)
    assert dfkeval.evaluate(config, tmp_path / "run").summary["outcomes"] == {"ok": 2}
    other = [{"role": "system", "content": "Be brief."}, *json.loads(given.read_text())["messages"][1:]]
    scaffold(given, messages=other)
    with pytest.raises(ConfigError, match="holds a run on other data"):
        dfkeval.evaluate(config, tmp_path / "run")
    with pytest.raises(DataError, match=r"task_1\.jsonl: was changed since"):
        dfkeval.score(tmp_path / "run")
    run = dfkeval.evaluate(config, tmp_path / "run2")
    assert [sample.prompt.startswith("[system]\nBe brief.") for sample in run.samples] == [True, True]
    assert caption_text(0) in run.samples[0].prompt and CAPTION.prompt.system not in run.samples[0].prompt
    given.unlink()
    assert dfkeval.score(tmp_path / "run2").summary == run.summary
    scaffold(given)
    (tmp_path / "task_1.jsonl").write_text('{"messages": []}\n')
    with pytest.raises(DataError):
        dfkeval.evaluate(config, tmp_path / "run3")


def test_a_scaffold_that_differs_from_the_card_beside_it_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    metadata.write(folder, metadata.ModelMetadata(schema="caption", system_prompt="Trained so."))
    data = write_rows(tmp_path / "test.jsonl", CAPTION, 1)
    fields = {
        "data": data, "schema": "caption", "scaffold": scaffold(tmp_path / "task_1.jsonl"),
        "backend": {"kind": "transformers", "model": "tiny", "adapter": folder},
    }  # fmt: skip
    config = configs.EvalConfig.model_validate(fields)
    with pytest.raises(ConfigError, match="system_prompt was 'Trained so"):
        dfkeval.evaluate(config, tmp_path / "run")
    metadata.write(
        folder,
        metadata.ModelMetadata(schema="caption", system_prompt=CAPTION.prompt.system, tools=CAPTION.tools),
    )
    preflight.check_metadata(config, CAPTION, read_rows(config)[0])
