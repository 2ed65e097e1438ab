"""A model, an adapter or a checkpoint from elsewhere runs no code, and is refused in one line with exit status 2."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.errors import BackendError, DataError, DfkError
from dfkeval.cli.app import main as dfkeval_main
from dfkeval.models import adapters, loader, tiny
from dfkeval.models import processor as processors
from dfkeval.models.processor import load_processor
from dfkeval.models.rendering import render
from dfktrain.cli.app import main as dfktrain_main
from dfktrain.training import checkpoints
from tests.helpers.rows import write

Change = Callable[[Path], None]
ROW: dict[str, Any] = {
    "id": "1",
    "messages": [{"role": "user", "content": "The capital?"}, {"role": "assistant", "content": "Jakarta"}],
    "meta": {"schema": "answer", "variant": "text", "gold": {"answer": "Jakarta"}},
}


class _Code:
    """An object that leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def _mark(folder: Path) -> Path:
    return folder.parent / "ran"


def _file(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text) and None


def _auto_map(name: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        settings = json.loads(path.read_text()) if path.exists() else {}
        kinds = ("Config", "ModelForImageTextToText", "Tokenizer", "Processor", "ImageProcessor")
        settings["auto_map"] = {f"Auto{kind}": "evil.Evil" for kind in kinds}
        own = {"tokenizer_class": "Evil", "processor_class": "Evil", "image_processor_type": "Evil"}
        settings |= {"model_type": "evil"} if name == "config.json" else own
        path.write_text(json.dumps(settings))
        (folder / "evil.py").write_text(f"open({str(_mark(folder))!r}, 'w')\nclass Evil: pass\n")

    return change


def _pickled(zipped: bool) -> Change:
    def change(folder: Path) -> None:
        import torch

        (folder / "model.safetensors").unlink()
        with (folder / "pytorch_model.bin").open("wb") as file:
            code = {"weight": _Code(_mark(folder))}
            torch.save(code, file) if zipped else pickle.dump(code, file)

    return change


MODELS: dict[str, Change] = {
    "code of its own": _auto_map("config.json"),
    "code of its own for pictures": _auto_map("preprocessor_config.json"),
    "pickled": _pickled(zipped=False),
    "pickled and zipped": _pickled(zipped=True),
    "template of broken syntax": _file("chat_template.jinja", "{% for %}"),
    "template with an unknown filter": _file("chat_template.jinja", "{{ messages|nosuch }}"),
    "template that fails": _file("chat_template.jinja", "{{ messages + 1 }}"),
    "tokenizer of another form": _file("tokenizer.json", "{}"),
    "tokenizer that is no JSON": _file("tokenizer.json", "nonsense"),
    "config that is a list": _file("config.json", "[]"),
    "config that is no JSON": _file("config.json", "{"),
    "config of other types": _file("config.json", '{"model_type": "qwen3_5", "text_config": 5}'),
    "preprocessor that is a list": _file("preprocessor_config.json", "[]"),
    "weights that are none": _file("model.safetensors", "nonsense"),
}
QUIET: dict[str, Change] = {
    name: _auto_map(name) for name in ("tokenizer_config.json", "processor_config.json")
}
"""Code that nothing asks for, so that the model loads without it."""

TEMPLATES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ raise_exception('no\nmore') }}",
    "{% for i in range(10**9) %}x{% endfor %}",
    "{{ messages + 1 }}",
    "{{ a.b.c }}",
    "{{ 1 / 0 }}",
    "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('true') }}",
    "{{ ('%' ~ 's') % messages.__init__.__globals__ }}",
)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the built-in model, rows, and an evaluation and a training of it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    shutil.copytree(tiny.path(), folder)
    write(tmp_path / "rows.jsonl", [ROW])
    backend = {"kind": "transformers", "model": "model", "device": "cpu"}
    Path("eval.yaml").write_text(json.dumps({"data": "rows.jsonl", "backend": backend, "resamples": 100}))
    stage = {"name": "sft", "data": ["rows.jsonl"], "steps": 2, "save_steps": 1}
    train = {"model": {"name": "model"}, "precision": "fp32", "engine": "transformers", "stages": [stage]}
    Path("train.yaml").write_text(json.dumps(train))
    return folder


def _ended(main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dfk", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("kind", MODELS)
def test_a_hostile_model_is_refused_in_one_line_by_evaluation_and_training(
    kind: str, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    MODELS[kind](model)
    commands = (
        (dfkeval_main, ("run", "eval.yaml", "--out", "run")),
        (dfktrain_main, ("run", "train.yaml", "--out", "t")),
    )
    for main, words in commands:
        assert _ended(main, monkeypatch, *words) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dfk")]
        assert len(lines) == 1 and str(model.name) in lines[0], lines
        assert "trust_remote_code" not in lines[0] and "weights_only" not in lines[0]
    assert not _mark(model).exists()


@pytest.mark.parametrize("kind", QUIET)
def test_code_that_no_class_asks_for_is_not_run(kind: str, model: Path) -> None:
    QUIET[kind](model)
    assert loader.load(model, device="cpu").model is not None
    assert not _mark(model).exists()


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_that_fails_is_refused_when_it_is_read_or_refuses_its_row(
    template: str, model: Path
) -> None:
    path = model / "chat_template.jinja"
    path.write_text(template)
    with pytest.raises(BackendError, match=r"model: the chat template refuses every question: ") as refused:
        load_processor(model)
    path.write_text("{% if 'capital' in messages|string %}" + template + "{% endif %}")
    processor = load_processor(model)
    with pytest.raises(DataError, match="row 1: the chat template refuses it") as caught:
        render(processor, ROW, ROW["messages"][:1], generation_prompt=True)
    assert "\n" not in str(caught.value) + str(refused.value)


def test_a_template_that_does_not_end_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "LONGEST_TEMPLATE", 0.2)
    stop = threading.Event()
    monkeypatch.setattr(processors, "_template_fault", lambda *_: stop.wait(60))  # a thread that can be ended
    try:
        with pytest.raises(BackendError, match=r"takes longer than 0\.2 seconds for one short question"):
            load_processor(model)
    finally:
        stop.set()


def test_an_adapter_that_is_pickled_or_of_another_form_is_refused(tmp_path: Path) -> None:
    net, folder = loader.load("tiny", device="cpu"), tmp_path / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    for settings in (
        config,
        {},
        {"peft_type": "EVIL"},
        config | {"r": "x"},
        config | {"auto_mapping": {"a": "b"}},
    ):
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        with (folder / "adapter_model.bin").open("wb") as file:
            pickle.dump(_Code(_mark(folder)), file)
        with pytest.raises(DfkError, match="pickled adapters are not loaded"):
            adapters.attach(net.model, folder, net.processor)
        (folder / "adapter_model.safetensors").write_bytes(b"nonsense")
        with pytest.raises(DfkError, match="is broken"):
            adapters.attach(net.model, folder, net.processor)
        (folder / "adapter_model.safetensors").unlink()
    assert not _mark(folder).exists()


def test_a_checkpoint_from_elsewhere_runs_no_code_and_is_refused_in_one_line(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _ended(dfktrain_main, monkeypatch, "run", "train.yaml", "--out", "t") == 0
    stage = Path("t/stages/sft")
    for name in ("run.json", "stages/sft/stage.json"):
        (Path("t") / name).unlink()
    newest, last = (stage / f"checkpoints/checkpoint-{step}" for step in (1, 2))
    shutil.rmtree(last)  # so that a step is left to do
    for name in ("optimizer.pt", "rng_state.pth"):
        whole = (newest / name).read_bytes()
        (newest / name).write_bytes(pickle.dumps(_Code(_mark(model))))
        capsys.readouterr()
        assert _ended(dfktrain_main, monkeypatch, "run", "train.yaml", "--out", "t") == 2
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dfktrain: ")]
        assert len(said) == 1 and "checkpoint-1" in said[0] and "pickled objects" in said[0], said
        (newest / name).write_bytes(whole)
    assert not _mark(model).exists()
    for name, content in (("trainer_state.json", "[]"), ("complete", "{}")):
        (newest / name).write_text(content)
        with pytest.raises(DataError, match=name):
            checkpoints.token_counts(newest)


def test_our_own_errors_pass_as_they_are() -> None:
    from dfkeval.models.loading import foreign_files

    with pytest.raises(DataError, match=r"^own$"), foreign_files("model"):
        raise DataError("own")
    with pytest.raises(BackendError, match=r"^model: Exception: a b$"), foreign_files("model"):
        raise Exception("a\nb")
