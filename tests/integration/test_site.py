"""The documents hold together: links, navigation, commands, messages and the pages that are written from code.

None of these tests needs mkdocs; `make docs` builds the site itself."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.helpers.places import DOCS, ROOT
from tools import cheatsheet, site_hooks

PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", *(ROOT / name for name in site_hooks.ROOT_PAGES)])
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
FENCE = re.compile(r"^( *)```[^\n]*\n.*?^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)", re.DOTALL)


def prose(path: Path) -> str:
    """A page without its code, in which brackets mean something else."""
    return re.sub(
        r"`[^`\n]+`", lambda code: "x" * len(code[0]), FENCE.sub("", path.read_text(encoding="utf-8"))
    )


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of a page's headings, as both GitHub and mkdocs make them."""
    headings = re.findall(r"^#{1,6} (.+?)\s*$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    plain = [
        re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)).strip().lower()
        for text in headings
    ]
    return frozenset(text.replace(" ", "-") for text in plain) & frozenset(
        re.sub(r"[-\s]+", "-", text) for text in plain
    )


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_every_relative_link_and_anchor_leads_somewhere(path: Path) -> None:
    broken = []
    for links in LINK.findall(prose(path)):
        target, _, anchor = next(link for link in links if link).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        place = (path.parent / target).resolve() if target else path
        if not place.exists() or not place.is_relative_to(ROOT):
            broken.append(target)
        elif anchor and anchor not in anchors(place):
            broken.append(f"{target}#{anchor}")
    assert broken == []


def test_the_site_turns_links_across_the_border_of_docs() -> None:
    assert (
        site_hooks.for_site("[a](docs/faq.md#b) [c](docs/decisions)", at_root=True)
        == "[a](faq.md#b) [c](decisions/index.md)"
    )
    assert site_hooks.for_site("[a](../ARCHITECTURE.md) [b](../../CHANGELOG.md#x)", at_root=False) == (
        "[a](ARCHITECTURE.md) [b](../CHANGELOG.md#x)"
    )


def test_the_site_asks_nothing_of_the_network() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert config["theme"]["font"] is False and config["strict"] is True and config["plugins"] == ["search"]
    assert "http" not in (DOCS / "site.css").read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------- commands

TYPED = re.compile(r"^(?:\$ )?((?:dfkdata|dfkeval|dfktrain) [a-z].*)$", re.MULTILINE)


def typed() -> list[tuple[str, str]]:
    """(page, command) of every command in a fenced block, without comments, continued lines joined."""
    commands = []
    for path in PAGES:
        for block in FENCE.finditer(path.read_text(encoding="utf-8")):
            for line in TYPED.findall(block[0].replace("\\\n", " ")):
                commands.append((str(path.relative_to(ROOT)), re.sub(r"\s+#\s.*", "", line)))
    return commands


def without_shell(words: list[str]) -> list[str]:
    """A command's words before a redirection or a pipe."""
    ends = [at for at, word in enumerate(words) if word in ("<", ">", "|", "&&", "&")]
    return words[: ends[0]] if ends else words


@pytest.mark.parametrize("name", NAMES)
def test_every_command_of_a_page_is_understood(name: str) -> None:
    known = cheatsheet.commands()
    for page, line in typed():
        if page != name or "..." in line or "[" in line.split("'")[0]:
            continue
        program, command, *arguments = without_shell(shlex.split(line))
        assert f"{program} {command}" in known, line
        if arguments or command != "init":
            known[f"{program} {command}"].make_context(command, arguments, resilient_parsing=False)


def test_there_are_commands_on_the_pages() -> None:
    assert len(typed()) > 60


# ---------------------------------------------------------------------------------------- messages


@cache
def said() -> str:
    """Every text of the code, with … for what is put into it; neighbours that Python joins are joined."""
    texts = []
    for package in ("dfkdata", "dfkeval", "dfktrain"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                    texts.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return "\n".join(texts)


def messages() -> list[str]:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)


@pytest.mark.parametrize("message", messages())
def test_a_message_of_the_troubleshooting_page_is_one_of_the_codes(message: str) -> None:
    assert len(message) >= 9 and message in said()


def test_the_rules_of_the_troubleshooting_page_exist() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    rules = re.findall(r"\(`([A-Z_]+)`\)", page)
    assert len(rules) >= 5 and len(messages()) >= 25
    assert [rule for rule in rules if f"\n{rule}\n" not in said()] == []
