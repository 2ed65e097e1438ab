"""The public names: all documented, all with an example that runs, and docs/api.md lists exactly them.

The other page that is written from the code, and the navigation of the site, are held here too."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers import imports
from tests.helpers.places import DOCS, ROOT
from tools import api_page, cheatsheet, site_hooks

PUBLIC = [(package, name) for package, name, _ in api_page.public()]
OBJECTS = {(package, name): value for package, name, value in api_page.public()}
#: First words of summaries that are not verbs in the imperative.
NOT_IMPERATIVE = {
    "a",
    "an",
    "the",
    "this",
    "it",
    "what",
    "which",
    "how",
    "whether",
    "returns",
    "one",
    "all",
    "each",
}


def documented(value: Any) -> bool:
    """Whether an object carries its own docstring: constants and type aliases of the public names cannot."""
    return inspect.isclass(value) or inspect.isroutine(value)


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_a_function_says_in_the_imperative_what_it_does_and_names_its_parameters(
    package: str, name: str
) -> None:
    value = OBJECTS[package, name]
    if not documented(value):
        pytest.skip("a constant")
    parts = api_page.sections(value)
    summary = parts[""]
    assert summary and summary.split("\n\n")[0].rstrip().endswith((".", ":"))
    if inspect.isroutine(value):
        assert summary.split()[0].lower() not in NOT_IMPERATIVE, summary
        fields = api_page.OPTIONS[name].model_fields if name in api_page.OPTIONS else {}
        assert all(field.description for field in fields.values())
        spelled = {field.alias or key for key, field in fields.items()} | set(fields)
        named = [each for each in inspect.signature(value).parameters if each not in spelled]
        if named:
            assert "Args" in parts
        missing = [each for each in named if not re.search(rf"\b{each}\b", parts.get("Args", ""))]
        assert missing == []
        hint = inspect.signature(value).return_annotation
        said = "Returns" in parts or "Yields" in parts or summary.startswith(("Return ", "Yield "))
        assert hint in ("None", None) or said


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_its_example_runs(package: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = OBJECTS[package, name]
    if not documented(value):
        pytest.skip("a constant")
    example = api_page.sections(value).get("Example", "")
    assert ">>>" in example, f"{package}.{name} has no example"
    monkeypatch.chdir(tmp_path)
    run(doctest.DocTestParser().get_doctest(example, {}, f"{package}.{name}", None, None))


def run(test: doctest.DocTest) -> None:
    lines: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=lines.append)
    assert runner.failures == 0, "".join(lines)


#: Modules with an example in a docstring.
SHOWING = [
    module.name for module in imports.modules().values() if ">>> " in module.path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", SHOWING)
def test_the_examples_of_names_that_are_not_public_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    public = {inspect.getdoc(value) for value in OBJECTS.values()}
    for test in doctest.DocTestFinder().find(importlib.import_module(name)):
        if test.examples and inspect.cleandoc(test.docstring or "") not in public:
            run(test)


def test_the_page_is_written_from_the_docstrings() -> None:
    assert api_page.PAGE.read_text(encoding="utf-8") == api_page.page(), "run: python -m tools.api_page"


def test_the_page_lists_what_the_packages_export() -> None:
    page = api_page.PAGE.read_text(encoding="utf-8")
    listed: dict[str, list[str]] = {}
    for line in page.splitlines():
        if line.startswith("## "):
            listed[line[3:]] = []
        elif line.startswith("### "):
            listed[list(listed)[-1]].append(line[4:])
    assert {(package, name) for package, names in listed.items() for name in names} == set(PUBLIC)


def test_the_cheat_sheet_is_what_the_commands_say_and_chooses_of_each() -> None:
    assert cheatsheet.PAGE.read_text(encoding="utf-8") == cheatsheet.page(), "run: python -m tools.cheatsheet"
    assert set(cheatsheet.OPTIONS) <= set(cheatsheet.commands())


def navigation(tree: Any) -> list[str]:
    """The pages of a navigation, in order."""
    if isinstance(tree, str):
        return [tree]
    return [page for part in (tree.values() if isinstance(tree, dict) else tree) for page in navigation(part)]


def test_the_navigation_names_every_page_once_and_no_other() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = navigation(yaml.safe_load(text)["nav"])
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} | set(site_hooks.ROOT_PAGES)
    assert sorted(named) == sorted(pages)
