"""A sweep runs every point once and ends with one comparison; a failed point loses no work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.errors import BackendError, ConfigError
from dfkeval import evaluate
from dfkeval.models import tiny
from dfktrain.cli import app
from dfktrain.experiments import sweep
from dfktrain.experiments.evaluate import FOLDER
from tests.helpers.commands import called


def test_points_are_all_combinations_with_safe_names() -> None:
    made = sweep.points(
        ["stages.0.learning_rate=1e-4,2e-4", "adapter.target_modules=[q_proj,v_proj],language"]
    )
    assert [point.name for point in made][:2] == [
        "learning_rate-1e-4_target_modules--q_proj-v_proj",
        "learning_rate-1e-4_target_modules-language",
    ]
    assert made[2].changes == ("stages.0.learning_rate=2e-4", "adapter.target_modules=[q_proj,v_proj]")
    assert sweep.points(["stages.0.steps=1,2", "stages.1.steps=3"])[0].name == (
        "stages.0.steps-1_stages.1.steps-3"
    )


@pytest.mark.parametrize(
    "vary", [["stages"], ["=1,2"], ["a.rank=1,,2"], ["a.rank=1", "a.rank=2"], ["a.rank=1,1"], ["seed=1,2"]]
)
def test_a_wrong_axis_is_refused(vary: list[str]) -> None:
    with pytest.raises(ConfigError):
        sweep.points(vary)


def in_this_process(command: list[str], log: Path) -> int:
    """The command as it is, without the seconds that a new process takes to import torch."""
    log.parent.mkdir(parents=True, exist_ok=True)
    app.app(command[3:], standalone_mode=False)
    return 0


@pytest.mark.parametrize("launch", ["in this process", pytest.param("own processes", marks=pytest.mark.slow)])
def test_a_sweep_trains_each_point_and_ends_in_one_comparison(
    monkeypatch: Any, capsys: Any, project: Path, launch: str
) -> None:
    if launch == "in this process":
        monkeypatch.setattr(sweep, "_process", in_this_process)
    out = project / "sweep"
    words = ["sweep", project / "train.yaml", "--out", out, "--vary", "stages.0.learning_rate=1e-9,5e-3"]
    code, said, err = called(monkeypatch, capsys, *words)
    assert code == 0, err
    said = said[said.index("against base") :]  # runs in this process speak first
    names = [line.split("  ")[0] for line in said.partition("\n\n")[0].splitlines()]
    assert names == ["against base", "base", *(f"learning_rate-{rate}" for rate in ("1e-9", "5e-3"))]
    assert not (out / "learning_rate-5e-3/seed-42/evaluation/base").exists()  # the base is asked once
    code, again, err = called(monkeypatch, capsys, *words)
    assert code == 0 and again == said
    assert err.count("finished before") == 2
    other = [*words, "--set", "adapter.rank=8"]
    code, _, err = called(monkeypatch, capsys, *other)
    assert code == 2 and "another configuration" in err


def fake_launch(failing: set[str], asked: list[str]) -> sweep.Launch:
    """Instead of training: the stored answers "yes" and "no", or a failure."""

    def launch(command: list[str], log: Path) -> int:
        out = log.parent
        name = f"{out.parent.name}/{out.name}"
        asked.append(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        if name in failing:
            log.write_text("step 1\nout of memory\n\n")
            return 1
        answers = out / "answers.jsonl"
        right = 3 if "rank-8" in name else 1
        answers.write_text(
            "".join(
                json.dumps({"id": f"t{at}", "text": "yes" if at < right else "no", "finish_reason": "stop"})
                + "\n"
                for at in range(4)
            )
        )
        config = {
            "data": str(out.parents[2] / "test.jsonl"),
            "schema": "answer",
            "metrics": ["answers", "rouge"],
        }
        config |= {"backend": {"kind": "scripted", "completions": str(answers)}, "resamples": 200}
        path = out / "eval.yaml"
        path.write_text(json.dumps(config))
        evaluate(path, out / FOLDER / "tuned")
        if "evaluate.before=false" not in command:
            evaluate(path, out / FOLDER / "base")
        (out / FOLDER / "report.html").write_text("x")
        (out / "run.json").write_text("{}")
        return 0

    return launch


def test_a_failed_point_stops_no_other_and_is_done_on_the_next_call(project: Path) -> None:
    asked: list[str] = []
    plan = sweep.Sweep(project / "train.yaml", sweep.points(["adapter.rank=4,8,16"]), (1, 2))
    out, said = project / "sweep", list[str]()
    found = sweep.run(plan, out, said.append, fake_launch({"rank-8/seed-2"}, asked))
    assert found.failed == {"rank-8/seed-2": "out of memory"}
    assert [name for name, _ in found.pools] == ["base", "rank-4", "rank-16"]
    assert len(asked) == 6
    asked.clear()
    found = sweep.run(plan, out, said.append, fake_launch(set(), asked))
    assert asked == ["rank-8/seed-2"] and not found.failed
    assert [name for name, _ in found.pools] == ["base", "rank-4", "rank-8", "rank-16"]
    change = found.comparisons[1].differences["answers.exact"]
    assert (change.value, found.comparisons[1].n) == (pytest.approx(0.5), 4)
    assert found.comparisons[1].b == "rank-8" and found.pools[2][1].runs == ("rank-8 seed 1", "rank-8 seed 2")
    assert sweep.table(found).rows[-1][0] == "rank-16"


def test_the_base_is_asked_by_the_next_point_where_the_first_one_fails(project: Path) -> None:
    plan = sweep.Sweep(project / "train.yaml", sweep.points(["adapter.rank=4,8,16"]), (1,))
    out = project / "sweep"
    found = sweep.run(plan, out, [].append, fake_launch({"rank-4/seed-1"}, []))
    assert [name for name, _ in found.pools] == ["base", "rank-8", "rank-16"]
    assert [path.parents[2].name for path in out.glob(f"*/*/{FOLDER}/base")] == ["rank-8"]  # once


def test_points_with_different_bases_are_compared_without_one(project: Path) -> None:
    (project / "other").symlink_to(tiny.path())
    plan = sweep.Sweep(project / "train.yaml", sweep.points([f"model.name=tiny,{project / 'other'}"]), (1,))
    found = sweep.run(plan, project / "sweep", [].append, fake_launch(set(), []))
    assert "base" not in [name for name, _ in found.pools] and len(found.pools) == 2


def test_where_every_point_fails_the_reasons_are_said(project: Path) -> None:
    plan = sweep.Sweep(project / "train.yaml", sweep.points(["adapter.rank=4"]), (1,))
    with pytest.raises(BackendError, match="rank-4/seed-1: out of memory"):
        sweep.run(plan, project / "sweep", [].append, fake_launch({"rank-4/seed-1"}, []))


def test_a_sweep_without_an_evaluation_is_refused(project: Path) -> None:
    plan = sweep.Sweep(project / "train.yaml", sweep.points([]), (1,), changes=("evaluate=null",))
    with pytest.raises(ConfigError, match="needs an evaluate: section"):
        sweep.run(plan, project / "sweep", [].append, fake_launch(set(), []))
