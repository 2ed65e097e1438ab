"""Replace the system text and the tool definitions of prompts by those that an adapter was trained with.

How it works: an adapter of this project carries both in its `dfk.json`; for a foreign one they stand in the
data that it was trained on, a `task_1` file (`--scaffold`). If neither is given, the schema's own count.

Guarantees:

- `run`, `predict` and `serve` share one rule: a scaffold replaces the system turn and the tools of every
  prompt and nothing else.
- A scaffold that differs from the `dfk.json` beside it is refused, and so is a tool that the schema does not
  read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError
from dfkdata.formats.task_1 import scaffold
from dfkdata.rows.scaffold import Scaffold
from dfkdata.schemas import Schema, ToolForm
from dfkeval.models import metadata

Turn = dict[str, Any]


def read(path: str | Path, schema: Schema) -> Scaffold:
    """Return the scaffold in a task_1 file.

    Raises:
        DataError: The file holds none.
        ConfigError: Its tool is not the one that `schema` reads.
    """
    written = scaffold(path)
    check_tools(written.tools, schema, str(path))
    return written


def of_card(card: metadata.ModelMetadata | None, where: str, schema: Schema) -> Scaffold | None:
    """Return the scaffold in an adapter's `dfk.json`; None if it holds none. Raises `ConfigError` as
    `read`."""
    if card is None or (card.system_prompt is None and not card.tools):
        return None
    if card.tools:
        check_tools(card.tools, schema, where)
    return Scaffold(card.system_prompt or "", card.tools or [])


def check_tools(tools: Sequence[Mapping[str, Any]], schema: Schema, where: str) -> None:
    """Raise `ConfigError` if answers to `tools` could never be read in `schema`."""
    own = schema.form.name if isinstance(schema.form, ToolForm) else None
    names = [str((tool.get("function") or {}).get("name")) for tool in tools]
    if own not in names:
        reads = f"reads calls of {own!r}" if own else "is answered as text"
        raise ConfigError(f"{where}: its tools are {', '.join(names)}, and schema {schema.name!r} {reads}")


def read_if_given(path: str | Path | None, schema: Schema) -> Scaffold | None:
    """Return the scaffold in a file; None if no file is given. Raises as `read`."""
    return None if path is None else read(path, schema)


def of_row(row: Mapping[str, Any], replacement: Scaffold | None) -> dict[str, Any]:
    """Return a row with the scaffold's system turn and tools in place of its own."""
    if replacement is None:
        return dict(row)
    tools = replacement.tools or row.get("tools")
    return {**row, "messages": applied(row["messages"], replacement), "tools": tools}


def applied(messages: Sequence[Turn], replacement: Scaffold | None) -> list[Turn]:
    """Return the turns with the scaffold's system text in front, in place of their own."""
    turns = list(messages)
    if replacement is None or not replacement.system:
        return turns
    if turns and turns[0].get("role") == "system":
        turns = turns[1:]
    return [{"role": "system", "content": [{"type": "text", "text": replacement.system}]}, *turns]
