"""Conditions for pipelines."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dfkdata.common.errors import ConfigError
from dfkeval.analysis import gates
from dfkeval.cli import app
from dfkeval.metrics._contract import slug
from tests.helpers.runs import evaluated


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("labels.accuracy.value < 0.8", False),
        ("labels.accuracy.value < 1", True),
        ("labels.accuracy.low<=0.95", True),
        ("labels.f1.ujaran_kebencian.value < 0.5", False),
        ("validity.schema_valid.n < 12", False),
    ],
)
def test_a_condition_says_whether_the_pipeline_fails(tmp_path: Path, text: str, fails: bool) -> None:
    run = evaluated(tmp_path, "a", {"r000": "?"})
    assert gates.gate(text).fails(run.summary) is fails


def test_a_metric_without_a_number_fails_the_condition(tmp_path: Path) -> None:
    summary = {"metrics": {"grounding.rate": {"value": None, "low": None, "high": None, "n": 0}}}
    assert gates.gate("grounding.rate.value < 0.1").fails(summary)


@pytest.mark.parametrize(
    "label", ["Non-Hate", "N/A", "né (è)", "a < b", "x.low", "R&D's", "<5", "a.value < 1"]
)
@pytest.mark.parametrize(
    ("bound", "fails"), [("0.5", False), (".5", False), ("1.", True), ("1e0", True), ("-2e-3", False)]
)
def test_a_condition_may_name_every_label(label: str, bound: str, fails: bool) -> None:
    metric = f"labels.f1.{slug(label)}"
    summary = {"metrics": {metric: {"value": 0.75, "low": 0.6, "high": 0.9, "n": 8}}}
    assert gates.gate(f"{metric}.low < {bound}").fails(summary) is fails
    assert gates.gate(f" {metric}.high>={bound} ").fails(summary) is (not fails)


@pytest.mark.parametrize(
    "text", ["labels.accuracy < 0.8", "labels.accuracy.low = 0.8", "import os", "a.low < b"]
)
def test_what_is_no_condition_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ConfigError, match=r"for example 'labels\.macro_f1\.low < 0\.8'"):
        gates.gate(text)


def test_an_unknown_metric_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'labels\.accuracy'"):
        gates.gate("labels.acuracy.low < 0.8").fails(evaluated(tmp_path, "a", {}).summary)


def test_fail_if_sets_the_exit_code_of_score(tmp_path: Path) -> None:
    folder = str(evaluated(tmp_path, "a", {"r000": "?"}).folder)
    good = CliRunner().invoke(app.app, ["score", folder, "--fail-if", "labels.accuracy.value < 0.5"])
    bad = CliRunner().invoke(app.app, ["score", folder, "--fail-if", "labels.accuracy.value < 0.99"])
    assert (good.exit_code, bad.exit_code) == (0, 1)
    assert "labels.accuracy.value is 0.916" in bad.stderr
