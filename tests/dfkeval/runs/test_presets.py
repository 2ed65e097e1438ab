"""Every preset that ships binds, keeps the settings whose numbers it repeats, and can be written and run."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dfkdata import schemas
from dfkdata.common.errors import ConfigError
from dfkeval.cli import app
from dfkeval.metrics import bertscore
from dfkeval.runs import config as configs
from dfkeval.runs import presets
from dfkeval.runs.config import EvalConfig
from tests.helpers.lines import joined
from tests.helpers.places import ROOT
from tests.helpers.runs import CAPTION, DFK, gold_answers, write_answers, write_rows

NAMES = presets.names()


def bound(name: str, tmp_path: Path) -> EvalConfig:
    """The preset as `run` reads it from a copy."""
    return configs.read(presets.write(name, tmp_path))


def test_the_presets_of_the_published_evaluations_ship() -> None:
    assert {"sita_vlm_gen", "json_captioner", "radiology_vqa", "qwen_bench"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_binds_and_every_name_in_it_is_known(name: str, tmp_path: Path) -> None:
    config = bound(name, tmp_path)
    resolved, schema = configs.resolve(config, {})
    assert schema.name == config.schema_name
    assert config.kind == "transformers"
    assert resolved.data.is_relative_to(tmp_path) and resolved.data.name == "test.jsonl"
    assert presets.about(name) and not presets.about(name).startswith("#")


@pytest.mark.parametrize(
    ("name", "schema", "settings"),
    [
        ("sita_vlm_gen", "dfk_label", {"max_new_tokens": 512, "temperature": 0.0, "thinking": False}),
        ("json_captioner", "caption", {"max_new_tokens": 768, "temperature": 0.0, "thinking": False}),
        ("radiology_vqa", "answer", {"max_new_tokens": 128, "temperature": 0.5, "min_p": 0.1}),
        ("qwen_bench", "caption", {"max_new_tokens": 256, "temperature": 0.0, "thinking": False}),
    ],
)
def test_a_preset_has_the_settings_of_what_it_repeats(
    name: str, schema: str, settings: dict[str, float], tmp_path: Path
) -> None:
    config = bound(name, tmp_path)
    assert config.schema_name == schema
    assert {key: getattr(config.sampling, key) for key in settings} == settings


def test_the_presets_name_their_encoders_and_stop_strings(tmp_path: Path) -> None:
    encoder = bound("sita_vlm_gen", tmp_path).options_of("bertscore", bertscore.Options)
    assert (encoder.model, encoder.layer) == ("bert-base-multilingual-cased", 9)
    assert bound("json_captioner", tmp_path).sampling.stop == ("</tool_call>",)
    assert bound("radiology_vqa", tmp_path).options_of("bertscore", bertscore.Options).lang == "en"


def test_the_benchmark_compares_three_modes(tmp_path: Path) -> None:
    assert bound("qwen_bench", tmp_path).modes == ("free", "json_mode", "constrained")


def test_the_checkout_shows_them_under_configs() -> None:
    folder = ROOT / "configs" / "eval"
    assert sorted(path.stem for path in folder.glob("*.yaml")) == NAMES


@pytest.mark.parametrize(("name", "schema"), [("sita_vlm_gen", DFK), ("json_captioner", CAPTION)])
def test_init_writes_a_preset_that_runs(name: str, schema: schemas.Schema, tmp_path: Path) -> None:
    """The model and the encoder are the user's to name; the rest runs as it is written."""
    done = CliRunner().invoke(app.app, ["init", name, "--out", str(tmp_path)])
    assert done.exit_code == 0 and f"dfkeval run {tmp_path / name}.yaml" in done.stdout
    write_rows(tmp_path / "test.jsonl", schema, 4)
    answers = write_answers(tmp_path / "a.jsonl", gold_answers(schema, 4))
    changes = [f"backend={{kind: scripted, completions: {answers}}}", "metrics=[validity, rouge]"]
    arguments = [part for change in changes for part in ("--set", change)]
    run = CliRunner().invoke(
        app.app, ["run", str(tmp_path / f"{name}.yaml"), "--out", str(tmp_path / "run"), *arguments]
    )
    assert run.exit_code == 0, run.output
    assert "validity.schema_valid 1.000 [0.158, 1.000] 4" in joined(run.stdout)


def test_init_alone_lists_them_and_never_overwrites(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app.app, ["init"])
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == NAMES
    path = presets.write("qwen_bench", tmp_path / "deep" / "eval.yaml")
    assert path == tmp_path / "deep" / "eval.yaml"
    with pytest.raises(ConfigError, match="is there already"):
        presets.write("qwen_bench", path)
    with pytest.raises(ConfigError, match="did you mean 'qwen_bench'"):
        presets.write("qwen_bnch", tmp_path)


def test_a_place_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    refused = CliRunner().invoke(app.app, ["init", "qwen_bench", "--out", str(tmp_path / "file" / "q.yaml")])
    assert isinstance(refused.exception, ConfigError)
    assert "cannot be written" in str(refused.exception) and "--out" in str(refused.exception)


def test_what_a_preset_says_of_itself_is_a_whole_sentence() -> None:
    assert all(presets.about(name).endswith(".") for name in presets.names())
