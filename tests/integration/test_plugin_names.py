"""Files that somebody else wrote cannot name code to run: a marker module is planted in every text that they hold."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common import plugins
from dfkdata.common.errors import DfkError
from dfkeval import EvalConfig, Predictor, compare, evaluate, load_run, score
from dfkeval.analysis.history import history
from dfkeval.backends import scripted
from dfkeval.evaluation.shards import merge
from dfkeval.models import metadata
from dfktrain.reports import model_card

MARKER = "planted.module"
ROW = {
    "id": "1",
    "messages": [
        {"role": "user", "content": "The capital of Indonesia?"},
        {"role": "assistant", "content": "Jakarta"},
    ],
    "images": [],
    "meta": {"schema": "answer", "variant": "text", "group": "1", "gold": {"answer": "Jakarta"}},
}


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bool]]:
    """A module that is a member of every family and says when it is imported."""
    package = tmp_path / "path/planted"
    package.mkdir(parents=True)
    ran = tmp_path / "ran"
    for name in ("__init__", "module"):
        (package / f"{name}.py").write_text(f"open({str(ran)!r}, 'a').write('x')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    monkeypatch.setattr(plugins, "_trusted", set())
    yield ran.exists
    for name in ("planted", MARKER):
        sys.modules.pop(name, None)


def _run(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    rows, answers = folder / "rows.jsonl", folder / "answers.jsonl"
    rows.write_text(json.dumps(ROW) + "\n")
    answers.write_text('{"id": "1", "text": "Jakarta"}\n')
    config = EvalConfig.model_validate(
        {
            "data": rows,
            "backend": {"kind": "scripted", "completions": answers},
            "metrics": ["answers", "validity"],
            "resamples": 100,
        }
    )
    evaluate(config, folder / "run")
    return folder / "run"


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each text in a JSON value, and of each list of texts."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(inner, (*path, index))
    elif value is None:
        yield path  # a null may be filled in


def _with(value: Any, path: tuple[Any, ...], text: str) -> Any:
    changed = json.loads(json.dumps(value))
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = text
    return changed


def _quietly(action: Callable[[], object]) -> None:
    """Run an action that may refuse what it reads; anything else than our own errors is a fault."""
    with contextlib.suppress(DfkError):
        action()


def test_nothing_in_a_run_folder_names_code_to_run(tmp_path: Path, planted: Callable[[], bool]) -> None:
    run = _run(tmp_path / "own")
    record = json.loads((run / "config.json").read_text())
    record["config"] |= {"trackers": ["tensorboard"], "metric_options": {"chrf": {}}, "plugins": ["planted"]}
    config_places = [("config.json", path) for path in _places(record)]
    summary = json.loads((run / "summary.json").read_text())
    places = config_places + [("summary.json", path) for path in _places(summary)]
    assert {("config.json", ("config", "backend", "kind")), ("config.json", ("config", "metrics", 0))} <= {
        *places
    }
    for number, (name, path) in enumerate(places):
        foreign = tmp_path / f"foreign-{number}"
        shutil.copytree(run, foreign)
        (foreign / name).write_text(
            json.dumps(_with(record if name == "config.json" else summary, path, MARKER))
        )
        for action in (
            lambda at=foreign: load_run(at),
            lambda at=foreign: score(at),
            lambda at=foreign: compare(run, at),
            lambda at=foreign: merge([at], tmp_path / "merged"),
            lambda at=foreign: history(at.parent),
        ):
            _quietly(action)
        assert not planted(), (name, path)
        shutil.rmtree(foreign)


def test_nothing_in_a_row_names_code_to_run(tmp_path: Path, planted: Callable[[], bool]) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"id": "1", "text": "Jakarta"}\n')
    for number, path in enumerate(_places(ROW)):
        rows = tmp_path / f"rows-{number}.jsonl"
        rows.write_text(json.dumps(_with(ROW, path, MARKER)) + "\n")
        backend = {"kind": "scripted", "completions": answers}
        config = EvalConfig.model_validate({"data": rows, "backend": backend, "resamples": 100})
        _quietly(lambda config=config, number=number: evaluate(config, tmp_path / f"run-{number}"))
        assert not planted(), path


def test_nothing_beside_an_adapter_names_code_to_run(tmp_path: Path, planted: Callable[[], bool]) -> None:
    card = metadata.ModelMetadata(
        schema="answer", form="text", system_prompt="Answer.", template_sha256="0" * 64
    )
    metadata.write(tmp_path, card)
    record = json.loads((tmp_path / metadata.NAME).read_text())
    (rows := tmp_path / "answers.jsonl").write_text('{"id": "1", "text": "Jakarta"}\n')
    assert (
        Predictor(adapter=tmp_path, backend=scripted.Config(kind="scripted", completions=rows)).schema.name
        == "answer"
    )
    for path in _places(record):
        (tmp_path / metadata.NAME).write_text(json.dumps(_with(record, path, MARKER)))
        _quietly(
            lambda: Predictor(adapter=tmp_path, backend=scripted.Config(kind="scripted", completions=rows))
        )
        assert not planted(), path


def test_the_refusal_names_the_file_and_three_ways_out(tmp_path: Path, planted: Callable[[], bool]) -> None:
    run = _run(tmp_path / "own")
    record = json.loads((run / "config.json").read_text())
    record["config"]["metrics"] = [MARKER]
    (run / "config.json").write_text(json.dumps(record))
    with pytest.raises(DfkError) as caught:
        load_run(run)
    text = str(caught.value)
    for part in (
        str(run / "config.json"),
        MARKER,
        "--trust-plugins planted.module",
        "plugins: [planted.module]",
    ):
        assert part in text
    assert not planted()


def test_what_the_user_trusts_is_loaded(tmp_path: Path, planted: Callable[[], bool]) -> None:
    run = _run(tmp_path / "own")
    record = json.loads((run / "config.json").read_text())
    record["config"]["schema"] = MARKER
    (run / "config.json").write_text(json.dumps(record))
    plugins.trust(["planted"])
    with pytest.raises(DfkError, match="defines no Answer and no VARIANTS"):
        load_run(run)
    assert planted()


def test_a_model_card_does_not_load_what_rows_named(planted: Callable[[], bool]) -> None:
    assert model_card.instruction(metadata.ModelMetadata(schema=MARKER)) is None
    assert not planted()


def test_the_command_says_it_in_one_message_and_takes_the_option(
    tmp_path: Path, planted: Callable[[], bool]
) -> None:
    (tmp_path / "path/planted/module.py").write_text(
        "from dfkdata.schemas.answer import *\nfrom dfkdata.schemas.answer import VARIANTS, Answer\n"
    )
    (tmp_path / "path/planted/__init__.py").write_text("")
    run = _run(tmp_path / "own")
    record = json.loads((run / "config.json").read_text())
    record["config"]["schema"] = MARKER
    (run / "config.json").write_text(json.dumps(record))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path / "path"), *sys.path))}
    script = "from dfkeval.cli.app import main; main()"

    def report(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, "report", "run", *options]
        return subprocess.run(command, cwd=run.parent, env=environment, capture_output=True, text=True)

    refused = report()
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr and "--trust-plugins planted.module" in refused.stderr
    assert report("--trust-plugins", "planted").returncode == 0
