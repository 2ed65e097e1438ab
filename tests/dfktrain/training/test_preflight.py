"""The preflight: what it counts is what training sees, and what it knows about versions and kernels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.config import bind
from dfktrain import TrainConfig, train
from dfktrain.cli import preflight_view
from dfktrain.config.model import AdapterConfig
from dfktrain.config.stage import Stage
from dfktrain.data.collator import Collator
from dfktrain.engines import Kernel, PackageVersion
from dfktrain.training.preflight import Preflight, StagePreflight, preflight, steps
from tests.helpers.models import text_row, write_rows


def config(base: Path, data: Path, **changes: Any) -> TrainConfig:
    stage = {"name": "s", "data": [str(data)], "batch_size": 3, "epochs": 2} | changes
    return TrainConfig.model_validate({"model": {"name": str(base)}, "stages": [stage]})


def test_the_plan_counts_what_training_then_sees(base_folder: Path, train_file: Path, tmp_path: Path) -> None:
    for more in ({}, {"accumulation": 2}, {"batch_tokens": 400}, {"batch_tokens": 400, "packing": True}):
        settings: dict[str, Any] = {"batch_size": 3, **more}
        if "batch_tokens" in more:
            del settings["batch_size"]
        stage = {"name": "s", "data": [str(train_file)], "epochs": 1} | settings
        made = TrainConfig.model_validate({"model": {"name": str(base_folder)}, "stages": [stage]})
        found = preflight(made).stages[0]
        result = train(made, tmp_path / str(len(list(tmp_path.iterdir()))))
        done = result.stages[0]
        assert found.steps == done.steps, more
        assert sum(found.lengths) == done.tokens
        assert sum(found.scored) == done.scored_tokens


def test_sizes_are_those_of_the_trained_model(base_folder: Path, train_file: Path, tmp_path: Path) -> None:
    made = config(base_folder, train_file, epochs=None, steps=1)
    size = preflight(made).size
    run = train(made, tmp_path / "out").run
    assert size is not None
    assert size.trained == run["trained_parameters"]
    assert size.modules == run["modules"]


def test_no_weights_are_needed(base_folder: Path, train_file: Path, tmp_path: Path) -> None:
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(base_folder, bare)
    (bare / "model.safetensors").unlink()
    report = preflight(config(bare, train_file))
    assert report.faults == []
    assert report.memory_gib and report.seconds


def test_every_row_that_would_be_refused_is_named_and_the_rest_is_counted(
    base_folder: Path, tmp_path: Path
) -> None:
    rows = [text_row("fine", "a", "b"), text_row("hollow", "a", ""), text_row("long", "berita " * 90, "b")]
    report = preflight(config(base_folder, write_rows(tmp_path / "x.jsonl", rows), max_length=60))
    assert len(report.stages[0].refused) == 2 and len(report.stages[0].samples) == 1
    assert report.faults == ["stage s: 2 rows cannot be trained on"]


def test_rows_whose_text_says_a_control_token_are_told_of(base_folder: Path, tmp_path: Path) -> None:
    rows = [text_row("fine", "a < b", "c"), text_row("bad", "a<|im_end|>", "b"), text_row("odd", "<|x", "b")]
    notes = preflight(config(base_folder, write_rows(tmp_path / "x.jsonl", rows))).stages[0].notes
    (told,) = [note for note in notes if "control token" in note]
    assert told.startswith("1 rows say a control token in their text, such as bad: <|im_end|>")


def test_a_stage_whose_rows_are_all_refused_says_that_and_nothing_else(
    base_folder: Path, tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "x.jsonl", [text_row("hollow", "a", "")])
    assert preflight(config(base_folder, data)).faults == ["stage s: 1 rows cannot be trained on"]
    assert "holds no row" in preflight(config(base_folder, write_rows(tmp_path / "y", []))).faults[0]


def test_an_engine_that_cannot_run_here_is_a_fault_and_the_plan_goes_on(
    base_folder: Path, train_file: Path
) -> None:
    made = config(base_folder, train_file).model_copy(update={"engine": "unsloth"})
    report = preflight(made)
    assert report.faults[0].startswith("engine 'unsloth' ") and report.stages[0].lengths
    assert any("trains in bf16, not in fp32" in fault for fault in report.faults)


def test_a_module_list_that_does_not_fit_the_model_is_found_before_training(
    base_folder: Path, train_file: Path
) -> None:
    made = config(base_folder, train_file)
    wrong = made.model_copy(
        update={"adapter": made.adapter.model_copy(update={"target_modules": ("q_prj",)})}
    )
    assert "did you mean 'q_proj'" in preflight(wrong).faults[0]


def test_the_shown_row_marks_exactly_the_scored_text(processor: Any, pictures: list[str]) -> None:
    from tests.helpers.models import image_row

    collator = Collator(processor)
    markup = preflight_view.coloured(
        collator.encode(image_row("i", pictures[:1], "say [x]", "Label: Fitnah")), collator
    )
    assert "[bold green]Label: Fitnah<|im_end|>[/bold green]" in markup
    assert "image tokens>[/magenta]" in markup
    marked = preflight_view.coloured(
        collator.encode(image_row("i", pictures[:1], "x", "Label: Fitnah")), collator, marked=True
    )
    assert "⟦[bold green]Label: Fitnah<|im_end|>[/bold green]⟧" in marked and marked.count("⟦") == 1
    assert "say \\[x]" in markup  # text that looks like markup is shown as text


def test_steps_follow_epochs_batches_accumulation_and_ranks() -> None:
    def count(ranks: int = 1, **changes: Any) -> int:
        return steps(bind({"name": "s", "data": ["x"], **changes}, Stage), [10] * 100, ranks)

    assert count(batch_size=8) == 13
    assert count(batch_size=8, accumulation=4) == 4
    assert count(batch_size=8, accumulation=4, epochs=3) == 12
    assert count(batch_size=8, ranks=2) == 7
    assert count(steps=5) == 5


def test_a_spread_shows_the_ends_and_where_values_lie() -> None:
    assert preflight_view.histogram([1, 1, 1, 5], bins=4) == "|█  ▄|"


def test_the_plan_is_json_free_of_surprises(base_folder: Path, train_file: Path) -> None:
    report = preflight(config(base_folder, train_file))
    assert json.dumps(report.stages[0].left_out) == "{}"
    assert report.engine == "transformers" and report.precision.startswith("fp32")


def test_a_whole_model_says_what_it_keeps_untrained(base_folder: Path, train_file: Path) -> None:
    made = config(base_folder, train_file).model_copy(update={"adapter": AdapterConfig(kind="full")})
    assert [
        note for note in preflight(made).notes if "^mtp.*" in note and "kept as the base has them" in note
    ]
    assert not [note for note in preflight(config(base_folder, train_file)).notes if "mtp" in note]


def test_brackets_in_what_is_said_are_shown_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    stage = StagePreflight("s", left_out={"field [label]": 2})
    extra = PackageVersion("torch", "2.0", 'pip install "dfk[train]"')
    kernels = [Kernel("attention", "sdpa", "[eager] is slower")]
    preflight_view.write(
        Preflight(
            stages=[stage], versions=[extra], kernels=kernels, notes=["write [a, b]"], faults=["not [c]"]
        )
    )
    said = capsys.readouterr().out
    for words in (
        "field [label]",
        'pip install "dfk[train]"',
        "[eager] is slower",
        "write [a, b]",
        "not [c]",
    ):
        assert words in said
