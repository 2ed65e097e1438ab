"""Read and check the rows of an evaluation, put a scaffold in place of their own, and make them into items.

A scaffold is the system text and the tool definitions that an adapter was trained with. An adapter of this
project carries both in its `dfk.json`; for a foreign one they stand in the data that it was trained on, a
`task_1` file (`--scaffold`). If neither is given, the row's own count.

Guarantees:

- `run`, `predict` and `serve` share one rule: a scaffold replaces the system turn and the tools of every
  prompt and nothing else.
- A scaffold that differs from the `dfk.json` beside it is refused, and so is a tool that the schema does not
  read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.hashing import file_sha256
from dfkdata.common.stored_lines import MadeSequence
from dfkdata.common.tool_definitions import DefinitionError, function_definitions
from dfkdata.formats.task_1 import scaffold
from dfkdata.rows.record import Scaffold
from dfkdata.rows.stored_rows import stored_rows
from dfkdata.schemas import Schema, ToolForm
from dfkeval.evaluation.grading import EvalItem, asked, draw_name, drawn, eval_item
from dfkeval.models import metadata
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Request, Sample

Turn = dict[str, Any]


def read_scaffold(path: str | Path, schema: Schema) -> Scaffold:
    """Return the scaffold in a task_1 file.

    Raises:
        DataError: The file holds none.
        ConfigError: Its tool is not the one that `schema` reads.
    """
    written = scaffold(path)
    check_tools(written.tools, schema, str(path))
    return written


def card_scaffold(card: metadata.ModelMetadata | None, where: str, schema: Schema) -> Scaffold | None:
    """Return the scaffold in an adapter's `dfk.json`; None if it holds none. Raises `ConfigError` as
    `read_scaffold`."""
    if card is None or (card.system_prompt is None and not card.tools):
        return None
    if card.tools:
        check_tools(card.tools, schema, where)
    return Scaffold(card.system_prompt or "", card.tools or [])


def check_tools(tools: Sequence[Mapping[str, Any]], schema: Schema, where: str) -> None:
    """Raise `ConfigError` if answers to `tools` could never be read in `schema`."""
    own = schema.form.name if isinstance(schema.form, ToolForm) else None
    try:
        names = [each["function"]["name"] for tool in tools for each in function_definitions(tool)]
    except DefinitionError as error:
        raise ConfigError(f"{where}: {error}") from error
    if own not in names:
        reads = f"reads calls of {own!r}" if own else "is answered as text"
        raise ConfigError(f"{where}: its tools are {', '.join(names)}, and schema {schema.name!r} {reads}")


def config_scaffold(config: EvalConfig, schema: Schema) -> Scaffold | None:
    """Return the scaffold of a configuration; None if it names none. Raises as `read_scaffold`."""
    return None if config.scaffold is None else read_scaffold(config.scaffold, schema)


def scaffolded_row(row: Mapping[str, Any], replacement: Scaffold | None) -> dict[str, Any]:
    """Return a row with the scaffold's system turn and tools in place of its own."""
    if replacement is None:
        return dict(row)
    tools = replacement.tools or row.get("tools")
    return {**row, "messages": scaffolded_turns(row["messages"], replacement), "tools": tools}


def scaffolded_turns(messages: Sequence[Turn], replacement: Scaffold | None) -> list[Turn]:
    """Return the turns with the scaffold's system text in front, in place of their own."""
    turns = list(messages)
    if replacement is None or not replacement.system:
        return turns
    if turns and turns[0].get("role") == "system":
        turns = turns[1:]
    return [{"role": "system", "content": [{"type": "text", "text": replacement.system}]}, *turns]


def read_rows(config: EvalConfig, *, opens_media: bool = True) -> Sequence[dict[str, Any]]:
    """Return the rows to ask, which stay in their file. Raises `DataError` if there are none, or if an id stands twice.

    Args:
        config: The configuration.
        opens_media: As for `load_rows`."""
    place, count = config.part
    names = list[str]()

    def check(at: int, row: dict[str, Any]) -> None:
        if at % count != place - 1:
            return
        if not row["messages"] or not all(map(_is_turn, row["messages"])):
            raise DataError(
                f"{config.data}: row {str(row['id'])!r}: a turn is not {{role, content}} with a list of parts"
                " (dfkdata convert writes them)"
            )
        names.append(str(row["id"]))

    everything = stored_rows(config.data, check, opens_media=opens_media, limit=config.limit)
    if not names:
        part = f" in shard {config.shard}" if config.shard else ""
        raise DataError(f"{config.data}: no rows to evaluate{part}")
    _check_ids(config.data, names)
    return everything[place - 1 :: count]


def _check_ids(data: Path, names: Iterable[str]) -> None:
    seen, twice = set[str](), dict[str, None]()
    for name in names:
        if name in seen:
            twice[name] = None
        seen.add(name)
    if twice:
        raise DataError(f"{data}: {len(twice)} ids are written twice, for example {next(iter(twice))!r}")


def _is_turn(turn: Any) -> bool:
    if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
        return False
    content = turn.get("content")
    if not isinstance(content, list):
        return content is None or isinstance(content, str)
    return all(isinstance(part, str | dict) for part in content)


class EvalItems(MadeSequence[EvalItem]):
    """The items of an evaluation: every row, under the scaffold if there is one, once for each draw.

    Args:
        rows: Rows of the messages layout.
        config: The resolved configuration.
        schema: The schema of the answers.
        replacement: The scaffold; None for the rows' own.
    """

    def __init__(
        self, rows: Sequence[dict[str, Any]], config: EvalConfig, schema: Schema, replacement: Scaffold | None
    ) -> None:
        self._rows, self._schema, self._replacement = rows, schema, replacement
        self._side, self._repeats = config.max_image_side, config.sampling.repeats
        self._places = range(len(rows) * self._repeats)
        self._last: tuple[int, EvalItem] | None = None

    def ids(self) -> Iterator[str]:
        """Yield the id of each item."""
        for row in self._rows:
            yield from (draw_name(str(row["id"]), index, self._repeats) for index in range(self._repeats))

    def request(self, place: int) -> Request:
        """Return the question of one item; its pictures are not read."""
        at, index = divmod(place, self._repeats)
        return drawn(asked(self._row(at), self._side), index, self._repeats)

    def _make(self, place: int) -> EvalItem:
        at, index = divmod(place, self._repeats)
        if self._last is None or self._last[0] != at:
            self._last = at, eval_item(self._row(at), self._schema, self._side)
        item = self._last[1]
        return replace(item, request=drawn(item.request, index, self._repeats))

    def _row(self, at: int) -> dict[str, Any]:
        return scaffolded_row(self._rows[at], self._replacement)


def items_of(rows: Sequence[dict[str, Any]], config: EvalConfig, schema: Schema) -> EvalItems:
    """Return the items to ask.

    Args:
        rows: Rows of the messages layout.
        config: The resolved configuration.
        schema: The schema of the answers.

    Raises:
        DataError: Two draws share an id, or the scaffold cannot be read.
        ConfigError: The scaffold's tool is not the one that the schema reads.
    """
    items = EvalItems(rows, config, schema, config_scaffold(config, schema))
    if config.sampling.repeats > 1:
        _check_ids(config.data, items.ids())
    return items


def stored_item(sample: Sample) -> EvalItem:
    """Return the item of a sample, for a run whose data file is gone."""
    request = Request(id=sample.id, messages=[], images=sample.images, draw_index=sample.draw_index)
    item = EvalItem(request, sample.group, sample.gold, sample.source_text, sample.prompt, sample.key)
    return replace(item, slices=sample.slices)


def inputs_sha256(config: EvalConfig) -> str:
    """Return the hash of the data file; with a scaffold, the hash of both hashes."""
    hashes = [file_sha256(path) for path in (config.data, config.scaffold) if path is not None]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
