"""A merge keeps every byte it does not change, is the sum that PEFT computes, and stays only where that is
proved."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.errors import ConfigError, DataError
from dfkeval.models import adapters, metadata
from dfktrain.cli import app
from dfktrain.merging import base_model, merge, verification
from dfktrain.merging.merge import merge_adapter
from dfktrain.weights import lora, safetensors_io
from tests.helpers.adapters import EXTRA, adapter, released, renamed, tensors_of


def formula(base: Path, folder: Path, name: str, scale: float) -> Any:
    """bf16(W + s B A) of one layer, written out."""
    import torch

    factors = tensors_of(folder)
    home = f"base_model.model.{name}"
    change = scale * factors[f"{home}.lora_B.weight"] @ factors[f"{home}.lora_A.weight"]
    return (tensors_of(base)[f"{name}.weight"].float() + change).to(torch.bfloat16)


@pytest.mark.parametrize("shards", [1, 3])
def test_what_the_adapter_leaves_alone_is_byte_identical_mtp_and_fp32_gates_included(
    base_folder: Path, plain: Path, probes: Path, tmp_path: Path, shards: int
) -> None:
    import torch

    base = released(base_folder, tmp_path / "base", shards=shards)
    report = merge_adapter(base, plain, tmp_path / "out", probes=probes)
    before, after = tensors_of(base), tensors_of(tmp_path / "out")
    assert list(before) == list(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(report.changed) and len(changed) == 41
    assert EXTRA in after and torch.equal(after[EXTRA], before[EXTRA])
    gates = [name for name in after if name.endswith("A_log")]
    assert gates and all(after[name].dtype == torch.float32 for name in gates)
    assert not any("lm_head" in name for name in after), "the tied head is no tensor of its own"
    for path in base.glob("*.safetensors"):
        old, new = (
            safetensors_io.open_tensors(path),
            safetensors_io.open_tensors(tmp_path / "out" / path.name),
        )
        assert path.read_bytes()[: old.data] == new.path.read_bytes()[: new.data]
    assert report.kept == len(before) - len(changed)


def test_a_merged_weight_is_the_base_plus_scale_times_b_a_rounded_once(
    base: Path, plain: Path, probes: Path, tmp_path: Path
) -> None:
    import torch

    merge_adapter(base, plain, tmp_path / "out", probes=probes)
    name = "model.language_model.layers.3.self_attn.q_proj"
    assert torch.equal(tensors_of(tmp_path / "out")[f"{name}.weight"], formula(base, plain, name, 2.0))


def test_the_proof_is_written_with_its_bounds_and_nothing_else_stays(
    base: Path, plain: Path, probes: Path, tmp_path: Path
) -> None:
    report = merge_adapter(base, plain, tmp_path / "made" / "out", probes=probes)
    written = json.loads((report.out / "merge-report.json").read_text(encoding="utf-8"))
    found = written["proof"]
    assert found["passed"] and found["probes"] == 1 and found["stored"] == "BF16+F32"
    assert found["bounds"]["reloaded"]["max_logit"] == 2 * found["floor"]["max_logit"]
    assert 0 < found["reloaded"]["max_logit"] < found["bounds"]["reloaded"]["max_logit"]
    assert found["in_memory"]["max_logit"] < 1e-3 < found["effect"]["max_logit"]
    assert found["effect"]["max_logit"] > 2 * found["floor"]["max_logit"], "the adapter does something"
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["out"]
    assert str(tmp_path) not in json.dumps(written), "no path of this machine"
    with pytest.raises(ConfigError, match=rf"this adapter is merged into it already.*{written['base']}"):
        merge_adapter(report.out, plain, tmp_path / "twice", probes=probes)


VARIANTS: dict[str, dict[str, Any]] = {
    "rslora and dora": {"use_rslora": True, "use_dora": True},
    "patterns": {
        "alpha_pattern": {"q_proj": 32, "mlp.gate_proj": 2},
        "rank_pattern": {"layers.3.mlp.up_proj": 2},
    },
    "patterns of rslora": {
        "use_rslora": True,
        "rank_pattern": {"down_proj": 7},
        "alpha_pattern": {"down_proj": 5},
    },
    "biases": {"bias": "all"},
    "biases of lora layers": {"bias": "lora_only", "modules": "visual"},
    "bias of B": {"lora_bias": True, "modules": "visual"},
    "a whole module": {"modules_to_save": ["merger.linear_fc1"], "modules": "language"},
    "vision only": {"modules": "visual"},
    "a tied embedding": {
        "modules_to_save": ["embed_tokens"],
        "ensure_weight_tying": True,
        "modules": "language",
    },
}


@pytest.mark.parametrize("kind", VARIANTS)
def test_every_kind_of_lora_is_merged_as_peft_computes_it(
    base: Path, probes: Path, tmp_path: Path, kind: str
) -> None:
    folder = adapter(base, tmp_path / "adapter", **VARIANTS[kind])
    report = merge_adapter(base, folder, tmp_path / "out", probes=probes)
    assert report.verification["passed"]
    assert report.verification["weights"]["changed"] == len(report.changed) > 0
    assert report.verification["in_memory"]["max_logit"] < 0.01 * report.verification["effect"]["max_logit"]


def old_class(name: str) -> str:
    return name.replace(".model.language_model.", ".language_model.model.").replace(
        ".model.visual.", ".visual."
    )


LAYOUTS: dict[str, Callable[[str], str]] = {
    "older class": old_class,
    "adapter name in the keys": lambda name: name.replace(".weight", ".default.weight"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_adapter_under_other_key_names_gives_the_same_model(
    base: Path, plain: Path, probes: Path, tmp_path: Path, layout: str
) -> None:
    import torch

    targets = json.loads((plain / "adapter_config.json").read_text(encoding="utf-8"))["target_modules"]
    spelled = [old_class(f".{name}")[1:] if layout == "older class" else name for name in targets]
    other = renamed(plain, tmp_path / "other", LAYOUTS[layout], target_modules=spelled)
    report = merge_adapter(base, other, tmp_path / "out", probes=probes)
    name = "model.visual.merger.linear_fc1"
    assert len(report.changed) == 41
    assert torch.equal(tensors_of(report.out)[f"{name}.weight"], formula(base, plain, name, 2.0))


def test_an_adapter_of_the_text_only_class_reaches_the_whole_model(
    base: Path, probes: Path, tmp_path: Path
) -> None:
    """Attached to the whole model as it is, it would find no place and change nothing."""
    folder = adapter(base, tmp_path / "adapter", text_class=True)
    keys = [entry.name for entry in safetensors_io.open_tensors(folder / adapters.WEIGHTS_FILE).entries]
    assert all(key.startswith("base_model.model.model.layers.") for key in keys)
    report = merge_adapter(base, folder, tmp_path / "out", probes=probes)
    assert all(name.startswith("model.language_model.layers.") for name in report.changed)
    assert report.verification["effect"]["max_logit"] > 0 and report.verification["passed"]


def broken(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        from safetensors.torch import save_file

        tensors = {key: tensor.clone() for key, tensor in tensors_of(folder).items()}
        tensors[name] = change(tensors[name])
        save_file(tensors, str(folder / adapters.WEIGHTS_FILE))

    return apply


FIRST = "base_model.model.model.language_model.layers.0.mlp.gate_proj.lora_B.weight"

Rename = Callable[[str], str | None]


def without(part: str) -> Rename:
    return lambda key: None if part in key else key


def instead(old: str, new: str) -> Rename:
    return lambda key: key.replace(old, new)


GATE = ".layers.0.mlp.gate_proj"
REFUSED: dict[str, tuple[dict[str, Any], Rename, str]] = {
    "another method": ({"peft_type": "LOHA"}, str, "its kind is LOHA; only LoRA"),
    "a start that changes the base": ({"init_lora_weights": "pissa"}, str, "started with pissa"),
    "LoftQ": ({"init_lora_weights": "loftq"}, str, "started with loftq"),
    "transposed": ({"fan_in_fan_out": True}, str, "fan_in_fan_out=True cannot be merged: its layers keep"),
    "activated LoRA": ({"alora_invocation_tokens": [1]}, str, "on for a part of the text only"),
    "unknown setting": ({"use_magic": True}, str, "use_magic=True cannot be merged: this version"),
    "B without A": ({}, without(f"{GATE}.lora_A"), "has no lora_A"),
    "a layer that is not there": ({}, instead("layers.0.mlp", "layers.9.mlp"), "find no place in"),
    "a layer without keys": ({}, without(GATE), "got no key"),
    "a key of another kind": ({}, instead("lora_B.weight", "lora_C.weight"), "cannot be merged"),
    "a whole tensor not announced": ({}, instead(FIRST, "base_model.model.x.weight"), "unexpected key"),
    "another rank": ({"r": 8}, str, "has rank 4, its configuration says 8"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_merged_is_refused_by_name_before_anything_is_written(
    base: Path, plain: Path, tmp_path: Path, kind: str
) -> None:
    settings, change, message = REFUSED[kind]
    folder = renamed(plain, tmp_path / "adapter", change, **settings)
    with pytest.raises(ConfigError, match=message):
        merge_adapter(base, folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_an_adapter_of_a_tied_embedding_is_refused(base: Path, tmp_path: Path) -> None:
    folder = adapter(base, tmp_path / "adapter", modules_to_save=["embed_tokens"], modules="language")
    with pytest.raises(ConfigError, match="changes embed_tokens, and this model's head is its embedding"):
        merge_adapter(base, folder, tmp_path / "out")


def test_an_adapter_that_was_never_trained_is_refused(base: Path, probes: Path, tmp_path: Path) -> None:
    folder = adapter(base, tmp_path / "adapter", size=0.0)
    with pytest.raises(ConfigError, match="it is untrained"):
        merge_adapter(base, folder, tmp_path / "out", probes=probes)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_nan_and_infinity_are_refused_and_leave_nothing(
    base: Path, plain: Path, probes: Path, tmp_path: Path, value: float
) -> None:
    folder = renamed(plain, tmp_path / "adapter", str)
    broken(FIRST, lambda tensor: tensor.fill_(value))(folder)
    with pytest.raises(DataError, match="NaN or infinity"):
        merge_adapter(base, folder, tmp_path / "out", probes=probes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "probes.jsonl"]


def test_nan_in_a_tensor_of_the_base_that_nothing_changes_is_refused(
    base: Path, plain: Path, probes: Path, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    bad = tmp_path / "bad"
    released(base, bad)
    tensors = tensors_of(bad)
    tensors["model.language_model.norm.weight"][3] = float("nan")
    save_file(tensors, str(bad / "model.safetensors"), {"format": "pt"})
    with pytest.raises(DataError, match=r"language_model\.norm\.weight holds NaN or infinity"):
        merge_adapter(bad, plain, tmp_path / "out", probes=probes)


def test_a_sum_that_is_not_pefts_is_refused(
    base: Path, plain: Path, probes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = lora.change
    monkeypatch.setattr(lora, "change", lambda found, factors: 1.05 * right(found, factors))
    with pytest.raises(DataError, match="is not base plus adapter as PEFT sums them"):
        merge_adapter(base, plain, tmp_path / "out", probes=probes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["probes.jsonl"]


def test_a_changed_byte_outside_the_adapter_is_refused(
    base: Path, plain: Path, probes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = merge.write_weights

    def careless(files: Any, part: Path, changes: Any) -> None:
        right(files, part, changes | {EXTRA: lambda old: old * 2})

    monkeypatch.setattr(merge, "write_weights", careless)
    with pytest.raises(DataError, match=r"mtp.* differs from the base's, though nothing changes it"):
        merge_adapter(base, plain, tmp_path / "out", probes=probes)


def test_the_noise_floor_alone_finds_a_layer_that_was_left_out(
    base: Path, plain: Path, probes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the comparison of weights switched off, logits, KL and greedy tokens must speak."""
    right = lora.merged

    def forgetful(found: Any, factors: lora.Factors, weight: Any) -> Any:
        return weight if "layers.1.mlp" in factors.module else right(found, factors, weight)

    monkeypatch.setattr(lora, "merged", forgetful)
    monkeypatch.setattr(verification, "compare_weights", lambda *parts: {"changed": 0, "kept": 0})
    with pytest.raises(
        DataError, match=r"merged and reloaded: logits differ by .*; merged and reloaded: KL is"
    ):
        merge_adapter(base, plain, tmp_path / "out", probes=probes)
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_rounding_would_swallow_is_refused(base: Path, probes: Path, tmp_path: Path) -> None:
    folder = adapter(base, tmp_path / "adapter", size=3e-4)
    with pytest.raises(DataError, match="rounding to the stored type takes away"):
        merge_adapter(base, folder, tmp_path / "out", probes=probes)


def test_a_merge_that_is_interrupted_leaves_nothing(
    base: Path, plain: Path, probes: Path, tmp_path: Path
) -> None:
    def stop(line: str) -> None:
        if "reloaded" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_adapter(base, plain, tmp_path / "out", probes=probes, say=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["probes.jsonl"]


def test_a_base_that_is_nowhere_is_said_plainly(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        merge_adapter("nowhere/", plain, tmp_path / "out")


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(
    base: Path, plain: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="device 'cudaa' cannot be used here"):
        merge_adapter(base, plain, tmp_path / "out", device="cudaa")
    assert not any(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_not_overwritten(base: Path, plain: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="exists and is not empty"):
        merge_adapter(base, plain, tmp_path / "out")


@pytest.fixture
def unproved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proof that is not asked, for tests of what happens beside it."""
    near = verification.Distance(0.0, 0.0, 0.0, 1.0, 0.0)
    passed = verification.Verification(
        1, 1, "BF16", "cpu", near, near, near, near, near, 0.0, {"changed": 41, "kept": 1}, ()
    )
    monkeypatch.setattr(verification, "verify_merge", lambda *parts, **more: passed)


@pytest.mark.parametrize("name", ["unsloth/Qwen3.5-0.8B-unsloth-bnb-4bit", "unsloth/Qwen3.5-0.8B-bnb-4bit"])
def test_an_adapter_of_a_4_bit_base_names_the_16_bit_one(
    base: Path,
    plain: Path,
    probes: Path,
    tmp_path: Path,
    name: str,
    unproved: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = renamed(plain, tmp_path / "adapter", str, base_model_name_or_path=name)
    report = merge_adapter(base, folder, tmp_path / "out", probes=probes)
    assert any(f"trained on {name}, a 4-bit model" in note for note in report.notes)
    asked: list[str] = []
    monkeypatch.setattr(base_model, "_local_folder", lambda found: asked.append(str(found)) or base)
    merge_adapter(None, folder, tmp_path / "out2", probes=probes)
    assert asked == ["unsloth/Qwen3.5-0.8B"]


def test_an_adapter_of_ours_that_was_trained_in_4_bit_says_so_and_loftq_is_refused(
    base: Path, plain: Path, probes: Path, tmp_path: Path, unproved: None
) -> None:
    folder = renamed(plain, tmp_path / "adapter", str, base_model_name_or_path="a/b")
    metadata.write(folder, metadata.ModelMetadata(quantized="nf4"))
    report = merge_adapter(base, folder, tmp_path / "out", probes=probes)
    assert any("trained on a/b, in 4 bit" in note for note in report.notes)
    metadata.write(folder, metadata.ModelMetadata(quantized="nf4+loftq"))
    with pytest.raises(ConfigError, match="LoftQ started it as the error of the 4-bit base"):
        merge_adapter(base, folder, tmp_path / "out2", probes=probes)


def test_a_quantised_base_is_refused_and_the_16_bit_one_named(
    base: Path, plain: Path, tmp_path: Path
) -> None:
    folder = renamed(plain, tmp_path / "adapter", str, base_model_name_or_path="a/b-bnb-4bit")
    small = released(base, tmp_path / "small")
    config = json.loads((small / "config.json").read_text(encoding="utf-8"))
    plan = {"quantization_config": {"load_in_4bit": True}}
    (small / "config.json").write_text(json.dumps(config | plan), encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"its weights are quantised.* merge into the 16-bit model: --base a/b"
    ):
        merge_adapter(small, folder, tmp_path / "out")


def test_a_template_that_is_not_the_trainings_is_refused_and_can_be_given(
    base: Path, plain: Path, probes: Path, tmp_path: Path, unproved: None
) -> None:
    folder = renamed(plain, tmp_path / "adapter", str)
    template = (base / "chat_template.jinja").read_text(encoding="utf-8") + "{# ours #}"
    metadata.write(folder, metadata.ModelMetadata(template_sha256=metadata.text_sha256(template)))
    with pytest.raises(ConfigError, match="was trained with another chat template"):
        merge_adapter(base, folder, tmp_path / "out", probes=probes)
    (tmp_path / "ours.jinja").write_text(template, encoding="utf-8")
    report = merge_adapter(
        base, folder, tmp_path / "out", probes=probes, chat_template=tmp_path / "ours.jinja"
    )
    assert (report.out / "chat_template.jinja").read_text(encoding="utf-8") == template
    assert metadata.read(report.out) == metadata.read(folder)
    assert report.notes == ("the chat template is that of ours.jinja, not the base's",)


@pytest.mark.parametrize("fault", ["cut", "shard", "index", "overlap"])
def test_a_base_that_is_not_whole_is_refused(
    base_folder: Path, plain: Path, tmp_path: Path, fault: str
) -> None:
    broken_base = released(base_folder, tmp_path / "base", shards=2)
    first = min(broken_base.glob("*.safetensors"))
    if fault == "cut":
        first.write_bytes(first.read_bytes()[:-10])
    elif fault == "shard":
        first.unlink()
    elif fault == "index":
        (broken_base / safetensors_io.INDEX).write_text('{"weight_map": {"a": "../x.safetensors"}}')
    else:
        first.write_bytes(first.read_bytes().replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1))
    with pytest.raises(DataError, match=r"copy it again|cannot be read|outside|not where the header says"):
        merge_adapter(broken_base, plain, tmp_path / "out")


ALONE = """
import json, sys
stand_in, *folders = sys.argv[1:]
if stand_in:
    sys.path.insert(0, stand_in)
import transformers
for folder in folders:
    net = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    budget = [dict(processor.image_processor.size), dict(processor.video_processor.size)]
    kinds = [type(part).__name__ for part in (net, processor, processor.tokenizer, processor.video_processor)]
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}]}]
    print(json.dumps([kinds, budget, processor.apply_chat_template(asked, tokenize=False)]))
assert not any(name.startswith(("dfk", "peft")) for name in sys.modules)
"""


def torchvision_stand_in(folder: Path) -> Path:
    """What transformers imports from torchvision while it loads processors; it can load them, not
    transform."""
    for name in ("torchvision/transforms/v2", "torchvision-0.28.0.dist-info"):
        (folder / name).mkdir(parents=True)
    modes = "NEAREST NEAREST_EXACT BILINEAR BICUBIC BOX HAMMING LANCZOS"
    files = {
        "torchvision/__init__.py": "",
        "torchvision/io.py": "ImageReadMode = decode_image = None",
        "torchvision/transforms/__init__.py": f"import enum\nInterpolationMode = enum.Enum('I', '{modes}')",
        "torchvision/transforms/functional.py": "pil_to_tensor = None",
        "torchvision/transforms/v2/__init__.py": "",
        "torchvision/transforms/v2/functional.py": "",
        "torchvision-0.28.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0",
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_the_folder_loads_with_transformers_alone(
    base: Path, plain: Path, tmp_path: Path, unproved: None
) -> None:
    """AutoModelForImageTextToText and AutoProcessor, in a process that imports nothing of ours. transformers'
    video processor needs torchvision; where that is missing a stand-in takes its place, which is enough for
    loading. The second base keeps its image settings in the older file."""
    older = released(base, tmp_path / "older")
    images = json.loads((older / "processor_config.json").read_text(encoding="utf-8"))["image_processor"]
    (older / "processor_config.json").unlink()
    text = json.dumps(images | {"processor_class": "Qwen3VLProcessor"})
    (older / "preprocessor_config.json").write_text(text, encoding="utf-8")
    outs = [merge_adapter(source, plain, tmp_path / f"{source.name}-out").out for source in (base, older)]
    there = importlib.util.find_spec("torchvision") is not None
    line = ["" if there else str(torchvision_stand_in(tmp_path / "stand-in")), *map(str, outs)]
    found = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, *line], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert found.returncode == 0, found.stderr
    for kinds, budget, text in map(json.loads, found.stdout.splitlines()[-2:]):
        assert kinds[:2] == ["Qwen3_5ForConditionalGeneration", "Qwen3VLProcessor"]
        assert kinds[2:] == ["Qwen3_5Tokenizer", "Qwen3VLVideoProcessor"]
        assert budget == [images["size"]] * 2 and "<|image_pad|>" in text


def test_the_command_merges_and_prints_the_proof(
    base: Path, plain: Path, probes: Path, tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    line = [
        "merge",
        "--base",
        str(base),
        "--adapter",
        str(plain),
        "--out",
        str(tmp_path / "out"),
        "--probes",
        str(probes),
    ]
    found = CliRunner().invoke(app.app, line, catch_exceptions=False)
    assert found.exit_code == 0
    assert "41 tensors changed" in found.stdout and "noise floor (bf16, unmerged)" in found.stdout
    assert (tmp_path / "out" / "merge-report.json").is_file()


def test_the_command_says_what_belongs_together(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    for line, message in (
        (["--adapter", "a", "--weights", "1,2"], "belong to --slerp"),
        ([], "give --adapter FOLDER"),
        (["--slerp", "a", "--adapter", "b"], "--slerp writes an adapter"),
    ):
        with pytest.raises(ConfigError, match=message):
            CliRunner().invoke(
                app.app, ["merge", "--out", str(tmp_path / "o"), *line], catch_exceptions=False
            )


def test_an_adapter_of_another_base_is_noticed(
    base: Path, plain: Path, probes: Path, tmp_path: Path, unproved: None
) -> None:
    folder = renamed(plain, tmp_path / "adapter", str, base_model_name_or_path="some/Other-0.8B")
    report = merge_adapter(base, folder, tmp_path / "out", probes=probes)
    assert report.notes == (f"the adapter names Other-0.8B as its base, it is merged into {base.name}",)
    metadata.write(folder, metadata.ModelMetadata(base=metadata.BaseRecord(name=base.name)))
    assert merge_adapter(base, folder, tmp_path / "known", probes=probes).notes == ()
    metadata.write(folder, metadata.ModelMetadata(base=metadata.BaseRecord(name="x", shapes_sha256="0" * 64)))
    with pytest.raises(ConfigError, match="was trained on a model of other shapes"):
        merge_adapter(base, folder, tmp_path / "out2", probes=probes)


def test_a_language_model_is_merged_and_proved_its_own_head_included(processor: Any, tmp_path: Path) -> None:
    import peft
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    small = LlamaConfig(
        vocab_size=len(processor.tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    net = LlamaForCausalLM(small)
    net.save_pretrained(tmp_path / "base")
    processor.tokenizer.save_pretrained(tmp_path / "base")
    names = [name for name, module in net.named_modules() if isinstance(module, torch.nn.Linear)]
    model = peft.get_peft_model(net, peft.LoraConfig(r=2, target_modules=names))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(tmp_path / "adapter")
    report = merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    assert (
        "lm_head.weight" in report.changed
        and report.verification["passed"]
        and report.verification["probes"] == 4
    )


def test_the_built_in_model_is_merged_under_the_name_in_dfk_json_and_used_like_any_other(
    tmp_path: Path,
) -> None:
    from dfkeval.models import loader, tiny

    folder = adapter(tiny.path(), tmp_path / "adapter", modules="layers.5")
    shapes = loader.load("tiny", adapter=folder, device="cpu").info["shapes_sha256"]
    metadata.write(
        folder,
        metadata.ModelMetadata(schema="caption", base=metadata.BaseRecord(name="tiny", shapes_sha256=shapes)),
    )
    report = merge_adapter(None, folder, tmp_path / "out")
    assert report.base == "tiny" and report.notes == () and report.verification["probes"] == 5
    loaded = loader.load(report.out, device="cpu")
    assert loaded.metadata is not None and loaded.metadata.schema == "caption"
    assert loaded.info["shapes_sha256"] == shapes and not (report.out / "README.md").exists()
