"""Read HTML as a browser would, and check that its tags close in order."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "img", "br", "line", "rect", "circle", "polyline", "path", "input", "wbr", "hr"}


class Tags(HTMLParser):
    """Collects tags, attributes and text, and checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data


def parsed(html: str) -> Tags:
    """Return the tags and the text of a page, or of a part of one."""
    tags = Tags()
    tags.feed(str(html))
    assert tags.open == []
    return tags


def block(html: str, name: str) -> Any:
    """Return the value of a block of data in a page, as its script reads it."""
    text = html.split(f'<script type="application/json" id="data-{name}">')[1].split("</script>", maxsplit=1)[
        0
    ]
    if text.startswith("z"):
        text = zlib.decompress(base64.b64decode(text[1:]), -zlib.MAX_WBITS).decode()
    return json.loads(text)


class _Texts(HTMLParser):
    """Collects what a reader sees or hears, node by node."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: set[str] = set()
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("style", "script")
        said = ("title", "aria-label", "alt", "placeholder")
        self.texts |= {value for name, value in attrs if name in said and value}

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self._hidden and data.strip():
            self.texts.add(" ".join(data.split()))


def untranslated(english: str, other: str, data: Iterable[str]) -> list[str]:
    """Return the texts of two words or more that one page has in two languages and that no data hold.

    Args:
        english: The page in English.
        other: The same page in another language.
        data: Texts that come from people or files, which nobody translates.
    """
    pages = []
    for text in (english, other):
        parser = _Texts()
        parser.feed(text)
        pages.append(parser.texts)
    known = " ".join(" ".join(data).split())
    word = re.compile(r"[^\W\d_]{2,}")
    phrases = {text for text in pages[0] & pages[1] if sum(map(bool, map(word.search, text.split()))) > 1}
    return sorted(text for text in phrases if text not in known)
