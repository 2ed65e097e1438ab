"""The card of a run, what is sent to the Hub, and going on from an adapter that lies there."""

from __future__ import annotations

import ast
import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from dfkdata.common.errors import BackendError, ConfigError
from dfkeval.models import metadata
from dfktrain import TrainConfig, hub, train
from dfktrain.config.sections import ModelCard
from dfktrain.reports import card_usage, model_card
from tests.fakes.fake_hub import TOKEN, Hub
from tests.helpers.commands import called
from tests.helpers.lines import joined
from tests.helpers.models import text_row, write_rows


def configured(data: Path, **more: Any) -> TrainConfig:
    """Two steps on the built-in model."""
    stage = {
        "name": "s",
        "data": [str(data)],
        "steps": 2,
        "batch_size": 4,
        "learning_rate": 5e-3,
        "max_length": 64,
    }
    made: dict[str, Any] = {"model": {"name": "tiny"}, "adapter": {"rank": 4, "alpha": 8}, "stages": [stage]}
    return TrainConfig.model_validate(made | more)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six rows with a system prompt that tries to break out of its code block."""
    meta = {"schema": "answer", "variant": "text", "gold": {"answer": "yes"}}
    rows = [text_row(f"r{at}", f"{at}?", "yes", meta={"group": str(at), **meta}) for at in range(6)]
    for row in rows:
        row["messages"].insert(0, {"role": "system", "content": "Be | brief.\n```\n# not a title"})
    return write_rows(tmp_path_factory.mktemp("rows") / "train.jsonl", rows)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A finished run with a card section, files that must stay at home, and a picture of its loss."""
    out = tmp_path_factory.mktemp("runs") / "first"
    said = {"license": "apache-2.0", "language": ["id"], "uses": "Triage.", "base_model": "org/base"}
    train(configured(data, card=said | {"datasets": ["org/posts"], "tags": ["dfk-label"]}), out)
    (out / "adapter" / "optimizer.pt").write_bytes(b"state")
    (out / "adapter" / "notes.txt").write_text("private")
    (out / "stages/s/curves.png").write_bytes(b"\x89PNG")
    return out


# ------------------------------------------------------------------------------------------------- card


def test_the_card_is_filled_from_the_run(run: Path, data: Path) -> None:
    text = (run / "adapter/README.md").read_text()
    _, head, body = text.split("---\n", 2)
    header = yaml.safe_load(head)
    assert header == {
        "base_model": "org/base",
        "base_model_relation": "adapter",
        "license": "apache-2.0",
        "language": ["id"],
        "datasets": ["org/posts"],
        "pipeline_tag": "image-text-to-text",
        "library_name": "peft",
        "tags": ["dfk", "lora", "dfk-label"],
    }
    report = json.loads((run / "run.json").read_text())
    sha256 = next(iter(report["stages"][0]["data_sha256"].values()))
    for line in (
        "| rank | 4 |",
        "| learning_rate | 0.005 |",
        "| steps done | 2 |",
        "| seed | 42 |",
        f"| s | train.jsonl | `{sha256}` | 6 | none left out |",
        f"| torch | {report['versions']['torch']} |",
        "### Intended uses\n\nTriage.",
        "### Out of scope\n\nUnknown",
        "## Evaluation\n\nUnknown",
        "| developed by | unknown |",
        "Schema `answer`, form `text`.",
        "````text\n<|im_start|>system\nBe | brief.\n```\n# not a title<|im_end|>\n"
        "<|im_start|>user\n{question}<|im_end|>\n",
    ):
        assert line in body, line
    assert str(data.parent) not in text and str(run.parent) not in text and str(Path.home()) + "/" not in text


def test_the_scores_of_the_run_stand_in_its_card(run: Path) -> None:
    report = json.loads((run / "run.json").read_text())
    metric = {"value": 0.25, "low": 0.1, "high": 0.5, "n": 9}
    scores = {
        "base": {"n": 9, "metrics": {"a.x": metric}},
        "tuned": {"n": 9, "metrics": {"a.x": metric | {"value": 1.0}, "a.y": metric | {"value": None}}},
    }
    made = model_card.text("r", report, None, scores)
    assert "| metric | base | tuned |" in made
    assert "| a.x | 0.250 [0.100, 0.500] | 1.000 [0.100, 0.500] |" in made
    assert "| a.y | undefined | undefined |" in made and "9 rows" in made


def test_a_card_begins_with_five_metrics_and_how_to_ask_and_folds_the_rest(run: Path) -> None:
    report = json.loads((run / "run.json").read_text())
    report["config"]["card"] = {}  # nothing was written down
    metric = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    names = ["a.x", "labels.macro_f1", "a.y", "validity.schema_valid", "rouge.f1", "labels.accuracy", "a.z"]
    values = dict.fromkeys(names, metric) | {"fields.f1": metric | {"value": None}}
    scores = {name: {"n": 9, "metrics": values} for name in ("base", "tuned")}
    known = metadata.ModelMetadata(schema="dfk_label")
    for tuned, whole in product((scores, {}), (False, True)):
        made = model_card.text("r", report, known, tuned, merged=whole)
        first, *folds = made.split("<details>")
        assert "unknown" not in first.lower() and made.count("</details>") == len(folds) >= 8
        rows = re.findall(r"^\| (\S+) \| 0\.500", first, re.MULTILINE)
        headline = ["validity.schema_valid", "labels.accuracy", "labels.macro_f1", "rouge.f1", "a.x"]
        assert rows == (headline if tuned else [])
        assert "Predictor(" in first and ("adapter=" in first) is not whole
        assert first.index("## How to use") > (first.index("## Results") if tuned else 0)
    assert "## How to use" not in model_card.text("r", report, None, {})


def test_the_usage_of_a_card_runs_as_printed_for_every_schema() -> None:
    for name in ("dfk_label", "caption", "summary", "keywords", "answer"):
        said = card_usage.snippet(metadata.ModelMetadata(schema=name), "org/base", whole=False)
        code = said.split("```python\n")[1].split("```")[0]
        call = ast.parse(code).body[-1]
        assert isinstance(call, ast.Expr) and isinstance(call.value, ast.Call) and call.value.keywords
        assert "\ndfkeval predict --model org/base --adapter " in said


def test_a_base_that_is_a_folder_is_called_unknown_and_its_path_is_not_told(run: Path) -> None:
    report = json.loads((run / "run.json").read_text())
    report["base"]["name"], report["config"]["card"] = "/srv/secret/my-base", {}
    made = model_card.text("r", report, None, {})
    assert "/srv" not in made and "`my-base`" in made and "base_model" not in made.split("---")[1]
    assert model_card.base_model(report, ModelCard()) is None
    merged = model_card.text("r", report, None, {}, merged=True)
    assert "library_name: transformers" in merged and "library_name: peft" in made


# ------------------------------------------------------------------------------------------------- push


def test_a_dry_run_lists_files_sizes_and_the_card_and_asks_nobody(
    run: Path, fake: Hub, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    code, said, err = called(monkeypatch, capsys, "push", run, "--to", "org/model", "--dry-run")
    assert (code, err, fake.asked) == (0, "", [])
    size = (run / "adapter/adapter_model.safetensors").stat().st_size
    assert f"adapter_model.safetensors {size:,}" in joined(said) and "curves-s.png" in said
    assert "license: apache-2.0" in said and "![Loss of stage s](curves-s.png)" in said
    assert "optimizer.pt" not in said and "notes.txt" not in said


def test_a_push_sends_exactly_what_the_dry_run_lists(
    run: Path, fake: Hub, monkeypatch: Any, capsys: Any
) -> None:
    code, said, err = called(monkeypatch, capsys, "push", run, "--to", "org/model", "--revision", "v2")
    assert code == 0, err
    sent = fake.revisions["v2"]
    assert set(sent) == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "dfk.json", "curves-s.png",
    }  # fmt: skip
    assert sent["adapter_model.safetensors"] == (run / "adapter/adapter_model.safetensors").read_bytes()
    assert fake.revisions["main"] == {} and fake.made[0]["visibility"] == "private"
    assert json.loads(sent["adapter_config.json"])["base_model_name_or_path"] == "org/base"
    assert json.loads(sent["dfk.json"])["base"]["name"] == "org/base"
    assert f"sent: hf://org/model@{fake.oid('v2')}" in said
    assert TOKEN not in said + err and f"Bearer {TOKEN}" in fake.tokens


def test_a_refusal_of_the_hub_is_a_message_without_the_token(
    run: Path, fake: Hub, monkeypatch: Any, capsys: Any
) -> None:
    fake.refuses = True
    code, said, err = called(monkeypatch, capsys, "push", run, "--to", "org/model")
    assert code == 2 and "org/model: the Hub refused" in err and TOKEN not in said + err


def test_nothing_is_sent_without_a_token_or_to_half_a_name(run: Path, fake: Hub, monkeypatch: Any) -> None:
    with pytest.raises(ConfigError, match="write ORG/NAME"):
        hub.send(hub.plan(run), "model")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="set HF_TOKEN"):
        hub.send(hub.plan(run), "org/model")
    assert fake.asked == []


@pytest.mark.parametrize("leak", [TOKEN, "{run}/data.jsonl"])
def test_a_file_with_a_token_or_a_path_of_this_machine_is_refused(
    run: Path, tmp_path: Path, leak: str
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    with (copy / "adapter/README.md").open("a") as file:
        file.write(leak.format(run=copy))
    with pytest.raises(ConfigError, match=r"README\.md: (holds an access token|names a folder)"):
        hub.plan(copy)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a run's folder nor one with weights"):
        hub.plan(tmp_path)


# ------------------------------------------------------------------------------------------- warm start


def test_training_goes_on_from_an_adapter_on_the_hub(
    run: Path, fake: Hub, data: Path, tmp_path: Path
) -> None:
    address = hub.send(hub.plan(run), "org/model")
    fake.asked.clear()
    local = train(
        configured(data, adapter={"rank": 4, "alpha": 8, "warm_start": str(run / "adapter")}), tmp_path / "a"
    )
    config = configured(data, adapter={"rank": 4, "alpha": 8, "warm_start": address})
    far = train(config.resolved(tmp_path), tmp_path / "b")
    files = [folder / "adapter/adapter_model.safetensors" for folder in (tmp_path / "a", tmp_path / "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert local.stages[0].fingerprint == far.stages[0].fingerprint
    assert f"| started from | {address} |" in (tmp_path / "b/adapter/README.md").read_text()
    assert not any("README" in path or "curves" in path for _, path in fake.asked)
    assert not any(path.startswith("/org/other") for _, path in fake.asked) and fake.asked


def test_an_adapter_that_is_not_there_is_a_message(fake: Hub, data: Path) -> None:
    with pytest.raises(BackendError, match="hf://org/model@lost: cannot be downloaded"):
        hub.fetch("hf://org/model@lost")
    with pytest.raises(ConfigError, match="write hf://ORG/NAME"):
        hub.fetch("hf://model")
