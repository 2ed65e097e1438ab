"""Curves, verdicts, time and memory of a run, and the page that tells them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dfkdata.common.errors import ConfigError, DataError
from dfktrain import TrainConfig
from dfktrain.cli import app
from dfktrain.reports import curves
from dfktrain.reports.curves import page, plot
from dfktrain.reports.curves.diagnosis import FEWEST, diagnose
from dfktrain.reports.curves.usage import Usage, UsageMeter
from dfktrain.training.callbacks.progress import PAUSE_S, CurvesCallback
from dfktrain.training.run import train
from tests.helpers.models import text_row, write_rows

pytestmark = pytest.mark.usefixtures("drawn_curves")


FALLING = [(step, 2.0 / step) for step in range(1, 31)]
LEVEL = [(step, 1.0 + 0.02 * (-1) ** step) for step in range(1, 31)]


@pytest.mark.parametrize(
    ("training", "validation", "kind", "since"),
    [
        (FALLING, [(10, 0.9), (20, 0.6), (30, 0.5)], "learning", None),
        (FALLING, [(10, 0.9), (20, 0.6), (30, 0.8)], "overfitting", 20),
        (FALLING, [(10, 0.9), (20, 1.1), (30, 1.4)], "overfitting", 10),
        (FALLING, [(10, 0.6), (20, 0.6), (30, 0.603)], "learning", None),  # within one per cent
        (FALLING, [], "learning", None),
        (LEVEL, [(10, 1.0), (30, 1.0)], "flat", None),
        (LEVEL, [(10, 1.0), (30, 2.0)], "flat", None),  # nothing was learned, so nothing is overfitted
        ([(step, 1.0 + 0.1 * step) for step in range(1, 31)], [(30, 3.0)], "flat", None),
        (FALLING[: FEWEST - 1], [(4, 1.0)], "too short", None),
        ([], [], "too short", None),
    ],
)
def test_a_verdict_follows_both_losses(training: Any, validation: Any, kind: str, since: int | None) -> None:
    found = diagnose(training, validation)
    assert (found.kind, found.since) == (kind, since), found.text


def test_noise_that_falls_by_chance_is_no_learning() -> None:
    noisy = [(step, 1.0 + 0.3 * ((step * 7919) % 13 - 6) / 6 - 0.001 * step) for step in range(1, 31)]
    assert diagnose(noisy).kind == "flat"


def test_losses_that_are_no_numbers_are_left_out() -> None:
    broken = [*FALLING, (31, float("nan")), (32, float("inf"))]
    assert diagnose(broken, [(10, 0.9), (20, float("nan")), (30, 0.5)]).kind == "learning"


def test_an_overfitted_run_is_told_which_checkpoint_to_take() -> None:
    text = diagnose(FALLING, [(10, 0.9), (20, 0.6), (30, 0.8)]).text
    assert "since step 20" in text and "0.6000 to 0.8000" in text and "best: true" in text


def test_everything_on_the_page_is_escaped_and_nothing_is_loaded() -> None:
    lines = [{"step": step, "loss": loss} for step, loss in FALLING]
    stages = [curves.StageCurve("<script>x</script>", lines, 30, finished=False)]
    made = page.html("a & b <i>", stages, finished=False)
    assert "<script>x" not in made and "&lt;script&gt;" in made and "a &amp; b &lt;i&gt;" in made
    assert "default-src 'none'" in made
    assert not re.search(r"""(src|href)=["']?https?:""", made)


def test_the_page_comes_back_while_training_and_rests_when_finished() -> None:
    stages = [curves.StageCurve("s", [], 30, finished=False)]
    assert '<meta http-equiv="refresh" content="10">' in page.html("run", stages, finished=False)
    assert 'http-equiv="refresh"' not in page.html("run", stages, finished=True)


def test_the_page_is_written_at_most_once_a_pause(tmp_path: Path) -> None:
    from transformers import TrainerState

    now = [0.0]
    recorder = CurvesCallback(tmp_path / "training.html", "run", "s", [], lambda: now[0])
    state = TrainerState(max_steps=9, log_history=[{"step": 1, "loss": 2.5}])
    written = []
    for at in (0.0, PAUSE_S - 0.1, PAUSE_S + 0.1):
        now[0] = at
        (tmp_path / "training.html").unlink(missing_ok=True)
        recorder.on_log(None, state, None)  # type: ignore[arg-type]  # it reads the state alone
        written.append((tmp_path / "training.html").exists())
    assert written == [True, False, True]
    state.is_world_process_zero = False
    (tmp_path / "training.html").unlink()
    now[0] = 100.0
    recorder.on_log(None, state, None)  # type: ignore[arg-type]
    assert not (tmp_path / "training.html").exists()


def test_usage_tells_the_share_of_a_card_and_none_on_a_processor() -> None:
    card = Usage("H200", 300.0, 1000.0, 70.0, 10.0, 140.0)
    assert card.share == 0.5
    said = dict(page.described(card))
    assert (
        said["Peak memory"] == "70.00 GiB, 50.0% of 140.0 GiB" and said["Of it for training"] == "60.00 GiB"
    )
    assert said["Time"] == "300.0 s (5.0 minutes)"
    here = UsageMeter().read(2.0, 500)
    assert here.tokens_per_second == 250.0 and here.share is None and 0.01 < here.peak_gib < 200


@pytest.fixture(scope="module")
def finished(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two stages with validation rows."""
    out = tmp_path_factory.mktemp("curves")
    rows = [text_row(f"ask {index}", f"answer {index}", str(index)) for index in range(6)]
    data = write_rows(out / "rows.jsonl", rows)
    stage = {"data": [str(data)], "steps": 8, "batch_size": 2, "learning_rate": 1e-2, "log_steps": 1}
    stages = [
        {"name": "one", **stage, "validation": [str(data)], "eval_steps": 4},
        {"name": "two", **stage},
    ]
    settings = {"model": {"name": str(base_folder)}, "stages": stages, "on_overlap": "warn"}
    train(TrainConfig.model_validate(settings), out / "run")
    return out / "run"


def test_a_run_ends_with_its_page_and_a_picture_a_stage(finished: Path) -> None:
    made = (finished / "training.html").read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' not in made and made.count("<section id=") == 2
    assert made.count("<polyline") == 3 + 4  # training twice, validation once; learning rate and norm twice
    stages = curves.stage_curves(finished)
    assert [stage.name for stage in stages] == ["one", "two"]
    assert len(stages[0].training) == 8 and [step for step, _ in stages[0].validation] == [4, 8]
    for stage in stages:
        assert stage.diagnosis.text in made
        assert stage.usage is not None and stage.usage.tokens_per_second > 0
        with Image.open(finished / "stages" / stage.name / "curves.png") as picture:
            assert picture.format == "PNG" and picture.width >= 900
        vector = (finished / "stages" / stage.name / "curves.svg").read_text(encoding="utf-8")
        assert "<svg" in vector and "<dc:date>" not in vector


def test_equal_curves_are_equal_pictures(finished: Path, tmp_path: Path) -> None:
    stage = curves.stage_curves(finished)[0]
    for suffix in plot.FORMATS:
        one, two = (plot.draw(stage, tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
        assert one == two
    with pytest.raises(ConfigError, match=r"\.png or \.svg"):
        plot.draw(stage, tmp_path / "a.pdf")


def watched_stage() -> curves.StageCurve:
    """Twenty steps, watched at three of them by two metrics, one of five numbers."""
    names = ["labels.f1", "labels.a", "labels.b", "labels.c", "labels.d", "validity.schema_valid"]
    history: list[dict[str, float]] = [{"step": step, "loss": 2.0 / step} for step in range(1, 21)]
    for step, value in ((0, 0.0), (10, 0.25), (20, 0.75)):
        history.append({"step": step} | {f"watch/{name}": value for name in names})
    return curves.StageCurve("s", history, 20, finished=True)


def test_watched_answers_are_told_a_metric_a_panel_and_at_most_four_lines_each() -> None:
    stages = watched_stage().watched
    assert [(metric, list(lines)) for metric, lines in stages] == [
        ("labels", ["labels.f1", "labels.a", "labels.b", "labels.c"]),
        ("labels", ["labels.d"]),
        ("validity", ["validity.schema_valid"]),
    ]
    assert stages[2][1]["validity.schema_valid"] == [(0, 0.0), (10, 0.25), (20, 0.75)]
    assert curves.StageCurve("s", [{"step": 1, "loss": 1.0}], 1, finished=True).watched == []
    assert len(watched_stage().training) == 20  # a watched line is no loss


def test_watched_answers_are_drawn_on_the_page_and_in_the_picture(tmp_path: Path) -> None:
    made = page.html("run", [watched_stage()], finished=True)
    assert (
        made.count("<polyline") == 1 + 6 and made.count("Answers: labels") == 6
    )  # caption, its label, its table
    heights = [float(at) for at in re.findall(r'cy="([\d.]+)"[^>]*><title>step \d+: [\d.]+</title>', made)]
    rising = heights[20:23]  # behind the losses
    assert rising[0] > rising[1] > rising[2]
    plain = curves.StageCurve(
        "s", [line for line in watched_stage().history if "loss" in line], 20, finished=True
    )
    sizes = []
    for name, stage in (("a", plain), ("b", watched_stage())):
        with Image.open(plot.draw(stage, tmp_path / f"{name}.png")) as picture:
            sizes.append(picture.size)
    assert sizes == [(960, 540), (960, 540 + 3 * 360)]


def test_the_live_page_draws_what_was_watched(tmp_path: Path) -> None:
    from transformers import TrainerState

    recorder = CurvesCallback(tmp_path / "training.html", "run", "s", [], lambda: 0.0)
    history = [*watched_stage().history, {"step": 20, "train_runtime": 3.0}]
    recorder.on_log(None, TrainerState(max_steps=40, log_history=history), None)  # type: ignore[arg-type]
    made = (tmp_path / "training.html").read_text(encoding="utf-8")
    assert made.count("<polyline") == 1 + 6 and "step 20 of 40" in made


def test_a_finished_run_that_is_started_again_tells_the_same(finished: Path, base_folder: Path) -> None:
    before = (finished / "training.html").read_text(encoding="utf-8")
    report = json.loads((finished / "run.json").read_text(encoding="utf-8"))
    train(TrainConfig.model_validate(report["config"]), finished)
    assert (finished / "training.html").read_text(encoding="utf-8") == before


def test_the_curves_command_draws_a_run_again(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished / "training.html").unlink()
    (finished / "stages" / "one" / "curves.png").unlink()
    with pytest.raises(SystemExit) as ended:
        app.app(["curves", str(finished)])
    assert ended.value.code == 0
    assert (finished / "training.html").is_file() and (finished / "stages" / "one" / "curves.png").is_file()
    said = capsys.readouterr().out
    assert "one: " in said and "two: " in said and "training.html" in said


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not the run\.json of a finished run"):
        curves.stage_curves(tmp_path)
