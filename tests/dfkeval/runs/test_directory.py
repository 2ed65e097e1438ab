"""The run directory: what was answered is never lost, mixed up or overwritten."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dfkdata.common import json_files
from dfkdata.common.errors import BackendError, ConfigError, DataError
from dfkeval import evaluate, load_run
from dfkeval.cli import app
from dfkeval.evaluation.evaluate import score
from dfkeval.runs import directory as stores
from dfkeval.runs.directory import RunDirectory
from dfkeval.types import Completion
from tests.helpers.runs import DFK, config_of, gold_answers, write_answers, write_rows

CONFIG = {"data": "rows.jsonl", "limit": None, "metrics": ["validity"], "seed": 42}


def completion(name: str, text: str = "x", **more: Any) -> Completion:
    return Completion(id=name, text=text, **more)


@pytest.fixture
def store(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path / "deep" / "run")
    made.begin(CONFIG, "hash")
    return made


def test_a_completion_comes_back_as_it_was_written(store: RunDirectory) -> None:
    odd = 'line\nline\r\n\u2028\x00\x1c tab\t 😀 "quoted" </tool_call>'
    written = [
        completion("a", odd, n_prompt_tokens=7, n_output_tokens=3, seconds=0.25, finish_reason="length"),
        completion("b", "", finish_reason="error", error="refused", timed_out=True),
        completion("c", "y", restored_stop="</tool_call>"),
    ]
    assert list(store.append(written)) == written
    assert store.completions() == {each.id: each for each in written}
    assert store.path(stores.COMPLETIONS).read_bytes().count(b"\n") == 3


def test_a_completion_is_on_disk_before_the_next_one_is_made(store: RunDirectory) -> None:
    def engine() -> Iterator[Completion]:
        for name in "abc":
            assert len(RunDirectory(store.folder).completions()) == "abc".index(name)
            yield completion(name)

    assert [each.id for each in store.append(engine())] == ["a", "b", "c"]


def test_what_was_answered_before_the_engine_failed_is_kept(store: RunDirectory) -> None:
    def engine() -> Iterator[Completion]:
        yield completion("a")
        raise BackendError("the server is gone")

    with pytest.raises(BackendError):
        list(store.append(engine()))
    assert list(store.completions()) == ["a"]


def test_the_last_completion_of_an_id_counts(store: RunDirectory) -> None:
    list(store.append([completion("a", "", finish_reason="error", error="refused"), completion("b")]))
    list(store.append([completion("a", "answer")]))
    assert store.completions()["a"].text == "answer"
    assert len(store.path(stores.COMPLETIONS).read_bytes().splitlines()) == 3


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_half_written_last_line_is_no_answer_and_is_cut_off_before_the_next(
    store: RunDirectory, cut: int
) -> None:
    list(store.append([completion("a"), completion("b")]))
    path = store.path(stores.COMPLETIONS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert list(store.completions()) == ["a"]
    list(store.append([completion("b")]))
    assert path.read_bytes() == whole


def test_a_broken_line_in_the_middle_is_an_error_with_its_number(store: RunDirectory) -> None:
    list(store.append([completion("a")]))
    with store.path(stores.COMPLETIONS).open("ab") as file:
        file.write(b'{"id": "b"}\n')
    with pytest.raises(DataError, match=r"completions\.jsonl:2: not a completion .*`text`"):
        store.completions()


def test_a_run_that_never_got_an_answer_takes_a_corrected_configuration(store: RunDirectory) -> None:
    store.begin(CONFIG | {"limit": 3}, "other hash")
    assert store.config()["config"]["limit"] == 3


def test_scoring_keys_may_change_in_a_run_and_others_may_not(store: RunDirectory) -> None:
    list(store.append([completion("a")]))
    store.begin({**CONFIG, "metrics": ["labels"], "seed": 1, "resamples": 500}, "hash")
    assert store.config()["config"]["metrics"] == ["labels"]
    with pytest.raises(ConfigError, match=r"another configuration \(limit differ\)"):
        store.begin({**CONFIG, "limit": 3}, "hash")
    with pytest.raises(ConfigError, match="a run on other data"):
        store.begin(CONFIG, "other")
    assert store.config()["config"]["limit"] is None


def test_overwrite_throws_away_answers_and_nothing_else(store: RunDirectory) -> None:
    list(store.append([completion("a")]))
    mine = store.folder / "notes.txt"
    mine.write_text("mine")
    store.begin({**CONFIG, "limit": 3}, "other", overwrite=True)
    assert store.completions() == {}
    assert mine.read_text() == "mine"


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="give another --out"):
            RunDirectory(tmp_path).begin(CONFIG, "hash", overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_without_scores_says_what_to_do(store: RunDirectory) -> None:
    with pytest.raises(DataError, match=r"has no samples\.jsonl; run `dfkeval score"):
        store.samples()
    store.path(stores.SAMPLES).write_text('{"id": "a"}\n')
    with pytest.raises(DataError, match="run `dfkeval score` again"):
        store.samples()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"format": 2}', "format 2 is not one that this version reads"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(store: RunDirectory, text: str, message: str) -> None:
    store.path(stores.CONFIG).write_text(text)
    with pytest.raises(DataError, match=message) as failed:
        store.config()
    assert str(store.path(stores.CONFIG)) in str(failed.value)


def test_a_file_is_replaced_whole_or_not_at_all(store: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store.path(stores.SUMMARY)
    json_files.write_json(path, {"n": 1})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        json_files.write_json(path, {"n": 2})
    assert json_files.read_json(path) == {"n": 1}


def test_two_processes_never_write_into_one_run(tmp_path: Path) -> None:
    data, answers = write_rows(tmp_path / "d.jsonl", DFK, 2), write_answers(tmp_path / "a.jsonl", [])
    config = config_of(data, answers, ["validity"])
    with (
        RunDirectory(tmp_path / "run").alone(),
        pytest.raises(ConfigError, match="another run writes into it"),
    ):
        evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists(), "an empty folder is taken away again"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()  # a kill leaves it
    assert evaluate(config, tmp_path / "run").summary["n"] == 2
    assert not (tmp_path / "run" / ".lock").exists()


def test_scoring_again_waits_for_nobody_and_leaves_no_half_run(tmp_path: Path) -> None:
    """A second process, or a metric that cannot be had, leaves every file as it was."""
    data, answers = write_rows(tmp_path / "d.jsonl", DFK, 2), write_answers(tmp_path / "a.jsonl", [])
    evaluate(config_of(data, answers, ["validity"]), tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with RunDirectory(tmp_path / "run").alone():
        for command in (["score"], ["report"]):
            refused = CliRunner().invoke(app.app, [*command, str(tmp_path / "run")])
            assert "another run writes into it; wait for it" in str(refused.exception)
            assert "--out" not in str(refused.exception)
    with pytest.raises(ConfigError):
        score(tmp_path / "run", metrics=["loss"])
    with pytest.raises(DataError, match="nothing"):
        score(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_two_scorings_at_once_leave_whole_files_of_one_of_them(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d.jsonl", DFK, 40)
    answers = write_answers(tmp_path / "a.jsonl", gold_answers(DFK, 40))
    evaluate(config_of(data, answers, ["validity"]), tmp_path / "run")
    chosen = [["validity", "labels"], ["validity", "rouge"]] * 3

    def again(metrics: list[str]) -> str:
        try:
            score(tmp_path / "run", metrics=metrics)
        except ConfigError as error:
            assert "another run writes into it" in str(error)
            return ""
        return metrics[1]

    with ThreadPoolExecutor(6) as pool:
        done = set(pool.map(again, chosen)) - {""}
    assert done
    run = load_run(tmp_path / "run")
    assert run.config.metrics[1] in done
    assert {name.split(".")[0] for name in run.summary["metrics"]} == set(run.config.metrics)
    assert not [path for path in run.folder.iterdir() if path.suffix == ".part" or path.name == ".lock"]


def test_a_sample_with_an_outcome_that_is_none_is_refused(tmp_path: Path) -> None:
    from msgspec.structs import replace

    from tests.helpers.runs import DFK, sample_of

    store = RunDirectory(tmp_path)
    store.write_samples([sample_of(0, DFK), replace(sample_of(1, DFK), outcome="<b>")])
    with pytest.raises(DataError, match=r"samples\.jsonl:2: the outcome '<b>' is none"):
        store.samples()
