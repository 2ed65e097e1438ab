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
#: A closing tag of a parameter, or one like it, at the end of a value; it may be broken over two lines.
_AT_END: Final = re.compile(
    r"<[\s\\]{0,4}+/[^<>\w]{0,4}+(?i:param)(?:[^<>\n]{0,32}+>?+|\w{0,8}+[\s/]{1,8}+>)\Z"
)
#: An opening tag of a parameter that is written in another way; the name is the group.
_OPENER: Final = re.compile(
    r"<[ \t]{0,4}+(?i:param)[A-Za-z]{0,8}+[ \t]{0,4}+(?:=|:|(?i:name)[ \t]{0,4}+=)"
    r"[ \t]{0,4}+[\"']?+([^\"'<>\n]{1,256}+)"
)
#: The same with any attribute or none. The groups: what stands inside of the tag, also over several lines;
#: without a '>', the rest of the line; the word behind a tag.
_OTHER_OPENER: Final = re.compile(
    r"<[ \t]{0,4}+(?i:param)[A-Za-z]{0,8}+(?![\w.-])(?:([^<>]{0,256}+)>[ \t]{0,4}+([^\s<>]{0,256}+)|([^<>\n]{0,256}+))"
)
#: A tag of any name, also in other brackets; the group is what stands inside.
_TAG: Final = re.compile(r"(?:<|&lt;|\[)[ \t|]{0,4}+([^<>\[\]\n&|]{1,256}+)(?:[|]?[>\]]|&gt;|(?=\n|\Z))")
#: What an attribute says.
_SAYS: Final = re.compile(r"=[ \t]{0,4}+[\"']?+([^\s\"'=/]++)")
_WORD: Final = re.compile(r"[^\s\"'=:<>/]++")


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
    closer = _AT_END.search(value, max(0, len(value) - 60))
    return None if closer is None else begin + closer.start()


def opener_at(text: str, at: int) -> tuple[list[str], Span, bool]:
    """Return the names that a tag behind the blanks at `at` can open, where it stands, and whether it says that it
    opens a parameter. Without a name in its place (`<parameter id="n">`, `<parameter>n`) every word can be meant; a
    tag of any other name (`<arg=n>`, `<note>`) opens only a parameter that has one of the names."""
    start = skip_blanks(text, at)
    opener = _OPENER.match(text, start)
    if opener is not None:
        return [opener.group(1).rstrip(" \t/")], opener.span(), True
    other = _OTHER_OPENER.match(text, start)
    if other is not None:
        inside, behind, rest = other.groups(default="")
        return _WORD.findall(inside or rest) or _WORD.findall(behind), other.span(), True
    tag = _TAG.match(text, start)
    words = [] if tag is None else _WORD.findall(tag.group(1))
    if tag is None or (len(words) > 1 and "=" not in tag.group(1)):
        return [], (start, start), False
    return [*words[:1], *_SAYS.findall(tag.group(1))], tag.span(), False
