"""One run ends with base against tuned; a sweep ends with one comparison; neither loses work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.errors import BackendError
from dfkeval import load_run
from dfktrain import TrainConfig
from dfktrain.experiments import evaluate as scores
from dfktrain.experiments.evaluate import FOLDER
from tests.helpers.commands import called
from tests.helpers.models import write_rows


def test_a_run_ends_with_base_against_tuned(monkeypatch: Any, capsys: Any, project: Path) -> None:
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")  # --out starts here, the evaluation's paths at its file
    code, said, err = called(monkeypatch, capsys, "run", "../train.yaml", "--out", "out")
    assert code == 0, err
    assert "base -> tuned, 4 common rows" in said and "answers.f1" in said
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
    assert "Base against tuned" in (out / FOLDER / "report.html").read_text()


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
    assert code == 0 and "base -> tuned" in said  # trained weights are loaded, and scored now


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


def test_a_metric_without_gold_fails_the_command_after_the_weights_are_saved(
    monkeypatch: Any, capsys: Any, project: Path
) -> None:
    asked = {"messages": [{"role": "user", "content": "1?"}], "images": [], "meta": {"schema": "answer"}}
    write_rows(project / "test.jsonl", [asked | {"id": "t0"}, asked | {"id": "t1"}])
    code, _, err = called(monkeypatch, capsys, "run", project / "train.yaml", "--out", project / "out")
    assert code == 1 and "tuned: metric answers has no number: no row has usable gold for it" in err
    assert (project / "out/adapter/adapter_model.safetensors").is_file()
    assert "metric answers has no number" in (project / "out" / FOLDER / "comparison.md").read_text()
    assert "**Note:** metric answers has no number" in (project / "out/adapter/README.md").read_text()


def test_scores_on_rows_that_were_trained_on_say_so_everywhere(
    monkeypatch: Any, capsys: Any, project: Path
) -> None:
    test = (project / "test.jsonl").read_text()
    (project / "train.jsonl").write_text((project / "train.jsonl").read_text() + test)
    words = ["run", project / "train.yaml", "--out", project / "out"]
    code, _, err = called(monkeypatch, capsys, *words)
    assert code == 2 and "evaluate.data: 4 rows are training rows, by their ids" in err
    code, _, err = called(monkeypatch, capsys, *words, "--set", "on_overlap=warn")
    assert code == 0, err
    line = "shared with training: 4 rows are training rows, by their ids"
    folder = project / "out" / FOLDER
    assert line in err and load_run(folder / "tuned").summary["overlap"] == {"ids": 4}
    pages = [
        folder / "report.html",
        folder / "comparison.md",
        folder / "base/report.md",
        folder / "tuned/report.html",
    ]
    for page in [*pages, project / "out/adapter/README.md"]:
        assert line in page.read_text(), page
