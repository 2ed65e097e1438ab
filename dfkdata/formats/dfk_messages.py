"""DFK posts as conversations: the JSON or JSONL that the fourth DFK data set uses.

    {"messages": [...]} or a bare list of turns; parts {"type": "text", "text"} and {"type": "image", "image":
    path}

Image paths are exact. Published loaders searched by file name in neighbouring folders and took the first hit,
which put wrong pictures under posts; here such a row is a reject. `--schema dfk_label` reads the answer's
text into gold."""

from __future__ import annotations

from dfkdata.formats import messages

SCHEMA: str | None = None
COLUMNS = messages.COLUMNS
Options = messages.Options
record = messages.record
