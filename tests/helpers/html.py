"""Read HTML as a browser would, and check that its tags close in order."""

from __future__ import annotations

import base64
import json
import zlib
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
