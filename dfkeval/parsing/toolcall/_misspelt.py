"""Recognise tags of parameters that are written in another way than the format has them.

The functions look at text only and note nothing; each looks at the end of one value or the beginning of one
tag."""

from __future__ import annotations

import re
from typing import Final

from dfkeval.parsing.json_text import BLANKS, skip_blanks
from dfkeval.parsing.toolcall._types import Span

#: What can stand before a tag that a closer of another name and blanks precede.
_BEFORE: Final = ">" + BLANKS
#: A closing tag, or one like it, that a line holds alone.
_LINE: Final = re.compile(
    r"[ \t]*+(<(?:[ \t\\]{0,4}+/[ \t/]{0,4}+|(?=(?i:param)))([^<>\n/ \t]{1,40}+)[ \t/]{0,4}+>)\Z"
)
#: A closing tag of a parameter, or one like it, at the end of a line.
_AT_END: Final = re.compile(r"<[ \t\\]{0,4}+/[^<>\n\w]{0,4}+(?i:param)[^<>\n]{0,32}+>?+\Z")
#: An opening tag of a parameter that is written in another way; the name is the group.
_OPENER: Final = re.compile(
    r"<[ \t]{0,4}+(?i:param)[A-Za-z]{0,8}+[ \t]{0,4}+(?:=|:|(?i:name)[ \t]{0,4}+=)"
    r"[ \t]{0,4}+[\"']?+([^\"'<>\n]{1,256}+)"
)


def closer_at_end(text: str, begin: int, end: int) -> int | None:
    """Return where a misspelled closing tag starts that ends the value from `begin` to `end`: one of a
    parameter, or one on its own line of something that is not open in the value (`</city>`)."""
    if text[end - 1] not in _BEFORE:
        return None
    value = text[begin:end].rstrip(BLANKS)
    line = value.rfind("\n") + 1
    tag = _LINE.match(value, line)
    if tag is not None and line and value.find(f"<{tag.group(2)}", 0, tag.start(1)) < 0:
        return begin + tag.start(1)
    closer = _AT_END.search(value, max(line, len(value) - 60))
    return None if closer is None else begin + closer.start()


def misspelled_opener(text: str, at: int) -> tuple[str, Span] | None:
    """Return the name in the misspelled opening tag behind the blanks at `at`, and where the tag stands."""
    opener = _OPENER.match(text, skip_blanks(text, at))
    return None if opener is None else (opener.group(1).rstrip(" \t/"), opener.span())
