"""Show rows as blocks of text, with what all of them begin with shown once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import msgspec
from markupsafe import Markup

from dfkdata.common.errors import DataError

Piece = tuple[str, str, str]
"""(role, kind, text): kind is "text", or the kind of a placeholder, such as "image"."""


@dataclass(frozen=True)
class ModelView:
    """How a model sees rows.

    Attributes:
        name: What the page calls the model.
        template: Its chat template.
        sha256: The hash by which records of runs know the template.
        render: Returns a row as the text that the model sees; raises `DataError` for a row that it cannot read.
    """

    name: str
    template: str
    sha256: str
    render: Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class RowTexts:
    """The texts of rows.

    Attributes:
        shared: Blocks that all rows begin with, as (role, text).
        rows: The blocks of each row behind them; a row that cannot be read has a `str`, the reason.
    """

    shared: list[tuple[str, Markup]]
    rows: list[list[tuple[str, Markup]] | str]


def row_texts(rows: Sequence[dict[str, Any]], view: ModelView | None = None) -> RowTexts:
    """Return rows as blocks; blocks and shared blocks together are each row, sign for sign.

    Args:
        rows: Rows of the messages layout.
        view: The model that the rows are for; None shows them as they are written.
    """
    if view is None:
        pieces = [_pieces(row) for row in rows]
        n = _same(pieces) if len(pieces) > 1 else 0
        shared = _blocks(pieces[0][:n]) if n else []
        return RowTexts(shared, [_blocks(row[n:]) for row in pieces])
    texts = [_rendered(row, view) for row in rows]
    readable = [text for text in texts if not isinstance(text, DataError)]
    start = _start(readable) if len(readable) > 1 else ""
    return RowTexts(
        [("", Markup("{}").format(start))] if start else [],
        [
            str(text) if isinstance(text, DataError) else [("", Markup("{}").format(text[len(start) :]))]
            for text in texts
        ],
    )


def _rendered(row: dict[str, Any], view: ModelView) -> str | DataError:
    try:
        return view.render(row)
    except DataError as error:
        return error


def _start(texts: Sequence[str]) -> str:
    """Return the whole lines that all texts begin with."""
    least, most = min(texts), max(texts)
    n = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(least, most, strict=False)))
    return least[: least.rfind("\n", 0, n) + 1]


def _same(rows: Sequence[Sequence[Piece]]) -> int:
    """Return how many pieces all rows begin with; the last piece of a row is never one of them."""
    most = min(len(row) for row in rows) - 1
    return sum(1 for _ in takewhile(lambda at: len({row[at] for row in rows}) == 1, range(most)))


def _pieces(row: dict[str, Any]) -> list[Piece]:
    pieces = [("tools", "text", _json(row["tools"]))] if row.get("tools") else []
    for turn in row["messages"]:
        for part in turn["content"] or ({"type": "text", "text": ""},):
            kind = part["type"]
            pieces.append((turn["role"], kind, part["text"] if kind == "text" else kind))
        pieces += [("call", "text", _json(call["function"])) for call in turn.get("tool_calls", ())]
        pieces.append((turn["role"], "end", ""))
    return pieces


def _blocks(pieces: Iterable[Piece]) -> list[tuple[str, Markup]]:
    """Return the texts of each turn in one block; a placeholder is a mark."""
    blocks: list[tuple[str, Markup]] = []
    goes_on = False
    for role, kind, text in pieces:
        if kind == "end":
            goes_on = False
            continue
        shown = Markup("{}").format(text) if kind == "text" else Markup("<mark>{}</mark>").format(text)
        if goes_on and blocks[-1][0] == role:
            blocks[-1] = (role, blocks[-1][1] + shown)
        else:
            blocks.append((role, shown))
        goes_on = role not in ("call", "tools")
    return blocks


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def characters(row: dict[str, Any], *, answers: bool) -> int:
    """Return the characters of text in the answers of a row, or in all else that is not an answer."""
    return sum(
        len(part["text"])
        for turn in row["messages"]
        if (turn["role"] == "assistant") == answers
        for part in turn["content"] or ()
        if part["type"] == "text"
    )
