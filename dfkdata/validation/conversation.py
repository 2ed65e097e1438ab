"""Hold the turns of one row to the rules: roles, media, tool calls, control tokens, damage, Unicode normal form.

How it works. `check_conversation` walks the finished turns once and reports every rule that they break. The
other functions look at the turns' text; `normalised` returns the text that is to be written.

Guarantees:
- Nothing is read, written or changed in place.
- A row that passes is one that every trainer of the `messages` layout reads as it was meant."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from dfkdata.common.json_schema import SchemaError, Validator, encoded_document, pointer_steps
from dfkdata.common.unicode_forms import is_normalized, normalize
from dfkdata.rows.control_tokens import control_token
from dfkdata.rows.record import RowError
from dfkdata.validation.rules import RowReport

Message = dict[str, Any]

# Joiners (U+200C, U+200D) are left out: emoji and several scripts need them.
_ZERO_WIDTH = ("\u200b", "\u2060", "\ufeff", "\u00ad")


def plain_question(messages: list[Message]) -> str:
    """Return the question of turns that are one question and one answer in text and break no rule, else "".

    A system text may stand before. Nearly every row of text is so, and this takes half the time of
    `check_conversation`."""
    if len(messages) == 3 and _is_system_text(messages[0]):
        _, user, answer = messages
    elif len(messages) == 2:
        user, answer = messages
    else:
        return ""
    if user["role"] != "user" or answer["role"] != "assistant" or "tool_calls" in answer:
        return ""
    prompt, reply = user["content"], answer["content"]
    if len(prompt) != 1 or len(reply) != 1 or prompt[0]["type"] != "text" or reply[0]["type"] != "text":
        return ""
    question: str = prompt[0]["text"]
    text = reply[0]["text"]
    if not question or not text or question == text or question.isspace() or text.isspace():
        return ""
    return question


def _is_system_text(turn: Message) -> bool:
    return turn["role"] == "system" and all(part["type"] == "text" for part in turn["content"])


def is_plain(row: dict[str, Any]) -> bool:
    """Return whether a row is a plain question with its answer and nothing else, which breaks no rule."""
    if row["images"] or "videos" in row or "audios" in row:
        return False
    return bool(plain_question(row["messages"]))


def check_conversation(row: dict[str, Any], report: RowReport) -> None:
    """Check the turns of a canonical row.

    Args:
        row: The row of the `messages` layout.
        report: Called with each rule that the turns break.

    Raises:
        RowError: If the row cannot be used whatever the policies.
    """
    messages = row["messages"]
    if is_plain(row):
        return
    if not messages:
        raise RowError("ROLE_ORDER", "a row without turns", path="messages", value=messages)
    before, question = "", ""
    for number, message in enumerate(messages):
        role = message.get("role")
        if role == "user":
            if before == "user":
                report(_order(number, "two user turns in a row"))
            question = _user(message, number, report)
        elif role == "assistant":
            _assistant(message, number, before, question, row, report)
        else:
            _other_turn(role, number, before, messages, report)
        before = role
    if before != "assistant":
        reason, hint = (
            f"the row ends with a {before} turn",
            "leave it out, or let it pass with NO_ANSWER=warn",
        )
        report(RowError("NO_ANSWER", reason, path=f"messages.{len(messages) - 1}", hint=hint))
    _counts(row, report)
    if row["images"] or "videos" in row or "audios" in row:
        _tags(row, report)


def _tags(row: dict[str, Any], report: RowReport) -> None:
    """Report tags that stay text beside files of their kind, in turns where other formats read them as files."""
    tags = [f"<{kind}>" for kind in ("image", "video", "audio") if row.get(f"{kind}s")]
    found: dict[str, tuple[str, str]] = {}
    for number, message in enumerate(row["messages"]):
        for part in message["content"] if message["role"] in ("user", "tool") else ():
            if part["type"] == "text" and "<" in part["text"]:
                for tag in tags:
                    if tag in part["text"]:
                        found.setdefault(tag, (f"messages.{number}.content", part["text"]))
    if found:
        path, text = next(iter(found.values()))
        hint = (
            "if it stands for a file, read the rows with a format of tags: --from swift (messages), sharegpt or"
            " llava (conversations), query_response (one column asks, one answers); otherwise reword it"
        )
        reason = f"the row has files, and {' and '.join(found)} in its question was read as text"
        report(RowError("MEDIA_TAG", reason, path=path, value=text, hint=hint))


def _counts(row: dict[str, Any], report: RowReport) -> None:
    """Report a kind of media with more or fewer placeholders than files, over all turns."""
    shown = [
        part["type"] for message in row["messages"] for part in message["content"] if part["type"] != "text"
    ]
    if not shown and not row["images"] and "videos" not in row and "audios" not in row:
        return
    counts = {"image": 0, "video": 0, "audio": 0}
    for kind in shown:
        counts[kind] += 1
    for kind, placeholders in counts.items():
        files = row.get(f"{kind}s", [])
        if placeholders != len(files):
            code = "IMG_COUNT" if kind == "image" else "MEDIA_COUNT"
            reason = f"{placeholders} {kind} placeholders for {len(files)} {kind}s"
            hint = f"one placeholder for each {kind}; name each file once, in a part of a turn or in {kind}s"
            report(RowError(code, reason, path=f"{kind}s", value=files, hint=hint))


def _misplaced(part: Message, role: str, number: int) -> RowError:
    reason, path = f"{part['type']} in a turn of the role {role!r}", f"messages.{number}.content"
    return RowError("IMG_POSITION", reason, path=path, hint="move it to a user turn")


def _order(number: int, reason: str) -> RowError:
    hint = "user and assistant take turns, user first; a tool turn follows the call"
    return RowError("ROLE_ORDER", reason, path=f"messages.{number}.role", hint=hint)


def _user(message: Message, number: int, report: RowReport) -> str:
    """Check a user turn and return its text."""
    text, media = "", False
    for part in message["content"]:
        if part["type"] == "text":
            text = f"{text}\n{part['text']}" if text else part["text"]
        else:
            media = True
    if not media and (not text or text.isspace()):
        report(RowError("EMPTY_USER", "a user turn without text or image", path=f"messages.{number}.content"))
    return text


def _assistant(
    message: Message, number: int, before: str, question: str, row: dict[str, Any], report: RowReport
) -> None:
    """Check an assistant turn against the role `before` it and the last `question`."""
    if before not in ("user", "tool"):
        report(_order(number, f"an assistant turn after {before or 'nothing'}"))
    answer = ""
    for part in message["content"]:
        if part["type"] == "text":
            answer += part["text"]
        else:
            report(_misplaced(part, "assistant", number))
    if "tool_calls" in message:
        _calls(message["tool_calls"], number, row.get("tools"), report)
    elif not answer or answer.isspace():
        path = f"messages.{number}.content"
        report(RowError("EMPTY_ANSWER", "an assistant turn without text or call", path=path))
    if answer == question and answer:
        reason = "the answer is the user turn again"
        report(RowError("ANSWER_COPIES_PROMPT", reason, path=f"messages.{number}", value=answer))


def _calls(calls: list[Any], number: int, tools: list[Any] | None, report: RowReport) -> None:
    known = {tool["function"]["name"]: tool["function"].get("parameters") for tool in tools or []}
    for index, call in enumerate(calls):
        path = f"messages.{number}.tool_calls.{index}.function"
        function = call.get("function") or {}
        name, arguments = function.get("name"), function.get("arguments")
        if not isinstance(arguments, dict):
            reason = "tool arguments are no object"
            raise RowError("TOOL_ARGS_NOT_OBJECT", reason, path=f"{path}.arguments", value=arguments)
        if name not in known:
            hint = f"the row's tools are {', '.join(known) or 'none'}"
            report(RowError("TOOL_UNKNOWN", f"no tool {name!r}", path=f"{path}.name", value=name, hint=hint))
        elif known[name]:
            _fits(arguments, known[name], f"{path}.arguments", report)


def _fits(arguments: dict[str, Any], parameters: Any, path: str, report: RowReport) -> None:
    """Check arguments against the tool's own JSON Schema."""
    validator = _validator(msgspec.json.encode(parameters))
    if isinstance(validator, str):
        hint = "repair the tool definition"
        raise RowError("TOOLS_INVALID", validator, path="tools", value=parameters, hint=hint)
    issues = validator.issues(arguments)
    if issues:
        place = ".".join([path, *pointer_steps(issues[0].pointer)])
        report(RowError("TOOL_ARGS_INVALID", issues[0].message, path=place, value=arguments))


@lru_cache(maxsize=256)
def _validator(parameters: bytes) -> Validator | str:
    """Return the compiled schema of a tool's parameters, or why they are not a JSON Schema."""
    document = encoded_document(parameters)
    if isinstance(document, SchemaError):
        return f"the tool's parameters are not a JSON Schema: {document}"
    for pointer, name in document.unknown_types.items():
        return f"the tool's parameters are not a JSON Schema: {pointer}: {name!r} is not a type"
    return document.validator(document.root)


def _other_turn(role: Any, number: int, before: str, messages: list[Message], report: RowReport) -> None:
    """Check that system turns come first, that tool turns follow calls, and that no other role is there."""
    path = f"messages.{number}.role"
    if role == "system":
        if number:
            reason, hint = f"turn {number} is a system turn", "put the system turn first"
            report(RowError("SYSTEM_NOT_FIRST", reason, path=path, hint=hint))
        for part in messages[number]["content"]:
            if part["type"] != "text":
                report(_misplaced(part, "system", number))
    elif role != "tool":
        raise RowError("ROLE_UNKNOWN", f"the role {role!r}", path=path, value=role)
    elif before != "tool" and not (before == "assistant" and messages[number - 1].get("tool_calls")):
        report(_order(number, "a tool turn without a call before it"))


def check_control_tokens(turns: bytes, report: RowReport) -> None:
    """Report a control token in encoded turns."""
    name = control_token(turns)
    if name is not None:
        hint = "write it in another way, or drop the row"
        report(RowError("CONTROL_TOKEN", f"the text says {name}", path="messages", value=name, hint=hint))


def nfc(text: str) -> str:
    """Return `text` in Unicode normal form C."""
    return normalize("NFC", text)


def is_normal(text: str) -> bool:
    """Return whether `normalised` finds nothing to report or to change in a text."""
    return is_normalized("NFC", text) and not any(sign in text for sign in _ZERO_WIDTH)


def normalised(text: str, report: RowReport) -> str | None:
    """Return the JSON text of some turns as it is to be written, or None if it stays as it is.

    JSON's own signs are ASCII that composes with nothing, so the text can be normalised as a whole.

    Args:
        text: The turns as JSON.
        report: Called with ZERO_WIDTH and TEXT_NFC; text is changed if their policy is "fix".
    """
    fixed = text
    if any(character in text for character in _ZERO_WIDTH):
        report(RowError("ZERO_WIDTH", "invisible characters in the text", path="messages"))
        if report.policy("ZERO_WIDTH") == "fix":
            fixed = text.translate(dict.fromkeys(map(ord, _ZERO_WIDTH)))
    if not is_normalized("NFC", fixed):
        report(RowError("TEXT_NFC", "the text is not in Unicode normal form C", path="messages"))
        if report.policy("TEXT_NFC") == "fix":
            fixed = nfc(fixed)
    return fixed if fixed != text else None
