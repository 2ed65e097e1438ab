"""Inputs that are wrong or odd end as one failed request or one message, never as the end of a run."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dfkdata.common.errors import BackendError, ConfigError, DataError
from dfkeval import reports
from dfkeval.backends._local.prompts import RenderedPrompt
from dfkeval.backends.transformers import Transformers
from dfkeval.evaluation import evaluate
from dfkeval.models import loader
from dfkeval.models import tiny as tiny_model
from dfkeval.runs.config import EvalConfig
from dfkeval.runs.run import load_run
from dfkeval.types import Completion, Request, Sampling
from tests.helpers.runs import DFK, config_of, gold_answers, row_of, write_answers, write_rows

SHORT = Sampling(max_new_tokens=6)


@pytest.fixture(scope="module")
def tiny() -> loader.Loaded:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return loader.load("tiny", dtype="float32", device="cpu")


def asked(name: str, *images: str | Path, places: int | None = None) -> Request:
    parts: list[dict[str, Any]] = [{"type": "image"}] * (len(images) if places is None else places)
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": f"kata {name}"}]}]
    return Request(id=name, messages=messages, images=tuple(map(str, images)))


def answers(tiny: loader.Loaded, *requests: Request, sampling: Sampling = SHORT) -> dict[str, Completion]:
    return {each.id: each for each in Transformers(tiny).generate(requests, sampling)}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    image = Image.effect_noise((64, 64), 90).convert("RGB")
    image.save(tmp_path / "whole.png")
    return tmp_path / "whole.png"


def test_a_half_written_image_is_a_failed_request_and_its_neighbours_are_answered(
    tiny: loader.Loaded, picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "half.png").write_bytes(picture.read_bytes()[:2000])
    got = answers(tiny, asked("a", picture), asked("b", tmp_path / "half.png"), asked("c"))
    assert [got[name].error is None for name in "abc"] == [True, False, True]
    assert "half.png" in (got["b"].error or "")
    assert got["a"].text == answers(tiny, asked("a", picture))["a"].text


@pytest.mark.parametrize("places", [0, 2])
def test_images_without_a_place_in_the_turns_are_a_failed_request(
    tiny: loader.Loaded, picture: Path, places: int
) -> None:
    got = answers(tiny, asked("a", picture, places=places), asked("b", picture))
    assert f"{places} places for images, and the row has 1 images" in (got["a"].error or "")
    assert got["b"].error is None


def test_an_image_inside_the_row_is_seen_like_one_in_a_file(tiny: loader.Loaded, picture: Path) -> None:
    inside = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    got = answers(tiny, asked("a", picture)), answers(tiny, asked("a", inside))
    assert got[0]["a"].text == got[1]["a"].text
    assert got[0]["a"].n_prompt_tokens == got[1]["a"].n_prompt_tokens
    broken = answers(tiny, asked("a", "data:image/png;base64,@@"))["a"]
    assert broken.finish_reason == "error"


def test_the_models_own_generation_settings_do_not_leak_in(
    tiny: loader.Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answers(tiny, asked("a"))["a"].text
    own = tiny.model.generation_config
    first = tiny.processor.tokenizer.encode(before)[0]
    for name, value in (("suppress_tokens", [first]), ("no_repeat_ngram_size", 1), ("do_sample", True)):
        monkeypatch.setattr(own, name, value)
    assert answers(tiny, asked("a"))["a"].text == before
    assert tiny.model.generation_config is own


def test_padding_after_a_stop_string_is_not_counted_as_output(tiny: loader.Loaded) -> None:
    tokenizer = tiny.processor.tokenizer
    backend, word = Transformers(tiny), tokenizer.encode("kata nomor")
    stop, pad = Sampling(stop=("kata nomor",)), 1 + max(tokenizer.pad_token_id, tokenizer.eos_token_id)
    tiny.processor.tokenizer.pad_token_id, before = pad, tokenizer.pad_token_id
    try:
        prompt = RenderedPrompt(Request(id="a", messages=[]), "", 5)
        got = backend.generator.completion(prompt, "a", [*word, pad, pad, pad], 5, stop, (0.1, None))
    finally:
        tiny.processor.tokenizer.pad_token_id = before
    assert (got.text, got.n_output_tokens) == ("kata nomor", len(word))


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 character"):
        Sampling(stop=("",))


def test_a_device_that_is_not_there_is_said_in_words() -> None:
    with pytest.raises(ConfigError, match=r"device 'gpu' cannot be used here .* choose auto or cpu"):
        loader.load("tiny", device="gpu")


def test_broken_weights_are_said_in_words(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model.path(), folder)
    for path in folder.glob("*.safetensors"):
        path.write_bytes(b"\xff" * 64)
    with pytest.raises(BackendError, match="cannot be loaded"):
        loader.load(folder, device="cpu")


def test_a_pickled_adapter_is_refused_before_anything_of_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "adapter_model.bin").write_bytes(b"never to be unpickled")
    with pytest.raises(ConfigError, match="pickled adapters are not loaded"):
        loader.load("tiny", adapter=tmp_path, device="cpu")


@pytest.fixture
def config(tmp_path: Path) -> EvalConfig:
    data = write_rows(tmp_path / "test.jsonl", DFK, 4)
    return config_of(data, write_answers(tmp_path / "answers.jsonl", gold_answers(DFK, 4)), ["validity"])


def test_rows_with_images_inside_can_be_evaluated_and_are_told_apart(
    config: EvalConfig, tmp_path: Path
) -> None:
    rows = [row_of(0, DFK) | {"id": f"r00{index}", "images": ["data:image/png;base64," + "AB"[index] * 5000]}
            for index in range(2)]  # fmt: skip
    config.data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = evaluate.evaluate(config, tmp_path / "run")
    assert run.summary["outcomes"] == {"ok": 2}
    assert run.samples[0].key != run.samples[1].key


@pytest.mark.parametrize(
    "turns", [[], ["hello"], [["x"]], [{"content": "x"}], [{"role": "user", "content": 5}]]
)
def test_a_row_whose_turns_are_none_is_named(config: EvalConfig, tmp_path: Path, turns: list[Any]) -> None:
    config.data.write_text(json.dumps(row_of(3, DFK) | {"messages": turns}) + "\n")
    with pytest.raises(DataError, match=r"test\.jsonl(:1: a turn of |: row 'r003': a turn )"):
        evaluate.evaluate(config, tmp_path / "run")


def test_a_run_of_another_version_is_one_message(config: EvalConfig, tmp_path: Path) -> None:
    path = evaluate.evaluate(config, tmp_path / "run").folder / "config.json"
    record = json.loads(path.read_text())
    record["config"]["metricz"] = []
    path.write_text(json.dumps(record))
    for call in (load_run, evaluate.score):
        with pytest.raises(ConfigError, match=r"config\.json: metricz: unknown key"):
            call(tmp_path / "run")


def test_a_file_in_the_place_of_the_run_is_one_message(config: EvalConfig, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ConfigError, match="is a file; give another --out"):
        evaluate.evaluate(config, tmp_path / "run")


def test_a_run_that_was_killed_at_its_very_start_can_be_started_again(
    config: EvalConfig, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json.part").write_text('{"form')
    assert evaluate.evaluate(config, tmp_path / "run").summary["n"] == 4


def test_two_metrics_of_one_name_are_refused(
    config: EvalConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acme_metrics").mkdir()
    (tmp_path / "acme_metrics" / "validity.py").write_text("from dfkeval.metrics.rouge import METRIC\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    both = config.model_copy(update={"metrics": ("validity", "acme_metrics.validity")})
    with pytest.raises(ConfigError, match="written twice"):
        evaluate.evaluate(both, tmp_path / "run")


def test_a_failed_answer_in_the_markdown_report_is_a_code_block_and_no_markup(
    config: EvalConfig, tmp_path: Path
) -> None:
    evil = "# heading\n<img src=x>\n- item"
    write_answers(tmp_path / "answers.jsonl", [(f"r00{index}", evil) for index in range(4)])
    text = reports.markdown(evaluate.evaluate(config, tmp_path / "run"))
    lines = text[text.index("## Answers that are not valid") :].splitlines()
    shown = [line for line in lines if line.strip() in evil.splitlines()]
    assert len(shown) == 12
    assert all(
        line.startswith("      ") for line in shown
    )  # two columns of the list item, four of a code block


def test_a_picture_that_was_drawn_anew_is_shown_anew(config: EvalConfig, tmp_path: Path) -> None:
    import os

    config.data.write_text(json.dumps(row_of(0, DFK) | {"images": ["p.png"]}) + "\n")
    pages = []
    for stamp, colour in enumerate(("red", "blue")):
        Image.new("RGB", (9, 9), colour).save(tmp_path / "p.png")
        os.utime(tmp_path / "p.png", (stamp, stamp))
        pages.append(
            reports.page("t", [evaluate.evaluate(config, tmp_path / colour)])
            .split("base64,")[1]
            .split('"')[0]
        )
    assert pages[0] != pages[1]
