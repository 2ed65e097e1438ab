"""The pages about prediction and serving are true: every command is understood, every limit listed."""

from __future__ import annotations

import re
import shlex

import pytest
from typer.main import get_command

from dfkeval.cli import app
from dfkeval.inference.batch import Prediction
from dfkeval.inference.serving.limits import Limits
from dfkeval.runs import presets
from dfkeval.types import OUTCOMES
from tests.helpers.places import DOCS

PAGES = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("prediction", "serving")}


def commands() -> list[str]:
    """The lines of fenced blocks that call dfkeval, continued lines joined."""
    fenced = [
        part for page in PAGES.values() for part in re.split(r"^```\w*$", page, flags=re.MULTILINE)[1::2]
    ]
    lines = [line for part in fenced for line in part.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("dfkeval ")]


def test_the_pages_show_each_command() -> None:
    assert {line.split()[1] for line in commands()} >= {"predict", "label", "serve"}


@pytest.mark.parametrize("line", commands())
def test_a_command_on_the_pages_is_understood(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    command = get_command(app.app).commands[name]  # type: ignore[attr-defined]
    assert command.make_context(name, arguments).params


def test_every_limit_is_listed_with_its_default() -> None:
    limits = Limits()
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ([\d, ]+) \|", PAGES["serving"], re.MULTILINE)
    listed = {
        name: float(value)
        for names, values in rows
        for name, value in zip(re.findall(r"\w+", names), values.split(", "), strict=True)
    }
    assert listed == limits.model_dump()


def test_the_columns_of_a_prediction_are_listed() -> None:
    table = PAGES["prediction"].partition("| field | holds |")[2].partition("\n\n")[0]
    names = [name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split(" | ")[0])]
    assert sorted(names) == sorted(Prediction.__struct_fields__)


def test_the_presets_are_listed() -> None:
    assert all(f"`{name}`" in PAGES["prediction"] for name in presets.names())
    assert "abstained" not in OUTCOMES and "`abstained`" in PAGES["prediction"]
