"""What is trained on is not what is held out: `check` and `run` say so before the first step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.errors import ConfigError, DataError
from dfkdata.rows.messages import load_rows
from dfktrain import TrainConfig, train
from dfktrain.training import splits
from tests.helpers.commands import called
from tests.helpers.models import image_row, text_row, write_rows

META = {"schema": "answer", "gold": {"answer": "yes"}}


def rows(*names: str, group: str = "") -> list[dict[str, Any]]:
    return [text_row(name, f"is {name} so?", "yes", meta=META | {"group": group or name}) for name in names]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose files share nothing; commands start in it, with relative paths."""
    for name in ("train", "more", "validation", "test"):
        write_rows(tmp_path / f"{name}.jsonl", rows(*(f"{name}{at}" for at in range(3))))
    (tmp_path / "eval.yaml").write_text(
        "data: test.jsonl\nschema: answer\nbackend: {kind: transformers, model: none}\nmetrics: [answers]\n"
        "sampling: {max_new_tokens: 4}\nresamples: 200\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(folder: Path, **changes: Any) -> TrainConfig:
    stage = {"name": "sft", "data": ["train.jsonl"], "validation": ["validation.jsonl"], "steps": 1}
    made = {
        "model": {"name": "tiny"},
        "adapter": {"rank": 2},
        "stages": [stage],
        "evaluate": {"config": "eval.yaml"},
    }
    made |= {
        key: value for key, value in changes.items() if key not in stage and key not in ("best", "eval_steps")
    }
    stage |= {key: value for key, value in changes.items() if key not in made}
    (folder / "train.yaml").write_text(json.dumps(made))
    return TrainConfig.model_validate(made).resolved(folder)


def add(path: Path, *more: dict[str, Any]) -> None:
    write_rows(path, [*load_rows(path), *more])


def copied(folder: Path) -> str:
    shutil.copy(folder / "train.jsonl", folder / "copy.jsonl")
    return "copy.jsonl"


def linked(folder: Path) -> str:
    (folder / "linked.jsonl").symlink_to(folder / "train.jsonl")
    return "linked.jsonl"


def spelt(folder: Path) -> str:
    (folder / "sub").mkdir()
    return "sub/../train.jsonl"


WAYS: list[Callable[[Path], str]] = [
    lambda folder: "train.jsonl",
    lambda folder: "./train.jsonl",
    copied,
    linked,
    spelt,
]


def test_sides_that_share_nothing_pass(folder: Path) -> None:
    assert splits.check(config(folder)) == splits.SplitReport()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("side", ["validation", "evaluate"])
def test_one_file_on_both_sides_is_named_under_any_spelling(
    folder: Path, way: Callable[[Path], str], side: str
) -> None:
    path = way(folder)
    change: dict[str, Any] = {"validation": [path]} if side == "validation" else {
        "evaluate": {"config": "eval.yaml", "data": path}
    }  # fmt: skip
    (fault,) = splits.compare(config(folder, **change)).faults
    assert fault.startswith(f"{'validation' if side == 'validation' else 'evaluate.data'}: ")
    assert "is trained on" in fault and "train.jsonl of stage sft" in fault


@pytest.mark.parametrize("side", ["validation", "test"])
def test_an_id_on_both_sides_is_an_error_that_names_the_row_and_its_files(folder: Path, side: str) -> None:
    add(folder / f"{side}.jsonl", *rows("train1"))
    with pytest.raises(
        DataError,
        match=rf"1 rows are training rows, by their ids, such as 'train1' in {side}.jsonl like 'train1' in train",
    ):
        splits.check(config(folder))


def test_every_stage_and_every_file_is_compared(folder: Path) -> None:
    add(folder / "validation.jsonl", *rows("more2"))
    first = {"name": "one", "data": ["train.jsonl"], "validation": ["validation.jsonl"], "steps": 1}
    later = {"name": "two", "data": ["more.jsonl"], "steps": 1}
    (fault,) = splits.compare(config(folder, stages=[first, later])).faults
    assert "'more2' in validation.jsonl like 'more2' in more.jsonl" in fault
    later = {"name": "two", "data": ["train.jsonl", "more.jsonl"], "validation": ["test.jsonl"], "steps": 1}
    report = splits.compare(config(folder, stages=[{**first, "validation": []}, later]))
    assert not report.faults and len(report.warnings) == 1  # the validation rows are the evaluation's
    add(folder / "test.jsonl", *rows("train0"))
    assert len(splits.compare(config(folder, stages=[{**first, "validation": []}, later])).faults) == 2


def test_groups_prompts_and_pictures_are_warnings_with_counts(folder: Path, pictures: list[str]) -> None:
    shutil.copy(pictures[0], folder / "renamed.png")
    add(folder / "train.jsonl", *rows("g1", group="post"), image_row("p1", pictures[:1], "a", "yes"))
    twin = text_row("other", "is train0 so?", "yes")
    picture = image_row("p2", [str(folder / "renamed.png")], "b", "yes")
    add(folder / "validation.jsonl", *rows("g2", "g3", group="post"), twin, picture)
    report = splits.check(config(folder))
    assert report.overlap == {"validation": {"groups": 2, "prompts": 1, "pictures": 1}}
    assert [line.split(" rows ")[0] for line in report.warnings] == [
        "validation: 2",
        "validation: 1",
        "validation: 1",
    ]


def test_overlap_that_is_wanted_is_a_warning(folder: Path) -> None:
    report = splits.check(config(folder, validation=["train.jsonl"], on_overlap="warn"))
    assert not report.faults and "is trained on" in report.warnings[0]
    assert report.overlap == {"validation": {"ids": 3}}


def test_weights_are_not_chosen_by_the_rows_that_are_evaluated(folder: Path) -> None:
    evaluated = {"config": "eval.yaml", "data": "validation.jsonl"}
    report = splits.check(config(folder, evaluate=evaluated))
    assert len(report.warnings) == 1 and "3 rows are validated on, too" in report.warnings[0]
    with pytest.raises(DataError, match="stage sft chooses its weights by them"):
        splits.check(config(folder, evaluate=evaluated, best=True, eval_steps=1))


def test_rows_that_are_watched_may_be_training_rows_and_that_is_told(folder: Path) -> None:
    watch = {"data": "train.jsonl", "schema": "answer", "metrics": ["answers"]}
    report = splits.check(config(folder, watch=watch))
    assert any(line.startswith("watch.data: ") and "is trained on" in line for line in report.warnings)


def test_rows_beyond_the_limit_of_an_evaluation_do_not_count(folder: Path) -> None:
    add(folder / "test.jsonl", *rows("train1"))
    assert splits.check(config(folder, evaluate={"config": "eval.yaml", "set": ["limit=3"]})).faults == []


@pytest.mark.parametrize("key", ["data", "validation"])
@pytest.mark.parametrize("way", WAYS[1:])
def test_a_file_that_one_list_names_twice_is_refused(
    folder: Path, key: str, way: Callable[[Path], str]
) -> None:
    change = {key: ["train.jsonl", way(folder)], "validation": []} if key == "data" else {
        "data": ["more.jsonl"], key: ["train.jsonl", way(folder)]
    }  # fmt: skip
    with pytest.raises(ConfigError, match=f"stage sft: {key} names one file twice"):
        splits.check_files(config(folder, **change))


def test_a_folder_is_answered_with_the_files_in_it(folder: Path) -> None:
    for key in ("data", "validation"):
        with pytest.raises(
            DataError, match=r"is a folder; name one of its files: more\.jsonl, test\.jsonl, train\.jsonl"
        ):
            splits.check(config(folder, **{key: ["."]}))


# --------------------------------------------------------------------------------------- nothing to hold out

LONG = text_row("long", "berita " * 400, "yes", meta=META)
EMPTY: dict[str, tuple[list[str], str]] = {
    "empty": ([], "holds no row"),
    "blank lines": (["", "  ", ""], "holds no row"),
    "a header": (["id,messages"], "not JSON"),
    "too long": ([json.dumps(LONG)], "no validation row is left"),
    "weight 0": (
        [json.dumps(text_row("w", "a", "b") | {"messages": [
            {"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}
        ]})],
        "no validation row is left",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", EMPTY)
@pytest.mark.parametrize("command", ["check", "run"])
def test_validation_without_rows_is_named_before_the_first_step(
    monkeypatch: Any, capsys: Any, folder: Path, case: str, command: str
) -> None:
    lines, message = EMPTY[case]
    (folder / "none.jsonl").write_text("".join(line + "\n" for line in lines))
    first = {
        "name": "one",
        "data": ["train.jsonl"],
        "validation": ["validation.jsonl"],
        "steps": 1,
        "max_length": 64,
    }
    second = first | {"name": "two", "data": ["more.jsonl"], "validation": ["none.jsonl"]}
    config(folder, stages=[first, second])
    words = [command, "train.yaml", *(["--out", "out"] if command == "run" else [])]
    code, said, err = called(monkeypatch, capsys, *words)
    assert code == 2 and message in (said + err).replace("\n", " ")
    assert not list(folder.glob("out/**/started.json")), "nothing was trained"


@pytest.mark.parametrize("key", ["data", "validation"])
def test_a_stage_whose_modality_no_row_has_is_named_before_the_first_step(folder: Path, key: str) -> None:
    first = {"name": "one", "data": ["train.jsonl"], "steps": 1}
    second = first | {"name": "two", "modality": "image", "data": ["more.jsonl"]}
    if key == "validation":
        write_rows(folder / "more.jsonl", [image_row("p", ["x.png"], "a", "b")])
        second["validation"] = ["validation.jsonl"]
    with pytest.raises(DataError, match=f"stage two: no row of {key} is left"):
        splits.check_files(config(folder, stages=[first, second]))


@pytest.mark.parametrize("place", [
    "stages.0.data=[train.jsonl, empty.jsonl]", "evaluate.data=empty.jsonl",
    "watch={data: empty.jsonl, schema: answer, metrics: [answers]}",
])  # fmt: skip
@pytest.mark.parametrize("command", ["check", "run"])
def test_an_empty_file_is_named_wherever_it_stands(
    monkeypatch: Any, capsys: Any, folder: Path, place: str, command: str
) -> None:
    config(folder)
    (folder / "empty.jsonl").write_text("\n")
    words = [command, "train.yaml", "--set", place, *(["--out", "out"] if command == "run" else [])]
    code, said, err = called(monkeypatch, capsys, *words)
    assert code == 2 and "empty.jsonl" in said + err and "no row" in said + err
    assert not (folder / "out" / "stages").exists()


@pytest.mark.parametrize("place", [
    "evaluate.data=", "stages.0.validation=['']", "stages.0.data=['']", "adapter.warm_start=", "output=",
    "model.chat_template=",
])  # fmt: skip
def test_an_empty_name_is_refused_instead_of_meaning_none(
    monkeypatch: Any, capsys: Any, folder: Path, place: str
) -> None:
    config(folder)
    value = place if "[" in place else place + "''"
    code, _, err = called(monkeypatch, capsys, "check", "train.yaml", "--set", value)
    assert code == 2 and "at least 1 character" in err


def test_training_through_the_library_is_refused_too_and_its_warnings_reach_the_record(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(folder / "validation.jsonl", *rows("train0"))
    with pytest.raises(DataError, match="'train0'"):
        train(config(folder), folder / "out")
    assert not (folder / "out").exists()
    result = train(config(folder, on_overlap="warn"), folder / "out")
    assert result.run["overlap"] == {"validation": {"ids": 1}}
    assert "1 rows are training rows, by their ids" in caplog.text
