"""The three commands speak alike: version, lines that name the next command, messages about plug-ins and sections."""

from __future__ import annotations

import ast
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from dfkdata.cli import app as dfkdata
from dfkdata.common.config import apply_override
from dfkdata.common.console import next_command
from dfkdata.common.errors import ConfigError
from dfkdata.common.plugins import load
from dfkdata.common.versions import installed_version
from dfkeval.cli import app as dfkeval
from dfkeval.models import adapters
from dfkeval.reports.formatting import leading
from dfkeval.runs import config as configs
from dfktrain.cli import app as dfktrain
from tests.helpers.runs import DFK, caption_gold, caption_text, gold_answers, write_answers, write_rows

APPS = {"dfkdata": dfkdata, "dfkeval": dfkeval, "dfktrain": dfktrain}
ROOT = Path(__file__).parents[2]


def said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: Any
) -> tuple[int, str, str]:
    """Run a command in this process and return (exit status, stdout, stderr)."""
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    with pytest.raises(SystemExit) as ended:
        APPS[words[0]].main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def parsed(line: str) -> None:
    """Parse a command line as the command itself does; options that are needed and missing raise."""
    program, *words = shlex.split(line)
    group = typer.main.get_command(APPS[program].app)
    with group.make_context(program, words) as context:
        name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])  # type: ignore[attr-defined]
        command.make_context(name, rest, parent=context)


def next_lines(out: str) -> list[str]:
    return [line.removeprefix("next: ") for line in out.splitlines() if line.startswith("next: ")]


def labelled(folder: Path) -> list[Any]:
    rows = [{"id": str(at), "caption": caption_text(at)} for at in range(2)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    calls = [
        {"id": str(at), "text": "<tool_call>\n<function=emit_caption_schema>\n" + "".join(
            f"<parameter={key}>\n{value if isinstance(value, str) else json.dumps(value)}\n</parameter>\n"
            for key, value in caption_gold(at).items()
        ) + "</function>\n</tool_call>"}
        for at in range(2)
    ]  # fmt: skip
    (folder / "answers.jsonl").write_text("".join(json.dumps(call) + "\n" for call in calls))
    backend = f"{{kind: scripted, completions: {folder / 'answers.jsonl'}}}"
    return [
        "dfkeval",
        "label",
        folder / "captions.jsonl",
        "--out",
        folder / "my labels",
        "--backend",
        backend,
        "--tool-choice",
        "auto",
    ]


def converted(folder: Path) -> list[Any]:
    (folder / "raw.jsonl").write_text(json.dumps({"instruction": "a", "output": "b"}) + "\n")
    out = folder / "it's data"
    return ["dfkdata", "convert", folder / "raw.jsonl", "--from", "alpaca", "--to", "messages", "--out", out]


def begun(folder: Path) -> list[Any]:
    return ["dfkeval", "init", "sita_vlm_gen", "--out", folder / "eval.yaml"]


NEXT = {"dfkeval/cli/label.py": labelled, "dfkdata/cli/render.py": converted, "dfkeval/cli/init.py": begun}


@pytest.mark.parametrize("place", NEXT)
def test_a_next_line_is_understood_by_the_command_that_it_names(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = said(capsys, monkeypatch, *NEXT[place](tmp_path))
    assert code == 0, err
    (line,) = next_lines(out)
    parsed(line)


def test_a_line_that_lacks_an_option_is_found() -> None:
    with pytest.raises(Exception, match="to"):
        parsed("dfkdata convert rows.jsonl --from task_1 --out data")


def test_every_next_line_is_one_of_those_above() -> None:
    """Lines are written by one function, and every file that calls it is tried here."""
    callers = set()
    for path in [path for package in APPS for path in (ROOT / package).rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        if path.name != "console.py":
            assert '"next: ' not in text, f"{path}: use dfkdata.common.console.next_command"
        if "next_command(" in text:
            names = [node.func.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)
                     and isinstance(node.func, ast.Name)]  # fmt: skip
            callers |= {str(path.relative_to(ROOT))} if next_command.__name__ in names else set()
    assert callers == set(NEXT)


@pytest.mark.parametrize("program", APPS)
def test_every_command_says_its_version(
    program: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(capsys, monkeypatch, program, "--version") == (
        0,
        f"{program} {installed_version('dfk')}\n",
        "",
    )


def test_a_conversion_that_is_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = converted(tmp_path)
    assert said(capsys, monkeypatch, *words)[0] == 0
    code, out, err = said(capsys, monkeypatch, *words)
    assert (code, out.count("\n"), err) == (0, 1, "") and "(1 train, 0 validation); nothing to do" in out


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    write_rows(tmp_path / "test.jsonl", DFK, 2)
    write_answers(tmp_path / "answers.jsonl", gold_answers(DFK, 2))
    path = tmp_path / "eval.yaml"
    path.write_text(
        "data: test.jsonl\nschema: dfk_label\nbackend: {kind: scripted, completions: answers.jsonl}\n"
        "metrics: [validity]\nresamples: 100\n"
    )
    return path


def test_an_evaluation_that_is_there_asks_nothing_and_says_so(
    evaluation: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["dfkeval", "run", evaluation, "--out", evaluation.parent / "run"]
    code, out, err = said(capsys, monkeypatch, *words)
    assert code == 0 and err == ""
    assert out.count("validity.") == 2 and "more values with --all" in out
    code, again, err = said(capsys, monkeypatch, *words, "--all")
    assert (code, err.count("nothing to ask")) == (0, 1) and again.count("validity.") > 2


def test_what_is_shown_first_holds_values_of_every_metric() -> None:
    names = (
        "validity.differs",
        "validity.schema_valid",
        "own.a",
        "own.b",
        "own.c",
        "own.d",
        "labels.accuracy",
    )
    shown = leading(dict.fromkeys(names))
    assert shown == ["validity.schema_valid", "labels.accuracy", "own.a", "own.b", "own.c"]


def test_all_faults_of_an_evaluation_come_at_once(evaluation: Path) -> None:
    changes = [
        "backend.kindd=x", "metrics=validity", "foo=1", "bertscore.lang=5", "fields.nope=1", "modes=free",
        "data.x=1", "sampling=",
    ]  # fmt: skip
    with pytest.raises(ConfigError) as raised:
        configs.read(evaluation, changes)
    lines = str(raised.value).splitlines()
    for text in (
        "--set 'data.x=1': 'x' lies below a plain value; data has no keys",
        f"{evaluation}: backend: kindd: unknown key",
        f"{evaluation}: metrics: a list is needed, and this is one text; write [validity]",
        f"{evaluation}: foo: unknown key",
        f"{evaluation}: bertscore: lang: ",
        f"{evaluation}: fields: nope: unknown key",
        f"{evaluation}: modes: a list is needed, and this is one text; write [free]",
        f"{evaluation}: sampling: nothing is left here after the change sampling=; leave it out",
    ):
        assert sum(line.startswith(text) for line in lines) == 1, (text, lines)
    assert len(lines) == 8


def test_what_the_rows_decide_is_told_at_once_too(evaluation: Path) -> None:
    config = configs.read(evaluation, ["metrics=[grounding, nope, grounding]", "shard=3/2"])
    with pytest.raises(ConfigError) as raised:
        configs.resolve(config, {})
    said = str(raised.value)
    assert "needs a field with the role" in said and "'nope' is not one of" in said
    assert "shard '3/2': write 3/16" in said and "written twice" in said


def test_a_section_that_an_earlier_change_removed_is_named() -> None:
    data = {"stages": [{"steps": 1}], "evaluate": None}
    apply_override(data, "evaluate.data=a.jsonl")  # written without keys: begun
    assert data["evaluate"] == {"data": "a.jsonl"}
    apply_override(data, "stages.0=null")
    with pytest.raises(ConfigError, match=r"stages\.0 is empty; an earlier change removed it"):
        apply_override(data, "stages.0.steps=2")


def test_the_folder_of_a_run_is_no_adapter_and_the_message_names_the_adapter(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        adapters.folder(tmp_path / "run")
    (tmp_path / "run/adapter").mkdir(parents=True)
    with pytest.raises(ConfigError, match="give the folder that PEFT saved"):
        adapters.folder(tmp_path / "run")
    (tmp_path / "run/adapter/adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"the folder of a run; its adapter is .*run/adapter$"):
        adapters.folder(tmp_path / "run")
    assert adapters.folder(tmp_path / "run/adapter") == tmp_path / "run/adapter"


PLUGINS = {
    "raises": (
        "raise ValueError('boom')",
        r"importing it raises ValueError: boom \(.*raises\.py:1\); mend that module",
    ),
    "ends": ("raise SystemExit", r"importing it raises SystemExit \(.*ends\.py:1\)"),
    "broken": ("def", r"importing it raises SyntaxError"),
    "lacks": ("import no_such_package_at_all", "No module named 'no_such_package_at_all'"),
    "empty": (
        "SCHEMA = None",
        "defines no COLUMNS and no Options and no record; a member of dfkdata.formats needs",
    ),
}


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plug_in_that_cannot_be_used_is_one_message(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, message = PLUGINS[name]
    package = tmp_path / "path" / "plugged_in"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / f"{name}.py").write_text(code + "\n")
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    try:
        with pytest.raises(ConfigError, match=message):
            load("dfkdata.formats", f"plugged_in.{name}")
    finally:
        for loaded in [module for module in sys.modules if module.startswith("plugged_in")]:
            del sys.modules[loaded]


def test_a_plug_in_that_is_not_on_the_path_is_told_how_to_get_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"no package 'beside_me' on Python's path; start .*PYTHONPATH=FOLDER"
    ):
        load("dfkdata.formats", "beside_me.posts")
    (tmp_path / "beside_me").mkdir()
    with pytest.raises(
        ConfigError, match=r"it lies in the current folder; start the command with PYTHONPATH=/"
    ):
        load("dfkdata.formats", "beside_me.posts")
    with pytest.raises(
        ConfigError, match=r"is a path; write the module's dotted name, such as beside_me\.posts"
    ):
        load("dfkdata.formats", "beside_me/posts.py")


def test_tables_are_drawn_in_one_place() -> None:
    drawn = {
        str(path.relative_to(ROOT))
        for package in APPS
        for path in (ROOT / package).rglob("*.py")
        if "rich.table" in path.read_text(encoding="utf-8")
    }
    assert drawn == {"dfkdata/common/tables.py"}
