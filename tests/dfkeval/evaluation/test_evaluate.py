"""A run from rows to report: outcomes, the run directory, stopping and going on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dfkeval
from dfkdata.common import json_files
from dfkdata.common.errors import BackendError, ConfigError, DataError
from dfkeval.backends import Capabilities
from dfkeval.backends.scripted import Scripted
from dfkeval.evaluation import evaluate, grading, shards
from dfkeval.models import metadata
from dfkeval.runs import config as configs
from dfkeval.runs.config import EvalConfig
from dfkeval.types import OUTCOMES, Completion, Request, Sampling
from tests.helpers.places import ROOT
from tests.helpers.runs import CAPTION, DFK, config_of, gold_answers, sample_of, write_answers, write_rows

FILES = {
    "config.json", "environment.json", "completions.jsonl", "samples.jsonl", "summary.json", "report.md",
    "report.html",
}  # fmt: skip


def dfk_run(tmp_path: Path, n: int = 8, wrong: Iterable[int] = (), out: str = "run") -> evaluate.Run:
    answers = [
        (name, "?" if index in set(wrong) else text)
        for index, (name, text) in enumerate(gold_answers(DFK, n))
    ]
    data = write_rows(tmp_path / "test.jsonl", DFK, n)
    config = config_of(
        data, write_answers(tmp_path / f"{out}.answers.jsonl", answers), ["validity", "labels"]
    )
    return dfkeval.evaluate(config, tmp_path / out)


def test_a_run_directory_has_its_seven_files(tmp_path: Path) -> None:
    run = dfk_run(tmp_path, wrong=[1])
    assert {path.name for path in run.folder.iterdir()} == FILES
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["n"] == 8
    assert summary["outcomes"] == {"ok": 7, "no_call": 1}
    assert set(summary["metrics"]["labels.accuracy"]) == {"value", "low", "high", "n"}
    assert summary["metrics"]["labels.accuracy"]["value"] == 7 / 8
    assert {"validity.schema_valid", "validity.non_empty", "labels.macro_f1"} <= summary["metrics"].keys()


def test_completions_are_kept_verbatim(tmp_path: Path) -> None:
    run = dfk_run(tmp_path, wrong=[0])
    lines = [json.loads(line) for line in (run.folder / "completions.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines][:2] == ["?", gold_answers(DFK, 2)[1][1]]


@pytest.mark.parametrize(
    ("text", "more", "outcome"),
    [
        (None, {}, "ok"),
        ("", {}, "empty"),
        ("Label: fitnah\n\nAnalisis: be", {"finish_reason": "length"}, "truncated"),
        ("Label: bohong\n\nAnalisis: sebab", {}, "unknown_label"),
        ("", {"finish_reason": "error", "error": "refused"}, "request_failed"),
        ("", {"finish_reason": "error", "error": "60 s", "timed_out": True}, "timeout"),
    ],
)
def test_every_answer_has_one_outcome_of_the_closed_list(
    text: str | None, more: dict[str, Any], outcome: str
) -> None:
    sample = sample_of(0, DFK, text, **more)
    assert sample.outcome == outcome
    assert outcome in OUTCOMES
    assert (sample.value is not None) == (outcome == "ok")


def test_a_gold_that_does_not_fit_the_schema_is_counted_and_not_compared() -> None:
    item = grading.eval_item(
        {"id": "1", "messages": [], "meta": {"gold": {"label": "bohong", "analisis": "x"}}}, DFK
    )
    text = "Label: fitnah\n\nAnalisis: sebab"
    sample = grading.grade([item], {"1": Completion(id="1", text=text)}, DFK)[0]
    assert (sample.outcome, sample.gold) == ("no_gold", None)
    assert sample.problems[0].startswith("gold: /label")


def test_gold_is_read_from_the_last_turn_where_meta_has_none() -> None:
    turn = {"role": "assistant", "content": [{"type": "text", "text": "Label: fitnah\n\nAnalisis: sebab"}]}
    assert grading.gold_of_messages([turn], DFK) == {"label": "fitnah", "analisis": "sebab"}
    call = {
        "type": "function",
        "function": {"name": "emit_caption_schema", "arguments": {"actions": ["run"]}},
    }
    assert grading.gold_of_messages(
        [{"role": "assistant", "content": [], "tool_calls": [call]}], CAPTION
    ) == {"actions": ["run"]}


class Stops:
    """A backend that breaks after some answers, as a killed process does."""

    capabilities = Capabilities()

    def __init__(self, after: int) -> None:
        self.after, self.asked = after, 0
        self.info: dict[str, Any] = {"kind": "stops"}
        self.answers = dict(gold_answers(DFK, 8))

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        for number, request in enumerate(requests):
            if number == self.after:
                raise BackendError("the engine broke")
            self.asked += 1
            yield Completion(id=request.id, text=self.answers[request.id])

    def close(self) -> None: ...


def test_a_run_goes_on_where_it_stopped_and_ends_equal(tmp_path: Path) -> None:
    whole = dfk_run(tmp_path, out="whole")
    config = config_of(tmp_path / "test.jsonl", tmp_path / "whole.answers.jsonl", ["validity", "labels"])
    with pytest.raises(BackendError):
        dfkeval.evaluate(config, tmp_path / "broken", backend=Stops(3))
    second = Stops(99)
    resumed = dfkeval.evaluate(config, tmp_path / "broken", backend=second)
    assert second.asked == 5
    for name in ("samples.jsonl", "summary.json"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_half_written_last_line_is_asked_again(tmp_path: Path) -> None:
    run = dfk_run(tmp_path)
    path = run.folder / "completions.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    again = Stops(99)
    resumed = dfkeval.evaluate(run.config, run.folder, backend=again)
    assert again.asked == 1
    assert resumed.summary == run.summary
    assert len(path.read_bytes().splitlines()) == 8


def test_a_failed_request_is_asked_again_on_resume(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "test.jsonl", DFK, 4)
    config = config_of(data, write_answers(tmp_path / "a.jsonl", gold_answers(DFK, 3)), ["validity"])
    first = dfkeval.evaluate(config, tmp_path / "run")
    assert first.summary["outcomes"] == {"ok": 3, "request_failed": 1}
    assert first.summary["metrics"]["validity.schema_valid"]["n"] == 3
    write_answers(tmp_path / "a.jsonl", gold_answers(DFK, 4))
    assert dfkeval.evaluate(config, tmp_path / "run").summary["outcomes"] == {"ok": 4}


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.helpers.runs import DFK, config_of, gold_answers
from dfkeval import evaluate
from dfkeval.types import Completion
from dfkeval.backends import Capabilities
class Slow:
    capabilities = Capabilities()
    info = {}
    def generate(self, requests, sampling):
        answers = dict(gold_answers(DFK, 8))
        for request in requests:
            time.sleep(0.2)
            yield Completion(id=request.id, text=answers[request.id])
    def close(self): ...
root = Path(sys.argv[2])
config = config_of(root / "test.jsonl", root / "whole.answers.jsonl", ["validity", "labels"])
evaluate(config, root / "killed", backend=Slow())
"""


def test_kill_9_loses_at_most_what_was_in_flight(tmp_path: Path) -> None:
    whole = dfk_run(tmp_path, out="whole")
    here = str(ROOT)
    process = subprocess.Popen([sys.executable, "-c", KILLED, here, str(tmp_path)])
    path = tmp_path / "killed" / "completions.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (path.exists() and path.read_bytes().count(b"\n") >= 3):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 3 <= path.read_bytes().count(b"\n") < 8
    resumed = dfkeval.evaluate(whole.config, tmp_path / "killed")
    assert (resumed.folder / "samples.jsonl").read_bytes() == (whole.folder / "samples.jsonl").read_bytes()
    assert resumed.summary == whole.summary


def test_another_configuration_or_other_data_is_refused(tmp_path: Path) -> None:
    run = dfk_run(tmp_path)
    other = run.config.model_copy(update={"sampling": Sampling(max_new_tokens=7)})
    with pytest.raises(ConfigError, match=r"another configuration \(sampling differ"):
        dfkeval.evaluate(other, run.folder)
    more_metrics = run.config.model_copy(update={"metrics": ("validity",)})
    assert dfkeval.evaluate(more_metrics, run.folder).summary["n"] == 8
    write_rows(tmp_path / "test.jsonl", DFK, 7)
    with pytest.raises(ConfigError, match="other data"):
        dfkeval.evaluate(run.config, run.folder)
    assert dfkeval.evaluate(run.config, run.folder, overwrite=True).summary["n"] == 7


def test_a_folder_that_is_no_run_is_never_overwritten(tmp_path: Path) -> None:
    run = dfk_run(tmp_path)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="give another --out"):
            dfkeval.evaluate(run.config, precious, overwrite=overwrite)
    assert (precious / "thesis.txt").read_text() == "years"


def test_scoring_again_needs_no_model_and_gives_the_same(tmp_path: Path) -> None:
    run = dfk_run(tmp_path, wrong=[2])
    assert dfkeval.score(run.folder).summary == run.summary
    (tmp_path / "run.answers.jsonl").unlink()
    (tmp_path / "test.jsonl").rename(tmp_path / "moved.jsonl")
    assert dfkeval.score(run.folder).summary == run.summary
    assert "rouge.f1" in dfkeval.score(run.folder, metrics=["rouge"]).summary["metrics"]


def test_scoring_on_changed_data_is_refused(tmp_path: Path) -> None:
    run = dfk_run(tmp_path)
    write_rows(tmp_path / "test.jsonl", DFK, 9)
    with pytest.raises(DataError, match="was changed"):
        dfkeval.score(run.folder)


def test_a_loaded_run_is_the_run_that_was_scored(tmp_path: Path) -> None:
    run = dfk_run(tmp_path, wrong=[2])
    loaded = dfkeval.load_run(run.folder)
    assert (loaded.summary, loaded.samples, loaded.config) == (run.summary, run.samples, run.config)
    with pytest.raises(DataError, match=r"is .* a run directory"):
        dfkeval.load_run(tmp_path / "nothing")


def test_ids_written_twice_and_empty_files_are_refused(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "test.jsonl", DFK, 2)
    config = config_of(data, write_answers(tmp_path / "a.jsonl", []), ["validity"])
    data.write_text(data.read_text() * 2)
    with pytest.raises(DataError, match="ids are written twice"):
        dfkeval.evaluate(config, tmp_path / "run")
    data.write_text("")
    with pytest.raises(DataError, match="no rows"):
        dfkeval.evaluate(config, tmp_path / "run")


def test_wrong_names_are_refused_with_a_suggestion_before_anything_is_written(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "test.jsonl", DFK, 2)
    answers = write_answers(tmp_path / "a.jsonl", [])
    with pytest.raises(ConfigError, match="did you mean 'labels'"):
        dfkeval.evaluate(config_of(data, answers, ["lables"]), tmp_path / "run")
    with pytest.raises(ConfigError, match="did you mean 'scripted'"):
        EvalConfig.model_validate({"data": data, "backend": {"kind": "scriptd"}})
    with pytest.raises(ConfigError, match="completion: unknown key; did you mean 'completions'"):
        EvalConfig.model_validate({"data": data, "backend": {"kind": "scripted", "completion": "x"}})
    assert not (tmp_path / "run").exists()


def test_a_yaml_reads_paths_relative_to_itself(tmp_path: Path) -> None:
    write_rows(tmp_path / "test.jsonl", CAPTION, 4)
    write_answers(tmp_path / "answers.jsonl", gold_answers(CAPTION, 4))
    config = tmp_path / "eval.yaml"
    config.write_text(
        "data: test.jsonl\nschema: caption\nbackend: {kind: scripted, completions: answers.jsonl}\n"
        "metrics: [validity, fields, grounding]\nresamples: 200\n"
    )
    run = dfkeval.evaluate(config, tmp_path / "run")
    assert run.summary["metrics"]["fields.f1"]["value"] == 1.0
    assert run.config.sampling.stop == ("</tool_call>",)


def test_the_store_never_leaves_a_half_written_file(tmp_path: Path) -> None:
    json_files.write_json(tmp_path / "a.json", {"x": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(DataError, match="not JSON"):
        (tmp_path / "b.json").write_text("{")
        json_files.read_json(tmp_path / "b.json")


def test_a_scripted_answer_that_is_missing_is_a_failed_request() -> None:
    found = list(Scripted({}).generate([Request(id="a", messages=[])], Sampling()))
    assert found[0].finish_reason == "error"


def test_merged_shards_equal_the_run_that_was_not_cut(tmp_path: Path) -> None:
    whole = dfk_run(tmp_path, wrong=[1, 4], out="whole")
    parts = []
    for place in (2, 1, 3):
        config = whole.config.model_copy(update={"shard": f"{place}/3"})
        parts.append(dfkeval.evaluate(config, tmp_path / f"part{place}").folder)
    merged = shards.merge(parts, tmp_path / "merged")
    for name in ("samples.jsonl", "summary.json", "completions.jsonl"):
        assert (merged.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_missing_doubled_or_foreign_shards_are_refused(tmp_path: Path) -> None:
    whole = dfk_run(tmp_path, out="whole")
    folders = {}
    for name, shard, tokens in (("a", "1/2", 512), ("b", "2/2", 512), ("c", "2/2", 99)):
        changes = {"shard": shard, "sampling": Sampling(max_new_tokens=tokens)}
        folders[name] = dfkeval.evaluate(whole.config.model_copy(update=changes), tmp_path / name).folder
    for chosen in ("a", "aa", "ab" + "b"):
        with pytest.raises(ConfigError, match="every shard of one run exactly once"):
            shards.merge([folders[name] for name in chosen], tmp_path / "merged")
    with pytest.raises(ConfigError, match="another configuration"):
        shards.merge([folders["a"], folders["c"]], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    with pytest.raises(ConfigError, match="3/2"):
        dfkeval.evaluate(whole.config.model_copy(update={"shard": "3/2"}), tmp_path / "d")


@pytest.mark.parametrize(
    ("trained", "difference"),
    [
        ({"schema": "caption"}, "schema was 'caption'"),
        ({"form": "card"}, "form was 'card'"),
        ({"thinking": True}, "thinking was True"),
    ],
)
def test_an_adapter_is_not_asked_what_it_was_not_trained_on(
    tmp_path: Path, trained: dict[str, Any], difference: str
) -> None:
    data = write_rows(tmp_path / "test.jsonl", DFK, 2)
    metadata.write(tmp_path, metadata.ModelMetadata(**trained))
    backend = {"kind": "transformers", "model": "tiny", "adapter": tmp_path}
    config = EvalConfig.model_validate({"data": data, "backend": backend})
    with pytest.raises(ConfigError, match=difference):
        dfkeval.evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "eval").glob("*.yaml")), ids=str)
def test_the_shipped_configurations_can_be_read_and_their_metrics_fit(path: Path) -> None:
    config, schema = configs.resolve(configs.read(path), {})
    assert schema.name == config.schema_name
    assert "validity" in config.metrics
