"""The configuration: which keys decide an answer, and the options that metrics bring along."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dfkdata.common.config import Config
from dfkdata.common.errors import ConfigError
from dfkeval import load_run
from dfkeval.cli import app
from dfkeval.evaluation.evaluate import evaluate
from dfkeval.metrics import bertscore, fields, sita
from dfkeval.runs.config import SECTIONS, EvalConfig, answer_identity
from dfkeval.types import Sampling
from tests.helpers.lines import joined
from tests.helpers.runs import DFK, config_of, gold_answers, write_answers, write_rows

#: Another value for every key of the configuration; a new key must be added here.
CHANGES: dict[str, Any] = {
    "data": "other.jsonl", "schema": "dfk_text", "variant": "json", "metrics": ["labels"], "modes": ["json_mode"],
    "backend": {"kind": "scripted", "completions": "other.jsonl"}, "sampling": {"seed": 1}, "cache": "kept",
    "scaffold": "task.jsonl", "confidences": True, "metric_options": {"calibration": {}}, "limit": 3,
    "trackers": ["wandb"], "shard": "1/2", "max_failures": 0.5, "resamples": 200, "confidence": 0.9, "seed": 7,
    "bertscore": {"layer": 3}, "fields": {"threshold": 0.5}, "sita": {"evaluator": "text_gen"},
    "max_image_side": 9, "lang": "id", "redact": True, "plugins": ["shop"], "media_roots": ["pictures"],
}  # fmt: skip
#: Another value for every key of the sampling.
SAMPLING: dict[str, Any] = {
    "max_new_tokens": 5, "temperature": 0.5, "top_p": 0.5, "top_k": 5, "min_p": 0.5, "repetition_penalty": 1.5,
    "stop": ["x"], "seed": 5, "repeats": 2, "thinking": True, "thinking_budget": 5,
    "reasoning_effort": "low",
}  # fmt: skip


def record(**changes: Any) -> dict[str, Any]:
    base = {"data": "rows.jsonl", "backend": {"kind": "scripted", "completions": "a.jsonl"}}
    return EvalConfig.model_validate(base | changes).record()


def keys() -> set[str]:
    return {field.alias or name for name, field in EvalConfig.model_fields.items()} | {*SECTIONS}


@pytest.mark.parametrize("key", sorted(keys()))
def test_every_key_decides_an_answer_or_is_declared_to_score_only(key: str) -> None:
    value = CHANGES[key] if key != "metric_options" else {"fields": {"threshold": 0.5}}
    before, after = record(), record(**{key: value})
    assert before != after or EvalConfig.model_fields[key].exclude
    same = answer_identity(before) == answer_identity(after)
    assert same is (key in EvalConfig.scoring_keys)
    changed = answer_identity(before).changed_settings(answer_identity(after))
    assert changed == ([] if same else [key])


@pytest.mark.parametrize("key", sorted(Sampling.model_fields))
def test_every_key_of_the_sampling_decides_an_answer(key: str) -> None:
    more = (
        {"temperature": 0.5}
        if key == "repeats"
        else {"thinking": True}
        if key in ("thinking_budget", "reasoning_effort")
        else {}
    )
    after = record(sampling=more | {key: SAMPLING[key]})
    assert answer_identity(record(sampling=more)) != answer_identity(after)


@pytest.mark.parametrize("key", sorted(EvalConfig.scoring_keys - {"trackers", "cache"}))
def test_a_run_goes_on_under_other_values_of_the_keys_that_only_score(key: str, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", DFK, 6)
    config = config_of(rows, write_answers(tmp_path / "a.jsonl", gold_answers(DFK, 6)), ["validity"])
    asked = evaluate(config, tmp_path / "run").folder / "completions.jsonl"
    before = asked.read_bytes()
    value = CHANGES[key] if key != "metric_options" else {"fields": {"threshold": 0.5}}
    again = EvalConfig.model_validate(config.record() | {key: value})
    evaluate(again, tmp_path / "run")
    assert asked.read_bytes() == before


def test_options_of_metrics_may_stand_at_the_top_as_they_always_did() -> None:
    written = {"bertscore": {"layer": 3}, "fields": {"threshold": 0.5}, "sita": {"evaluator": "text_gen"}}
    assert record(**written) == record(metric_options=written)
    assert record(**written) | record() == record()
    config = EvalConfig.model_validate(record(**written))
    assert config.options_of("bertscore", bertscore.Options).layer == 3
    assert config.options_of("fields", fields.Options).threshold == 0.5
    assert config.options_of("sita", sita.Options).evaluator == "text_gen"
    both = record(metric_options={"bertscore": {"layer": 3}}, bertscore={"lang": "en"})
    assert (both["bertscore"]["layer"], both["bertscore"]["lang"]) == (3, "en")


def test_a_record_is_read_back_as_it_was_written_and_old_records_keep_their_keys() -> None:
    now = record()
    assert "metric_options" not in now and list(now)[9:12] == ["confidences", "bertscore", "fields"]
    assert EvalConfig.model_validate(json.loads(json.dumps(now))).record() == now


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric_options": {"bertscore": {"modle": "x"}}}, r"metric_options\.bertscore: modle: unknown key"),
        ({"bertscore": {"modle": "x"}}, r"bertscore: modle: unknown key; did you mean 'model'"),
        ({"metric_options": {"labels": {"x": 1}}}, "metric 'labels' has no options"),
        ({"metric_options": {"lables": {"x": 1}}}, "did you mean 'labels'"),
        ({"metric_options": ["bertscore"]}, "not a mapping of metric names"),
        ({"fields": 3}, "fields: not a mapping of options"),
    ],
)
def test_options_that_do_not_fit_are_refused_with_their_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        record(**changes)


def test_options_of_another_class_are_refused() -> None:
    class Other(Config):
        pass

    with pytest.raises(ConfigError, match="options are Options, not"):
        EvalConfig.model_validate(record() | {"bertscore": {"layer": 1}}).options_of("bertscore", Other)


METRIC = """
import numpy as np
from dfkdata.common.config import Config
from dfkeval.metrics import Measured, Metric, column, ratio


class Options(Config):
    least: int = 1


def measure(samples, scoring):
    least = scoring.options_of("long_answers", Options).least
    values = np.array([[1.0, len(sample.text) >= least] for sample in samples])
    return Measured(("n", "long"), values, values[:, 0] > 0, {"least": least})


def reduce(sums, columns):
    return {"rate": ratio(column(sums, columns, "long"), column(sums, columns, "n"))}


METRIC = Metric(measure, reduce)
"""


def test_a_metric_with_options_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "long_answers.py").write_text(METRIC)
    monkeypatch.syspath_prepend(str(tmp_path))
    write_rows(tmp_path / "rows.jsonl", DFK, 4)
    write_answers(tmp_path / "a.jsonl", gold_answers(DFK, 4))
    (tmp_path / "eval.yaml").write_text(
        "data: rows.jsonl\nbackend: {kind: scripted, completions: a.jsonl}\nresamples: 100\n"
        "metrics: [mine.long_answers]\nmetric_options:\n  long_answers: {least: 1000}\n"
    )
    run = ["run", str(tmp_path / "eval.yaml"), "--out", str(tmp_path / "run")]
    assert "long_answers.rate 0.000 [0.000, 0.842] 4" in joined(
        CliRunner().invoke(app.app, run, catch_exceptions=False).stdout
    )
    changed = [*run, "--set", "metric_options.long_answers.least=1"]
    again = CliRunner().invoke(app.app, changed, catch_exceptions=False)
    assert "long_answers.rate 1.000 [0.158, 1.000] 4" in joined(again.stdout)
    written = json.loads((tmp_path / "run/config.json").read_text())["config"]["metric_options"]
    assert written == {"long_answers": {"least": 1}}
    assert load_run(tmp_path / "run").measured["long_answers"][1].details == {"least": 1}
    scored = CliRunner().invoke(app.app, ["score", str(tmp_path / "run")], catch_exceptions=False)
    assert "long_answers.rate 1.000 [0.158, 1.000] 4" in joined(scored.stdout)
    for name in ("mine", "mine.long_answers"):
        sys.modules.pop(name, None)
