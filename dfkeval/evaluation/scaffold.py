"""What an adapter must be asked with besides the row: system text and tool definitions.

Strategy: an adapter of this project carries both in its `dfk.json`; for a foreign one they stand in the data
that it was trained on, a `task_1` file (`--scaffold`). Where neither is given, the schema's own count.
Promises: one rule for `run`, `predict` and `serve`: a scaffold replaces the system turn and the tools of
every prompt and nothing else; one that differs from the `dfk.json` beside it is refused, and so is a tool
that the schema does not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError
from dfkdata.formats.task_1 import scaffold
from dfkdata.rows.scaffold import Scaffold
from dfkdata.schemas import Schema, ToolForm
from dfkeval.models import metadata as cards

Turn = dict[str, Any]


def read(path: str | Path, schema: Schema) -> Scaffold:
    """The scaffold in a task_1 file. Raises `DataError` for a file without one, `ConfigError` where its tool
    is not the one that `schema` reads."""
    found = scaffold(path)
    check_tools(found.tools, schema, str(path))
    return found


def of_card(card: cards.Card | None, where: str, schema: Schema) -> Scaffold | None:
    """The scaffold in an adapter's note; None where it says nothing. Raises `ConfigError` as `read`."""
    if card is None or (card.system_prompt is None and not card.tools):
        return None
    if card.tools:
        check_tools(card.tools, schema, where)
    return Scaffold(card.system_prompt or "", card.tools or [])


def check_tools(tools: Sequence[Mapping[str, Any]], schema: Schema, where: str) -> None:
    """Raises `ConfigError` where answers to `tools` could never be read in `schema`."""
    wanted = schema.form.name if isinstance(schema.form, ToolForm) else None
    names = [str((tool.get("function") or {}).get("name")) for tool in tools]
    if wanted not in names:
        reads = f"reads calls of {wanted!r}" if wanted else "is answered as text"
        raise ConfigError(f"{where}: its tools are {', '.join(names)}, and schema {schema.name!r} {reads}")


def read_if_given(path: str | Path | None, schema: Schema) -> Scaffold | None:
    """`read`; None for no path."""
    return None if path is None else read(path, schema)


def of_row(row: Mapping[str, Any], found: Scaffold | None) -> dict[str, Any]:
    """A prepared row with the scaffold's system turn and tools in place of its own."""
    if found is None:
        return dict(row)
    return {**row, "messages": applied(row["messages"], found), "tools": found.tools or row.get("tools")}


def applied(messages: Sequence[Turn], found: Scaffold | None) -> list[Turn]:
    """The turns with the scaffold's system text in front, in place of their own."""
    turns = list(messages)
    if found is None or not found.system:
        return turns
    if turns and turns[0].get("role") == "system":
        turns = turns[1:]
    return [{"role": "system", "content": [{"type": "text", "text": found.system}]}, *turns]
