"""The commands in one process: what each writes, what is kept, and how a wrong configuration is refused."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from dfkdata.common.errors import ConfigError, DataError
from dfkeval.cli import app
from tests.helpers.lines import joined
from tests.helpers.runs import DFK, gold_answers, write_answers, write_rows

ROWS = 12


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose model answers every row as the gold does."""
    return write_config(tmp_path, gold_answers(DFK, ROWS))


def write_config(folder: Path, answers: list[tuple[str, str]], more: str = "") -> Path:
    write_rows(folder / "test.jsonl", DFK, ROWS)
    write_answers(folder / "answers.jsonl", answers)
    path = folder / "eval.yaml"
    path.write_text(
        "data: test.jsonl\nschema: dfk_label\nbackend: {kind: scripted, completions: answers.jsonl}\n"
        f"metrics: [validity, labels]\nresamples: 200\n{more}"
    )
    return path


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app.app, [str(each) for each in arguments])


def run_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from dfkeval.cli.app import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_run_prints_its_numbers_and_score_takes_other_metrics(config: Path, tmp_path: Path) -> None:
    done = call("run", config, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "validity.schema_valid 1.000 [0.541, 1.000] 12" in joined(done.stdout)
    assert f"report: {tmp_path / 'run' / 'report.html'}" in done.stdout
    score = call("score", tmp_path / "run", "--metric", "rouge")
    assert score.exit_code == 0
    assert "rouge.f1 1.000 [0.541, 1.000] 12" in joined(score.stdout)
    assert "validity" not in score.stdout


def test_failed_requests_under_the_limit_exit_0(tmp_path: Path) -> None:
    config = write_config(tmp_path, gold_answers(DFK, ROWS)[:-3], "max_failures: 0.25\n")
    assert call("run", config, "--out", tmp_path / "out").exit_code == 0


def test_a_comparison_lists_each_changed_answer_and_the_report_opens_with_it(
    config: Path, tmp_path: Path
) -> None:
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    assert call("run", config, "--out", tuned).exit_code == 0
    worse = [(name, text if index % 2 else "?") for index, (name, text) in enumerate(gold_answers(DFK, ROWS))]
    assert call("run", write_config(tmp_path, worse), "--out", base).exit_code == 0

    table = tmp_path / "changed.csv"
    compared = call("compare", base, tuned, "--csv", table)
    assert "base -> tuned, 12 common rows" in compared.stdout
    page = tmp_path / "page.html"
    call("compare", base, tuned, "--html", page, "--lang", "id")
    assert '<html lang="id">' in page.read_text() and "base → tuned" in page.read_text()
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"r{index:03d}" for index in range(0, ROWS, 2)]
    assert {(row["outcome_before"], row["outcome_after"], row["text_before"]) for row in rows} == {
        ("no_call", "ok", "?")
    }
    assert call("report", base, "--against", tuned).exit_code == 0
    assert "tuned → base" in (base / "report.html").read_text()
    assert "## tuned -> base" in (base / "report.md").read_text()


def test_failed_requests_exit_1_and_are_asked_again(tmp_path: Path) -> None:
    out, answers = tmp_path / "out", gold_answers(DFK, ROWS)
    config = write_config(tmp_path, answers[:-3])
    first = run_command("run", config, "--out", out)
    assert first.returncode == 1, first.stderr
    assert "25.0% of the requests failed (allowed: 0.0%)" in first.stderr
    assert "Traceback" not in first.stderr
    assert "validity.schema_valid 1.000 [0.461, 1.000] 9" in joined(first.stdout)
    assert json.loads((out / "summary.json").read_text())["outcomes"] == {"ok": 9, "request_failed": 3}
    write_answers(tmp_path / "answers.jsonl", answers)
    assert run_command("run", config, "--out", out).returncode == 0
    assert json.loads((out / "summary.json").read_text())["outcomes"] == {"ok": 12}


def test_a_key_can_be_replaced_on_the_command_line(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call("run", config, "--out", out, "--set", "limit=5", "--set", "metrics=[validity]").exit_code == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["n"] == 5
    assert {name.split(".")[0] for name in summary["metrics"]} == {"validity"}


def test_another_run_in_the_folder_is_kept_unless_overwrite_is_said(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call("run", config, "--out", out).exit_code == 0
    before = (out / "completions.jsonl").read_bytes()
    other = ("run", config, "--out", out, "--set", "limit=5")
    assert isinstance(call(*other).exception, ConfigError)
    assert (out / "completions.jsonl").read_bytes() == before
    assert call(*other, "--overwrite").exit_code == 0
    assert len((out / "completions.jsonl").read_bytes().splitlines()) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("metrics: [validity, labels]", "metrics: [validty]"), "did you mean 'validity'?"),
        (("metrics: [validity, labels]", "metrics: [grounding]"), "needs a field with the role Grounded"),
        (("metrics: [validity, labels]", "metrics: [labels, labels]"), "written twice"),
        (("schema: dfk_label", "schema: dfk_lable"), "did you mean 'dfk_label'?"),
        (("resamples: 200", "resample: 200"), "did you mean 'resamples'?"),
        (("kind: scripted", "kind: scriptd"), "did you mean 'scripted'?"),
        (("data: test.jsonl", "data: tset.jsonl"), "tset.jsonl: cannot be read"),
        (("completions: answers.jsonl", "completions: gone.jsonl"), "gone.jsonl: cannot be read"),
    ],
)
def test_a_wrong_configuration_is_refused_with_the_way_out(
    config: Path, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    text = config.read_text()
    assert change[0] in text
    config.write_text(text.replace(*change))
    failed = call("run", config, "--out", tmp_path / "out").exception
    assert isinstance(failed, ConfigError | DataError)
    assert message in str(failed)


def test_a_wrong_request_is_one_message_on_stderr_and_exit_2(config: Path, tmp_path: Path) -> None:
    done = run_command("run", config, "--out", tmp_path / "out", "--set", "metrics=[validty]")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dfkeval: ")
    assert "did you mean 'validity'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["score", "report", "compare"])
def test_a_folder_that_is_no_run_is_said_so(command: str, tmp_path: Path) -> None:
    arguments = (tmp_path, tmp_path) if command == "compare" else (tmp_path,)
    with pytest.raises(DataError, match=r"is .* a run directory\?"):
        raise call(command, *arguments).exception or AssertionError("no error")


def test_parse_is_a_command() -> None:
    assert call("parse", "--help").exit_code == 0


def test_wrong_usage_exits_2_and_prints_no_result() -> None:
    for arguments in (("run",), ("compare", "one"), ("score",), ("no-such-command",)):
        done = call(*arguments)
        assert done.exit_code == 2, arguments
        assert done.stdout == ""
    assert "name two runs or more" in " ".join(call("compare", "one").stderr.split())


def commands() -> list[str]:
    return sorted(typer.main.get_command(app.app).commands)  # type: ignore[attr-defined] # a click group


def test_the_four_commands_of_a_run_are_there() -> None:
    assert {"run", "score", "compare", "report"} <= set(commands())


@pytest.mark.parametrize("command", commands())
def test_help_ends_with_two_examples(command: str) -> None:
    shown = re.sub(r"\x1b\[[0-9;]*m", "", call(command, "--help").stdout)
    last = [line.strip() for line in shown.rsplit("Examples:", 1)[1].splitlines() if line.strip()]
    assert len([line for line in last if f"dfkeval {command} " in line]) == 2
