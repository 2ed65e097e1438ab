"""One run ends with base against tuned; a sweep ends with one comparison; neither loses work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.errors import BackendError, ConfigError
from dfkeval import evaluate, load_run
from dfkeval.models import tiny
from dfktrain import TrainConfig
from dfktrain.cli import app
from dfktrain.experiments import evaluate as scores
from dfktrain.experiments import sweep
from dfktrain.experiments.evaluate import FOLDER
from tests.helpers.models import text_row, write_rows


def called(monkeypatch: Any, capsys: Any, *words: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `dfktrain WORDS`, in this process."""
    monkeypatch.setattr(sys, "argv", ["dfktrain", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        app.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A task that eight steps teach, with a configuration that ends with its score."""
    rows = [
        text_row(
            f"r{at}", f"{at}?", "yes", meta={"group": str(at), "schema": "answer", "gold": {"answer": "yes"}}
        )
        for at in range(6)
    ]
    write_rows(tmp_path / "train.jsonl", rows)
    write_rows(tmp_path / "test.jsonl", rows[:4])
    (tmp_path / "eval.yaml").write_text(
        "data: nowhere.jsonl\nschema: answer\nbackend: {kind: transformers, model: none, adapter: none}\n"
        "metrics: [answers]\nsampling: {max_new_tokens: 4}\nresamples: 200\n"
    )
    (tmp_path / "train.yaml").write_text(
        "model: {name: tiny}\nadapter: {rank: 4}\nstages:\n"
        "  - {name: s, data: [train.jsonl], steps: 8, batch_size: 6, learning_rate: 5e-3, max_length: 64}\n"
        "evaluate: {config: eval.yaml, data: test.jsonl, before: true}\n"
    )
    return tmp_path


def test_a_run_ends_with_base_against_tuned(monkeypatch: Any, capsys: Any, project: Path) -> None:
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")  # --out starts here, the evaluation's paths at its file
    code, said, err = called(monkeypatch, capsys, "run", "../train.yaml", "--out", "out")
    assert code == 0, err
    assert "4 rows, base against tuned" in said and "answers.f1" in said
    assert said.rstrip().endswith(f"report: {Path('out') / FOLDER / 'report.html'}")
    out = project / "elsewhere/out"
    base, tuned = (load_run(out / FOLDER / side) for side in ("base", "tuned"))
    assert base.config.backend.adapter is None  # type: ignore[attr-defined]
    assert str(tuned.config.backend.adapter) == str(out / "adapter")  # type: ignore[attr-defined]
    assert tuned.summary["metrics"]["answers.exact"]["value"] == 1.0
    assert base.summary["metrics"]["answers.exact"]["value"] < 1.0
    assert "| answers.f1" in (out / FOLDER / "comparison.md").read_text()
    card = (out / "adapter/README.md").read_text()  # written again once there were scores
    shown = [f"{each.summary['metrics']['answers.exact']['value']:.3f}" for each in (base, tuned)]
    line = next(line for line in card.splitlines() if line.startswith("| answers.exact |"))
    assert [cell.split()[0] for cell in line.split("|")[2:4]] == shown and shown[1] == "1.000"
    assert "base against tuned" in (out / FOLDER / "report.html").read_text()


def test_the_weights_are_saved_before_anything_is_scored(
    monkeypatch: Any, capsys: Any, project: Path
) -> None:
    out, seen = project / "out", []

    def fails(*_: Any) -> None:
        seen.append((out / "adapter/adapter_model.safetensors").is_file() and (out / "run.json").is_file())
        raise BackendError("the card fell out")

    monkeypatch.setattr(scores, "score", fails)
    code, _, err = called(monkeypatch, capsys, "run", project / "train.yaml", "--out", out)
    assert (code, seen) == (2, [True]) and "the card fell out" in err
    assert f"the weights are saved in {out / 'adapter'}; the same command scores them" in err
    monkeypatch.undo()
    code, said, _ = called(monkeypatch, capsys, "run", project / "train.yaml", "--out", out)
    assert code == 0 and "base against tuned" in said  # trained weights are loaded, and scored now


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("evaluate.config=json_captionr", "did you mean 'json_captioner'"),
        ("evaluate.data=lost.jsonl", "lost.jsonl"),
        ('evaluate.set=["metrics=[labels]"]', "labels"),
        ('evaluate.set=["limitt=3"]', "did you mean 'limit'"),
        ('evaluate.set=["metrics=[bertscore]", "bertscore={model: ./none, layer: 1}"]', "encoder './none'"),
    ],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_wrong_evaluation_is_named_before_the_first_step(
    monkeypatch: Any, capsys: Any, project: Path, change: str, message: str, command: str
) -> None:
    words = [command, project / "train.yaml", "--set", change]
    code, said, err = called(
        monkeypatch, capsys, *words, *(["--out", project / "out"] if command == "run" else [])
    )
    assert code == 2 and message in said + err
    assert not (project / "out").exists()


def test_a_wholly_trained_model_is_asked_as_a_model(project: Path) -> None:
    made = {"model": {"name": "tiny"}, "adapter": {"kind": "full"}, "stages": [{"name": "s", "data": ["x"]}]}
    made |= {"evaluate": {"config": str(project / "eval.yaml"), "data": str(project / "test.jsonl")}}
    config = TrainConfig.model_validate(made)
    assert config.evaluate is not None
    backend = scores.evaluation_config(config, config.evaluate, project).backend
    assert (backend.model, backend.adapter) == (str(project), None)  # type: ignore[attr-defined]


def test_base_and_tuned_model_see_pictures_of_one_size(project: Path) -> None:
    made = {"model": {"name": "tiny"}, "stages": [{"name": "s", "data": ["x"], "max_pixels": 4096}]}
    made |= {"evaluate": {"config": str(project / "eval.yaml"), "data": str(project / "test.jsonl")}}
    config = TrainConfig.model_validate(made)
    assert config.evaluate is not None
    backends = [
        scores.evaluation_config(config, config.evaluate, folder).backend for folder in (None, project)
    ]
    assert [backend.max_pixels for backend in backends] == [4096, 4096]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("model", "way_out"),
    [({"chat_template": "own.jinja"}, "into the model's folder"), ({"kind": "llm"}, "backend openai")],
)
def test_what_could_not_be_asked_afterwards_is_refused_at_once(model: dict[str, str], way_out: str) -> None:
    made = {"model": {"name": "tiny"} | model, "stages": [{"name": "s", "data": ["x"]}]}
    with pytest.raises(ValueError, match=way_out):
        TrainConfig.model_validate(made | {"evaluate": {"config": "json_captioner"}})


# ------------------------------------------------------------------------------------------------ sweep


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
    said = said[said.index("| against") :]  # runs in this process speak first
    lines = [line.split(" | ") for line in said.splitlines() if line.startswith("| ")]
    assert [line[0].strip("| ") for line in lines] == ["against base", "base", *(
        f"learning_rate-{rate}" for rate in ("1e-9", "5e-3")
    )]  # fmt: skip
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
                json.dumps({"id": f"r{at}", "text": "yes" if at < right else "no", "finish_reason": "stop"})
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
    assert found.comparisons[1].b == "rank-8" and found.pools[2][1].runs == ("tuned", "tuned")
    assert sweep.table(found).splitlines()[-1].startswith("| rank-16 | ")


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
