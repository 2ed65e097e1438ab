"""The commands: what they print, where, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dfktrain.cli import _common, app
from tests.helpers.commands import called
from tests.helpers.models import text_row, write_rows


@pytest.fixture
def config_file(base_folder: Path, train_file: Path, tmp_path: Path) -> Path:
    path = tmp_path / "train.yaml"
    path.write_text(
        f"model: {{name: {base_folder}}}\nstages:\n"
        "  - {name: sft, data: [train.jsonl], steps: 2, batch_size: 2, learning_rate: 1e-3}\n"
    )
    return path


def test_run_trains_and_says_where_the_adapter_is(
    monkeypatch: Any, capsys: Any, config_file: Path, tmp_path: Path
) -> None:
    code, out, _ = called(monkeypatch, capsys, "run", config_file, "--out", tmp_path / "out")
    assert code == 0
    assert out.splitlines()[-1] == f"adapter: {tmp_path / 'out/adapter'}"
    assert json.loads((tmp_path / "out/run.json").read_text())["stages"][0]["steps"] == 2
    assert (tmp_path / "out/stages/sft/adapter/adapter_model.safetensors").is_file()


def test_the_configuration_may_name_the_folder_and_the_precision_is_said(
    monkeypatch: Any, capsys: Any, config_file: Path, tmp_path: Path
) -> None:
    code, _, err = called(monkeypatch, capsys, "run", config_file)
    assert code == 2 and "Give --out DIR, or write output: DIR" in err
    code, out, err = called(monkeypatch, capsys, "run", config_file, "--set", "output=made")
    assert code == 0 and out.splitlines()[-1] == f"adapter: {tmp_path / 'made/adapter'}"
    assert "precision fp32: no device with native bf16" in err


def test_check_shows_counts_and_the_scored_tokens_of_a_row(
    monkeypatch: Any, capsys: Any, config_file: Path
) -> None:
    code, out, _ = called(monkeypatch, capsys, "check", config_file)
    assert code == 0
    assert "stage sft" in out and "samples 8, steps 2" in out
    assert "Label: Netral" in out and "<|im_end|>" in out


def test_check_names_every_row_that_would_be_refused(
    monkeypatch: Any, capsys: Any, config_file: Path, tmp_path: Path
) -> None:
    hollow = text_row("hollow", "a", "")
    write_rows(
        tmp_path / "train.jsonl", [text_row("fine", "a", "b"), hollow, text_row("long", "berita " * 900, "b")]
    )
    code, out, _ = called(monkeypatch, capsys, "check", config_file, "--set", "stages.0.max_length=200")
    assert code == 2
    assert "2 rows cannot be trained on" in out
    assert "row hollow: the last answer is empty" in out and "row long:" in out


def test_check_config_only_opens_no_data(
    monkeypatch: Any, capsys: Any, config_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "train.jsonl").unlink()
    code, out, _ = called(monkeypatch, capsys, "check", config_file, "--config-only")
    assert code == 0 and "a valid configuration of 1 stages" in out


def test_a_wrong_configuration_is_one_message_on_stderr_and_exit_2(
    monkeypatch: Any, capsys: Any, config_file: Path
) -> None:
    config_file.write_text(config_file.read_text().replace("steps: 2", "step: 2, learnin_rate: 1"))
    code, out, err = called(monkeypatch, capsys, "check", config_file)
    assert code == 2 and out == ""
    assert "did you mean 'steps'" in err and "did you mean 'learning_rate'" in err
    assert "Traceback" not in err


def test_a_missing_package_is_named_with_its_extra_in_one_line(
    monkeypatch: Any, capsys: Any, config_file: Path, tmp_path: Path
) -> None:
    real = _common.importlib.util.find_spec
    monkeypatch.setattr(
        _common.importlib.util, "find_spec", lambda name: None if name == "torch" else real(name)
    )
    code, _, err = called(monkeypatch, capsys, "run", config_file, "--out", tmp_path / "out")
    assert code == 2
    assert err == 'dfktrain: dfktrain needs torch: pip install "dfk[train]"\n'


def test_demo_calls_the_demo_with_its_folder_and_minutes(
    monkeypatch: Any, capsys: Any, tmp_path: Path
) -> None:
    from dfktrain.demo import run

    asked: list[Any] = []
    monkeypatch.setattr(run, "demo", lambda *given: asked.extend(given))
    assert called(monkeypatch, capsys, "demo", "--out", tmp_path, "--minutes", "1")[0] == 0
    assert asked == [tmp_path, 1]


def test_the_first_help_shows_where_to_begin() -> None:
    said = CliRunner().invoke(app.app, ["--help"]).output
    assert said.split("Examples:")[1].count("dfktrain ") == 2


def test_a_log_gets_a_line_for_each_stage_with_rate_loss_and_time_left(monkeypatch: Any, capsys: Any) -> None:
    from dfkdata.common import progress
    from dfktrain.training.state import TrainingProgress

    monkeypatch.setattr(progress, "FIRST_LOG", 0.0)
    monkeypatch.setattr(progress, "LOG", 0.0)
    tell = _common.progress_bar()
    assert tell is not None
    for step in (901, 1000):  # a resumed stage: the 901 steps before took no time of this run
        tell(TrainingProgress("sft", step, 1000, 0.5, 1.0))
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1].startswith("  1000/1000 steps")
    assert err.rstrip().endswith("sft  loss 0.5000")
    monkeypatch.setenv("RANK", "1")
    assert _common.progress_bar() is None


@pytest.mark.parametrize("command", ["run", "check", "demo"])
def test_every_help_ends_with_two_examples(command: str) -> None:
    said = CliRunner().invoke(app.app, [command, "--help"]).output
    assert said.split("Examples:")[1].count(f"dfktrain {command}") == 2


def test_the_console_command_starts_without_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from dfktrain.cli import app\n"
        "CliRunner().invoke(app.app, ['--help']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("says", "named"),
    [
        ("Error while serializing: I/O error: File too large (os error 27)", "File too large"),
        (
            "Error while serializing: I/O error: No space left on device (os error 28)",
            "No space left on device",
        ),
        ("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0", "the disk is full"),
        ("PytorchStreamWriter failed writing file data/3: file write failed", "the disk is full"),
    ],
)
def test_weights_that_cannot_be_written_are_a_fault_of_the_machine(
    tmp_path: Path, says: str, named: str
) -> None:
    from dfktrain.cli._common import writing_weights

    with pytest.raises(OSError, match=named) as full, writing_weights(tmp_path):
        raise RuntimeError(says)
    assert full.value.filename == str(tmp_path)
    with pytest.raises(RuntimeError, match="ours"), writing_weights(tmp_path):
        raise RuntimeError("a fault of ours")
