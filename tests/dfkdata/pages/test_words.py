"""Every word of the pages stands in both languages, is used, and has the same places to fill."""

from __future__ import annotations

import re
import string

import pytest

from dfkdata.common.errors import ConfigError
from dfkdata.pages.words import LANGUAGES, Words, table
from tests.helpers.places import ROOT

USED = re.compile(r"""\b(?:w|words|word)\(\s*["']([a-z0-9_]+)["']\s*[,)]""")


def sources() -> str:
    """Everything that may use a word."""
    paths = [path for package in ("dfkdata", "dfkeval", "dfktrain") for path in (ROOT / package).rglob("*")]
    return "\n".join(
        path.read_text(encoding="utf-8") for path in paths if path.suffix in (".py", ".html", ".js")
    )


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_text_stands_in_every_language_with_the_same_places() -> None:
    for key, texts in table().items():
        assert tuple(texts) == LANGUAGES, key
        assert len({frozenset(places(text)) for text in texts.values()}) == 1, key
        assert all(text.strip() == text and text for text in texts.values()), key


def test_every_word_that_is_used_is_known_and_every_known_one_is_used() -> None:
    text = sources()
    used = set(USED.findall(text))
    assert used <= table().keys()
    begun = tuple(re.findall(r"""\bw\(["']([a-z0-9_]+_)["'] ~""", text))
    idle = {key for key in table() if key not in used and not re.search(rf"[\"'`.]{key}\b", text)}
    assert not {key for key in idle if "." not in key and not key.startswith(begun)}


def test_an_unknown_language_is_an_error_of_the_user() -> None:
    with pytest.raises(ConfigError, match="en or id"):
        Words("de")
