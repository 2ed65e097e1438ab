"""Holding one row to the rules.

Strategy: `bind_gold` settles the answer against its schema, `conversation` walks the finished turns once; a
`Judge` hears of every broken rule.
Promises: pure; a row that passes is one that every trainer of the `messages` layout reads as it was meant."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import replace
from pydantic import ValidationError

from dfkdata.common.plugins import suggestion
from dfkdata.rows.messages import read_text
from dfkdata.rows.record import Fault, Record
from dfkdata.schemas import JsonForm, Label, Prose, Schema, TextForm, ToolForm
from dfkdata.validation.rules import Judge

Message = dict[str, Any]


def bind_gold(record: Record, schema: Schema, judge: Judge) -> Record:
    """`record` with its gold valid for `schema`: labels canonical, null slots as they are.

    Faults: LABEL_UNKNOWN with a suggestion, ANSWER_COPIES_PROMPT, TOOL_ARGS_INVALID or GOLD_INVALID."""
    answer = record.gold if record.gold is not None else _written_gold(record, schema)
    if answer is None:
        return record
    gold = dict(answer)
    fields = schema.answer.model_fields
    if gold and fields.keys().isdisjoint(gold):  # an answer of optional fields would accept it as empty
        hint = f"it has {', '.join(fields)}; is this the right --schema?"
        reason = f"no field of the answer belongs to the schema {schema.name!r}"
        raise Fault("GOLD_INVALID", reason, path="gold", value=gold, hint=hint)
    for name, role in schema.roles.items():
        value = gold.get(name)
        if isinstance(role, Label) and isinstance(value, str):
            gold[name] = _label(value, role, name)
        elif isinstance(role, Prose) and isinstance(value, str) and value and value in record.fields.values():
            reason, hint = "the answer is a field of the prompt", "write an answer of its own"
            judge(Fault("ANSWER_COPIES_PROMPT", reason, path=name, value=value, hint=hint))
    _validate(gold, schema, judge)
    return replace(record, gold=gold)


def _written_gold(record: Record, schema: Schema) -> dict[str, Any] | None:
    """The gold that a carried answer says in the schema's form; None for a row without an answer."""
    if not record.messages or record.messages[-1].get("role") != "assistant":
        return None
    last = record.messages[-1]
    found: dict[str, Any] | None
    if isinstance(schema.form, ToolForm):
        calls = [call["function"] for call in last.get("tool_calls", ())]
        found = next((call["arguments"] for call in calls if call["name"] == schema.form.name), None)
    else:
        text = "".join(part.get("text", "") for part in last["content"])
        found = (
            read_text(text, schema.form)
            if isinstance(schema.form, TextForm)
            else _json_gold(text, schema.form)
        )
    if found is None:
        hint = (
            f"the schema {schema.name!r} expects another form; leave --schema out to keep answers as they are"
        )
        path = f"messages.{len(record.messages) - 1}"
        raise Fault(
            "GOLD_INVALID", "the answer is not of the schema's form", path=path, value=last, hint=hint
        )
    return found


def _json_gold(text: str, form: JsonForm) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    if form.field is not None:
        return {form.field: value}
    return value if isinstance(value, dict) else None


def _label(value: str, role: Label, name: str) -> str:
    resolved = role.labels.resolve(value)
    if resolved is None:
        near = suggestion(value.strip().lower(), role.labels.spellings).removeprefix("; ")
        hint = near or f"one of {', '.join(role.labels.canonical)}"
        raise Fault("LABEL_UNKNOWN", f"{value!r} is no label", path=name, value=value, hint=hint)
    return resolved.label


def _validate(gold: dict[str, Any], schema: Schema, judge: Judge) -> None:
    try:
        schema.answer.model_validate(gold)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(["gold", *(str(step) for step in first["loc"])])
        code = "TOOL_ARGS_INVALID" if isinstance(schema.form, ToolForm) else "GOLD_INVALID"
        hint = f"see the schema: dfkdata schema {schema.name}"
        judge(Fault(code, first["msg"], path=place, value=first["input"], hint=hint))


def plain_question(messages: list[Message]) -> str:
    """The question where turns are one question and one answer in text that `conversation` finds nothing
    wrong with; empty for all others. Nearly every row of text is so, and this takes half the time."""
    if len(messages) != 2:
        return ""
    user, answer = messages
    if user["role"] != "user" or answer["role"] != "assistant" or "tool_calls" in answer:
        return ""
    asked, said = user["content"], answer["content"]
    if len(asked) != 1 or len(said) != 1 or asked[0]["type"] != "text" or said[0]["type"] != "text":
        return ""
    question: str = asked[0]["text"]
    text = said[0]["text"]
    if not question or not text or question == text or question.isspace() or text.isspace():
        return ""
    return question


def is_plain(row: dict[str, Any]) -> bool:
    """Whether a row is a plain question with its answer and nothing else, so that it need not be walked."""
    if row["images"] or "videos" in row or "audios" in row:
        return False
    return bool(plain_question(row["messages"]))


def conversation(row: dict[str, Any], judge: Judge) -> None:
    """Hold the turns of a canonical row to the rules; `judge` hears of each one that is broken."""
    messages = row["messages"]
    if is_plain(row):
        return
    if not messages:
        raise Fault("ROLE_ORDER", "a row without turns", path="messages", value=messages)
    before, asked = "", ""
    for number, message in enumerate(messages):
        role = message.get("role")
        if role == "user":
            if before == "user":
                judge(_order(number, "two user turns in a row"))
            asked = _user(message, number, judge)
        elif role == "assistant":
            _assistant(message, number, (before, asked), row, judge)
        else:
            _other_turn(role, number, before, messages, judge)
        before = role
    if before != "assistant":
        reason, hint = (
            f"the row ends with a {before} turn",
            "leave it out, or let it pass with NO_ANSWER=warn",
        )
        judge(Fault("NO_ANSWER", reason, path=f"messages.{len(messages) - 1}", hint=hint))
    _counts(row, judge)


def _counts(row: dict[str, Any], judge: Judge) -> None:
    """As many placeholders as files of each kind, over all turns."""
    found = {"image": 0, "video": 0, "audio": 0}
    for message in row["messages"]:
        for part in message["content"]:
            if part["type"] != "text":
                found[part["type"]] += 1
    for kind, placeholders in found.items():
        files = row.get(f"{kind}s", [])
        if placeholders != len(files):
            code = "IMG_COUNT" if kind == "image" else "MEDIA_COUNT"
            reason = f"{placeholders} {kind} placeholders for {len(files)} {kind}s"
            hint = f"one placeholder for each {kind}"
            judge(Fault(code, reason, path=f"{kind}s", value=files, hint=hint))


def _misplaced(part: Message, role: str, number: int) -> Fault:
    reason, path = f"{part['type']} in a turn of the role {role!r}", f"messages.{number}.content"
    return Fault("IMG_POSITION", reason, path=path, hint="move it to a user turn")


def _order(number: int, reason: str) -> Fault:
    hint = "user and assistant take turns, user first; a tool turn follows the call"
    return Fault("ROLE_ORDER", reason, path=f"messages.{number}.role", hint=hint)


def _user(message: Message, number: int, judge: Judge) -> str:
    """The turn's text."""
    text, media = "", False
    for part in message["content"]:
        if part["type"] == "text":
            text = f"{text}\n{part['text']}" if text else part["text"]
        else:
            media = True
    if not media and (not text or text.isspace()):
        judge(Fault("EMPTY_USER", "a user turn without text or image", path=f"messages.{number}.content"))
    return text


def _assistant(
    message: Message, number: int, asked: tuple[str, str], row: dict[str, Any], judge: Judge
) -> None:
    """asked: the role of the turn before, and the text of the last user turn."""
    if asked[0] != "user" and asked[0] != "tool":
        judge(_order(number, f"an assistant turn after {asked[0] or 'nothing'}"))
    answer = ""
    for part in message["content"]:
        if part["type"] == "text":
            answer += part["text"]
        else:
            judge(_misplaced(part, "assistant", number))
    if "tool_calls" in message:
        _calls(message["tool_calls"], number, row.get("tools"), judge)
    elif not answer or answer.isspace():
        path = f"messages.{number}.content"
        judge(Fault("EMPTY_ANSWER", "an assistant turn without text or call", path=path))
    if answer == asked[1] and answer:
        reason = "the answer is the user turn again"
        judge(Fault("ANSWER_COPIES_PROMPT", reason, path=f"messages.{number}", value=answer))


def _calls(calls: list[Any], number: int, tools: list[Any] | None, judge: Judge) -> None:
    known = {tool["function"]["name"]: tool["function"].get("parameters") for tool in tools or []}
    for index, call in enumerate(calls):
        path = f"messages.{number}.tool_calls.{index}.function"
        function = call.get("function") or {}
        name, arguments = function.get("name"), function.get("arguments")
        if not isinstance(arguments, dict):
            reason = "tool arguments are no object"
            raise Fault("TOOL_ARGS_NOT_OBJECT", reason, path=f"{path}.arguments", value=arguments)
        if name not in known:
            hint = f"the row's tools are {', '.join(known) or 'none'}"
            judge(Fault("TOOL_UNKNOWN", f"no tool {name!r}", path=f"{path}.name", value=name, hint=hint))
        elif known[name]:
            _fits(arguments, known[name], f"{path}.arguments", judge)


def _fits(arguments: dict[str, Any], parameters: Any, path: str, judge: Judge) -> None:
    """Arguments against the tool's own JSON Schema."""
    validator = _validator(msgspec.json.encode(parameters))
    if validator is None:
        reason, hint = "the tool's parameters are no JSON Schema", "repair the tool definition"
        raise Fault("TOOLS_INVALID", reason, path="tools", value=parameters, hint=hint)
    if not validator.is_valid(arguments):
        error = next(iter(validator.iter_errors(arguments)))
        place = ".".join([path, *(str(step) for step in error.instance_path)])
        judge(Fault("TOOL_ARGS_INVALID", error.message, path=place, value=arguments))


@lru_cache(maxsize=256)
def _validator(parameters: bytes) -> Any:
    """A compiled schema; None where it is none. References to other documents are not followed."""
    import jsonschema_rs

    def refuse(uri: str) -> Any:
        raise LookupError(uri)

    try:
        return jsonschema_rs.validator_for(msgspec.json.decode(parameters), retriever=refuse)
    except (ValueError, LookupError, jsonschema_rs.ReferencingError):
        return None


def _other_turn(role: Any, number: int, before: str, messages: list[Message], judge: Judge) -> None:
    """System turns come first; tool turns follow calls; no other role is known."""
    path = f"messages.{number}.role"
    if role == "system":
        if number:
            reason, hint = f"turn {number} is a system turn", "put the system turn first"
            judge(Fault("SYSTEM_NOT_FIRST", reason, path=path, hint=hint))
        for part in messages[number]["content"]:
            if part["type"] != "text":
                judge(_misplaced(part, "system", number))
    elif role != "tool":
        raise Fault("ROLE_UNKNOWN", f"the role {role!r}", path=path, value=role)
    elif before != "tool" and not (before == "assistant" and messages[number - 1].get("tool_calls")):
        judge(_order(number, "a tool turn without a call before it"))


_CONTROL = re.compile(rb"<\|[A-Za-z0-9_]+\|>")
_LESS = ord("<")


def may_control(turns: bytes) -> bool:
    """Whether encoded turns hold the beginning of a control token."""
    return _LESS in turns and b"<|" in turns  # a number is found five times as fast as a text


def control_token(turns: bytes) -> str | None:
    """The first control token in encoded turns. Tokenizers obey them, so a text that says <|image_pad|> is
    one more picture, and one that says <|im_end|> ends the turn."""
    found = _CONTROL.search(turns) if may_control(turns) else None
    return found.group().decode() if found is not None else None


def control_tokens(turns: bytes, judge: Judge) -> None:
    """Look for control tokens in encoded turns."""
    name = control_token(turns)
    if name is not None:
        hint = "write it in another way, or drop the row"
        judge(Fault("CONTROL_TOKEN", f"the text says {name}", path="messages", value=name, hint=hint))


# Joiners (U+200C, U+200D) are left out: emoji and several scripts need them.
_ZERO_WIDTH = ("\u200b", "\u2060", "\ufeff", "\u00ad")


def nfc(text: str) -> str:
    """`text` in Unicode normal form C."""
    return unicodedata.normalize("NFC", text)


def is_normal(text: str) -> bool:
    """Whether `normal` has nothing to say about a text."""
    return unicodedata.is_normalized("NFC", text) and not any([sign in text for sign in _ZERO_WIDTH])


def normal(text: str, judge: Judge) -> str | None:
    """The JSON `text` of some turns as it is to be written; None when it stays as it is.

    JSON's own signs are ASCII that composes with nothing, so the text can be normalised as a whole."""
    fixed = text
    if any(character in text for character in _ZERO_WIDTH):
        judge(Fault("ZERO_WIDTH", "invisible characters in the text", path="messages"))
        if judge.policy("ZERO_WIDTH") == "fix":
            fixed = text.translate(dict.fromkeys(map(ord, _ZERO_WIDTH)))
    if not unicodedata.is_normalized("NFC", fixed):
        judge(Fault("TEXT_NFC", "the text is not in Unicode normal form C", path="messages"))
        if judge.policy("TEXT_NFC") == "fix":
            fixed = nfc(fixed)
    return fixed if fixed != text else None
