"""The bytes of a server's answer -> a chat completion of the protocol's shape.

Promises: what comes out has one choice with a finish reason, a message whose content is text, calls that are
objects with a function, and token counts that are whole numbers or absent; anything else is `RequestFailed`, which
another attempt may mend, and never an exception further in. Half characters (lone surrogates), which no file
can hold, become question marks."""

from __future__ import annotations

import json
from typing import Any

from dfkdata.common.jsonl import whole_characters
from dfkeval.backends._openai.retry import RequestFailed

#: Bytes of an answer; more is no answer to any question here.
MOST = 32 << 20


def checked(content: bytes) -> dict[str, Any]:
    """The answer. Raises `RequestFailed` for half an answer or something else."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise strange(repr(content[:120])) from error
    return shaped(found)


def shaped(found: Any) -> dict[str, Any]:
    """`checked` for an answer that is read already."""
    try:
        choice = found["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise strange(f"{found!r:.120}") from error
    if not isinstance(message, dict) or not isinstance(reason, str):
        raise RequestFailed("the answer's choice is not finished", retryable=True)
    plain = whole_characters(message) | {
        "content": whole_characters(text_of(message.get("content"))),
        "tool_calls": whole_characters(_calls(message.get("tool_calls"))),
    }
    return {**found, "choices": [{**choice, "message": plain}], "usage": _counts(found.get("usage"))}


def text_of(content: Any) -> str | None:
    """The content; parts of text are joined, as the protocol allows for questions and some servers answer."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    raise strange(f"its content is {content!r:.80}")


def _calls(calls: Any) -> list[dict[str, Any]] | None:
    if calls is None:
        return None
    if isinstance(calls, list) and all(
        isinstance(call, dict)
        and isinstance(call.get("function"), dict)
        and isinstance(call["function"].get("name"), str)
        and isinstance(call["function"].get("arguments"), str | dict | None)
        for call in calls
    ):
        return calls
    raise strange(f"its tool_calls are {calls!r:.80}")


def _counts(usage: Any) -> dict[str, int]:
    """Token counts; one that is no number of tokens is left out."""
    found = usage.items() if isinstance(usage, dict) else ()
    return {name: n for name, n in found if isinstance(n, int) and not isinstance(n, bool) and n >= 0}


def strange(what: str) -> RequestFailed:
    return RequestFailed(f"the answer is not a chat completion: {what}", retryable=True)
