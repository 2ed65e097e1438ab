"""Write records as rows of the `messages` layout, read such rows back from disk, and check their types.

How it works. The schema gives the order of the prompt's parts, and `prompt` fills them in. Content is always a
list of parts and an image is always a bare placeholder, since columnar loaders fill missing keys of mixed parts
with nulls and chat templates then render text as an image.

Guarantees:
- This is the only place that writes prompt text: training, evaluation and prediction all call `prompt`, and
  equal records give equal bytes.
- `training_row` is pure: equal records give equal bytes.
- `load_rows` resolves the paths of media files, also of those that parts name themselves, and refuses files that a row
  may not name (`media_roots`) and what is not a row of this layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from dfkdata.common import data_uri, limits
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.media_roots import MediaRoots
from dfkdata.common.plugins import suggestion
from dfkdata.rows.chat_turns import tools as read_tools
from dfkdata.rows.loss_weight import row_flags, turn_weight
from dfkdata.rows.part_files import with_part_files
from dfkdata.rows.record import Record, RowError
from dfkdata.schemas import Images, JsonForm, Lines, Part, Schema, Text, TextForm, ToolForm, Value

Message = dict[str, Any]


def prompt(record: Record, schema: Schema) -> list[Message]:
    """Return the turns before the answer.

    Args:
        record: The row; one with its own turns gives these, less its last answer.
        schema: The order and wording of the prompt.

    Returns:
        Turns of the `messages` layout: {"role", "content": [parts]}.

    Example:
        >>> from dfkdata import Record, prompt, schemas
        >>> record = Record(id="1", group="", source="captions.jsonl:1", fields={"caption": "A red car."})
        >>> turns = prompt(record, schemas.load("caption"))
        >>> turns[-1]
        {'role': 'user', 'content': [{'type': 'text', 'text': 'A red car.'}]}
    """
    if record.messages is not None:
        return before_answer(record.messages)
    parts = [part for spec in schema.prompt.parts for part in _parts(spec, record)]
    user = [{"role": "user", "content": parts}]
    if schema.prompt.system is None:
        return user
    return [{"role": "system", "content": [text_part(schema.prompt.system)]}, *user]


def before_answer(messages: list[Message]) -> list[Message]:
    """Return the turns before the last assistant turn; all of them if the assistant does not speak last."""
    return messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages


def _parts(spec: Part, record: Record) -> list[dict[str, str]]:
    match spec:
        case Text(text):
            return [text_part(text)]
        case Lines(lines):
            filled = [f"{name}: {record.fields[key]}" for name, key in lines if record.fields.get(key)]
            return [text_part("\n".join(filled))] if filled else []
        case Value(field, otherwise):
            text = record.fields.get(field) or otherwise
            return [text_part(text)] if text else []
        case Images():
            files = (("image", record.images), ("video", record.videos), ("audio", record.audios))
            return [{"type": kind} for kind, paths in files for _ in paths]


def text_part(text: str) -> dict[str, str]:
    """Return a text part of a turn."""
    return {"type": "text", "text": text}


Nulls = Literal["omit", "keep"]


def training_row(record: Record, schema: Schema | None = None, *, nulls: Nulls = "omit") -> dict[str, Any]:
    """Return the row of the `messages` layout, with image paths as in the record.

    Args:
        record: The row; without gold it gives a row that can be asked but not trained on, whose last turn is
            the user's.
        schema: What the row asks for and how; None for a record that carries its own turns.
        nulls: "omit" leaves None slots out of the answer, "keep" writes them.

    Raises:
        ConfigError: If the record carries no turns and no schema is given.

    Example:
        >>> from dfkdata import Record, schemas, training_row
        >>> gold = {"label": "netral", "analisis": "Benar."}
        >>> record = Record(id="1", group="", source="posts.csv:2", fields={"title": "Banjir"}, gold=gold)
        >>> row = training_row(record, schemas.load("dfk_label"))
        >>> row["messages"][-1]["content"][0]["text"].splitlines()
        ['Label: netral', '', 'Analisis: Benar.']
    """
    row: dict[str, Any] = {
        "id": record.id,
        "messages": record.messages if record.messages is not None else _turns(record, schema, nulls),
        "images": [*record.images],
    }
    if record.videos:
        row["videos"] = [*record.videos]
    if record.audios:
        row["audios"] = [*record.audios]
    tools = record.tools if record.tools is not None or schema is None else schema.tools
    if tools:
        row["tools"] = tools
    if record.chat_template_kwargs:
        row["chat_template_kwargs"] = record.chat_template_kwargs
    meta: dict[str, Any] = {"group": record.group, "source": record.source}
    if schema is not None:
        meta["schema"], meta["variant"] = schema.name, schema.variant
    if record.gold is not None:
        meta["gold"] = {key: value for key, value in record.gold.items() if value is not None}
    meta.update(record.meta)
    row["meta"] = meta
    return row


class PlainRow(msgspec.Struct, gc=False):
    """Hold a row of the `messages` layout with encoded turns and nothing else; it takes half the time."""

    id: str
    messages: msgspec.Raw
    images: tuple[()]
    meta: PlainMeta


class PlainMeta(msgspec.Struct, gc=False):
    """Hold the facts that `training_row` writes for each row."""

    group: str
    source: str


def _turns(record: Record, schema: Schema | None, nulls: Nulls) -> list[Message]:
    if schema is None:
        raise ConfigError(f"{record.source}: the row carries no turns of its own; give its schema")
    question = prompt(record, schema)
    return question if record.gold is None else [*question, answer_turn(record.gold, schema, nulls=nulls)]


def answer_turn(gold: dict[str, Any], schema: Schema, *, nulls: Nulls = "omit") -> Message:
    """Return the assistant turn that answers `gold` in the schema's form."""
    match schema.form:
        case TextForm():
            return {"role": "assistant", "content": [text_part(write_text(gold, schema.form))]}
        case JsonForm(field):
            value = gold[field] if field is not None else gold
            return {"role": "assistant", "content": [text_part(msgspec.json.encode(value).decode())]}
        case ToolForm(name):
            slots = {key: value for key, value in gold.items() if nulls == "keep" or value is not None}
            call = {"type": "function", "function": {"name": name, "arguments": slots}}
            return {"role": "assistant", "content": [], "tool_calls": [call]}


def write_text(gold: dict[str, Any], form: TextForm) -> str:
    """Return the answer as marked text, byte for byte what a trained model should write."""
    printed = dict(form.printed)
    parts = (f"{marker}{printed.get(gold[field], gold[field])}" for marker, field in form.parts)
    return "".join(parts) + form.end


def read_text(text: str, form: TextForm) -> dict[str, str] | None:
    """Return the values behind the markers of an answer that `write_text` wrote; None for any other text.

    It is exact, without repairs, and only for training data: `dfkeval.decode` reads what a model wrote."""
    if not text.startswith(form.parts[0][0]) or not text.endswith(form.end):
        return None
    at, stop, values = 0, len(text) - len(form.end), {}
    for (marker, field), (following, _) in zip(form.parts, (*form.parts[1:], ("", "")), strict=True):
        at += len(marker)
        end = text.find(following, at, stop) if following else stop
        if end < 0:
            return None
        values[field], at = text[at:end], end
    return values


def load_rows(path: str | Path, *, opens_media: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the rows of a `messages` file, with media as absolute paths and `tools` in OpenAI's form.

    Args:
        path: A JSONL file that `dfkdata convert` wrote, or one like it. Embedded images stay as they are.
        opens_media: Whether the caller may open the media, so that only names in allowed folders are taken
            (`dfkdata.common.media_roots`).

    Raises:
        DataError: If the file cannot be read, or a line is not a row of this layout; it names file and line.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> from dfkdata import load_rows
        >>> turn = {"role": "user", "content": [{"type": "text", "text": "Hello"}]}
        >>> path = Path(tempfile.mkdtemp()) / "train.jsonl"
        >>> _ = path.write_text(json.dumps({"id": "1", "messages": [turn]}))
        >>> [row["id"] for row in load_rows(path)]
        ['1']
    """
    path = Path(path)
    root = path.parent.resolve()
    roots = MediaRoots(path) if opens_media else None
    try:
        lines = path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from error
    with lines:
        for number, line in enumerate(limits.lines(lines, str(path)), start=1):
            if line.strip():
                yield read_row(line, f"{path}:{number}", root, roots)


def unreadable(path: str | Path, error: OSError) -> DataError:
    """Return the error about a file of rows that cannot be read; it names the files that could be meant."""
    path = Path(path)
    if path.is_dir():
        names = sorted(file.name for file in path.iterdir() if file.suffix == ".jsonl")
        inside = f"name one of its files: {', '.join(names[:5])}" if names else "it holds no .jsonl file"
        return DataError(f"{path}: is a folder; {inside}")
    known = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    meant = suggestion(path.name, known)
    return DataError(
        f"{path}: cannot be read ({error.strerror}){meant}; give a JSONL file of the messages layout"
    )


def read_row(line: bytes, where: str, root: Path, roots: MediaRoots | None) -> dict[str, Any]:
    """Return the row in a line of the file `where`, with absolute paths; `roots` says where media may lie, None
    anywhere."""
    try:
        row = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise DataError(f"{where}: not JSON ({error}); raw data becomes rows with dfkdata convert") from error
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list) or "id" not in row:
        raise DataError(
            f"{where}: not a row of the messages layout; it needs `id` and `messages`"
            " (dfkdata convert writes them)"
        )
    if not all(isinstance(turn, dict) and isinstance(turn.get("role"), str) for turn in row["messages"]):
        raise DataError(f"{where}: a turn of `messages` is not an object with a `role`")
    for key in ("images", "videos", "audios"):
        paths = row.get(key) or []
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise DataError(f"{where}: `{key}` is not a list of paths")
    row = with_part_files(row)
    row["images"] = [_absolute(image, root, where) for image in row.get("images") or []]
    for key in ("videos", "audios"):
        if row.get(key):
            row[key] = [_absolute(path, root, where) for path in row[key]]
    if row.get("tools"):
        with suppress(DataError):  # told with the row where it is used
            row["tools"] = shown_tools(row["tools"], where)
    if roots is not None:
        _check_places(row, where, roots)
    return row


def _check_places(row: dict[str, Any], where: str, roots: MediaRoots) -> None:
    for key in ("images", "videos", "audios"):
        for path in row.get(key) or ():
            if not data_uri.is_data_uri(path) and not roots.permits(path):
                raise DataError(f"{where}: `{key}`: {roots.refusal(path)}")


def shown_tools(value: Any, where: str) -> list[dict[str, Any]] | None:
    """Return a row's tools as training, evaluation and servers show them: in OpenAI's form, whatever form they are in.

    Args:
        value: The `tools` of a row.
        where: The row or the line, for the error.

    Raises:
        DataError: A definition cannot be read.
    """
    if value is None:
        return None
    if not isinstance(value, list):
        raise DataError(f"{where}: tools is not a list of objects")
    try:
        return read_tools(value)
    except RowError:
        for at, tool in enumerate(value):
            _check_tool(tool, f"{where}: tools[{at}]")
        raise


def _check_tool(tool: Any, where: str) -> None:
    """Raise `DataError` if a definition cannot be read."""
    if not isinstance(tool, dict):
        raise DataError(f"{where}: a tool definition is an object, not {type(tool).__name__}")
    try:
        read_tools([tool])
    except RowError as error:
        raise DataError(f"{where}: {error.reason}; {error.hint}") from error


def _absolute(file: Any, root: Path, where: str) -> str:
    if not isinstance(file, str):
        raise DataError(f"{where}: a media part holds {file!r:.80}; name its file by a path or a data: URI")
    return file if data_uri.is_data_uri(file) else str(root / file)


def check_row(row: Any) -> None:
    """Check that a row has the types that chat templates need, not what a template makes of them.

    A row that was written by hand is refused with its reason instead of failing somewhere inside a template.

    Raises:
        DataError: It names the row's id and the place of the first value of a wrong type.
    """
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        raise DataError(f"row {row!r:.80}: not an object with a list of `messages`")
    if not isinstance(row.get("id"), str | int) or isinstance(row["id"], bool) or row["id"] == "":
        reason = f"its `id` is {row['id']!r:.40}" if "id" in row else "it has no `id`"
        raise DataError(
            f"row that begins {_beginning(row)}: {reason}; give each row a text of its own as `id`"
        )
    for fault in (
        _media(row),
        _options(row),
        _flag(row),
        *(_turn(at, turn) for at, turn in enumerate(row["messages"])),
    ):
        if fault is not None:
            raise DataError(f"row {row['id']}: {fault}")


def _beginning(row: dict[str, Any]) -> str:
    """Return the start of the last turn of the user, by which people find a row without an id."""
    turns = [turn for turn in row["messages"] if isinstance(turn, dict)]
    asked = [turn.get("content") for turn in turns if turn.get("role") == "user"] or [row["messages"]]
    parts = asked[-1] if isinstance(asked[-1], list) else [{"text": asked[-1]}]
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return repr(" ".join(texts)[:80] if texts else f"{asked[-1]!r:.80}")


def _media(row: dict[str, Any]) -> str | None:
    for key in ("images", "videos", "audios"):
        if row.get(key) is not None and not isinstance(row[key], list | tuple):
            return f"{key} is not a list but {type(row[key]).__name__}"
    return None


def _options(row: dict[str, Any]) -> str | None:
    for key in ("meta", "chat_template_kwargs"):
        if not isinstance(row.get(key) or {}, dict):
            return f"{key} is not an object"
    return None if _objects(row.get("tools")) else "tools is not a list of objects"


def _flag(row: dict[str, Any]) -> str | None:
    return next((f"{error.reason} ({error.value!r}); {error.hint}" for error in row_flags(row)), None)


def _objects(value: Any) -> bool:
    """Return whether `value` is None or a list of objects."""
    return value is None or (isinstance(value, list) and all(isinstance(item, dict) for item in value))


def _turn(at: int, turn: Any) -> str | None:
    where = f"messages[{at}]"
    if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
        return f"{where} is not an object with a role"
    content = turn.get("content")
    if not isinstance(content, str) and not _objects(content):
        return f"{where}.content is neither a text nor a list of parts"
    if not _objects(turn.get("tool_calls")):
        return f"{where}.tool_calls is not a list of objects"
    for call in turn.get("tool_calls") or ():
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return f"{where}.tool_calls: a call names no function"
        if not isinstance(function.get("arguments", {}), dict):
            return f"{where}.tool_calls: arguments are not an object; dfkdata convert reads JSON text"
    try:
        weight = turn_weight(turn, where)
    except RowError as error:
        return f"{error.path}: {error.reason} ({error.value!r}); {error.hint}"
    if weight and turn["role"] != "assistant":
        return f"{where} asks to be trained on, but its role is {turn['role']}; leave the flag out"
    return None
