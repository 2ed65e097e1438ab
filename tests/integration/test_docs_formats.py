"""The pages about formats are true: every example runs, nothing is left out, every command is understood."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from dfkdata import Record, read
from dfkdata.common import plugins
from dfkdata.validation.rules import RULES
from tests.helpers.golden import GOLDEN
from tests.helpers.places import DOCS

PAGE = (DOCS / "formats.md").read_text(encoding="utf-8")
FORMATS = plugins.names("dfkdata.formats")
EXPORTS = plugins.names("dfkdata.exports")


def section(title: str, within: str) -> str:
    part = PAGE.split(f"\n## {within}\n", 1)[1].split("\n## ", 1)[0]
    assert f"\n### `{title}`\n" in part, f"{within} does not list {title}"
    return part.split(f"\n### `{title}`\n", 1)[1].split("\n### ", 1)[0]


@pytest.mark.parametrize("name", FORMATS)
def test_the_example_of_a_format_is_read(name: str, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "formats" / "images", tmp_path / "images")
    blocks = re.findall(r"```(csv|json)\n(.*?)\n```", section(name, "Formats in"), re.DOTALL)
    assert blocks
    for kind, text in blocks:
        path = tmp_path / f"example.{'csv' if kind == 'csv' else 'jsonl'}"
        path.write_text(text + "\n", encoding="utf-8")
        items = list(read(path, name, store=tmp_path / "store"))
        assert items and all(isinstance(item, Record) for item in items), items


@pytest.mark.parametrize("name", EXPORTS)
def test_the_example_of_a_layout_is_what_it_writes(name: str) -> None:
    canonical = json.loads(re.search(r"```json canonical\n(.*?)\n```", PAGE, re.DOTALL)[1])  # type: ignore[index]
    (shown,) = re.findall(r"```json\n(.*?)\n```", section(name, "Layouts out"), re.DOTALL)
    assert json.loads(shown) == plugins.load("dfkdata.exports", name).row(canonical)


def test_every_rule_stands_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \|.*\| (\w+) \|[^|]*\|$", PAGE, re.MULTILINE))
    assert rows == {code: rule.default for code, rule in RULES.items()}


@pytest.mark.parametrize("page", ["formats.md", "migration.md"])
def test_every_command_line_is_understood(page: str) -> None:
    from typer.main import get_command

    from dfkdata.cli.app import app

    commands = get_command(app).commands  # type: ignore[attr-defined]  # a group has commands
    lines = re.findall(r"`dfkdata (\w+) ([^`]*)`", (DOCS / page).read_text(encoding="utf-8"))
    assert lines
    for name, rest in lines:
        if "INPUT" in rest:
            continue
        context = commands[name].make_context(name, shlex.split(rest), resilient_parsing=False)
        if "from_" in context.params:
            assert context.params["from_"] in FORMATS
