"""Read a server's answer as a chat completion of the protocol's shape.

Guarantees:
- The result has one choice that ended for a known reason, a message whose content is text, calls that are objects with
  a function, and token counts that are whole numbers or missing.
- Anything else is `RequestFailed`, after which another attempt may work, and never another exception.
- Half characters (lone surrogates), which no file can hold, become question marks."""

from __future__ import annotations

import json
from typing import Any

from dfkdata.common.credentials import keyless
from dfkdata.common.jsonl import whole_characters
from dfkeval.backends._finish_reasons import finish_reason
from dfkeval.backends._openai import errors
from dfkeval.backends._openai.retry import RequestFailed
from dfkeval.parsing.json_call import misplaced_arguments
from dfkeval.types import FinishReason

#: Bytes of an answer at most.
MOST = 32 << 20


def read(content: bytes) -> Any:
    """Return what a body holds as JSON; None if it holds something else."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def checked(content: bytes) -> dict[str, Any]:
    """Return the answer. Raises `RequestFailed` if it is half an answer or something else."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise strange(repr(content[:120])) from error
    return shaped(answer)


def shaped(answer: Any) -> dict[str, Any]:
    """Return the answer, which is read from JSON already; raises as `checked` does."""
    fault = errors.fault_of(answer)
    if fault is not None:
        raise errors.reported(fault, "the answer is an error")
    try:
        choice = answer["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise strange(f"{answer!r:.120}") from error
    if not isinstance(message, dict):
        raise strange(f"{answer!r:.120}")
    ended(reason)
    message = keyless(message)  # a server may repeat what it was sent
    plain = whole_characters(message) | {
        "content": whole_characters(text_of(message.get("content"))),
        "tool_calls": whole_characters(_calls(message.get("tool_calls"))),
    }
    return {**answer, "choices": [{**choice, "message": plain}], "usage": _counts(answer.get("usage"))}


def ended(reason: Any) -> FinishReason:
    """Return our name of a finish reason. Raises `RequestFailed` for one that ends no answer."""
    ours = finish_reason(reason)
    if ours is None:
        raise RequestFailed(
            f"the answer is not finished: its finish_reason is {reason!r:.80}", retryable=True
        )
    return ours


def text_of(content: Any) -> str | None:
    """Return the content; parts of text, which the protocol allows in questions and some servers send, are
    joined."""
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
        and not misplaced_arguments(call["function"])
        for call in calls
    ):
        return calls
    raise strange(f"its tool_calls are {calls!r:.80}")


def _counts(usage: Any) -> dict[str, int]:
    """Return token counts; what is not a number of tokens is left out."""
    counts = usage.items() if isinstance(usage, dict) else ()
    return {name: n for name, n in counts if isinstance(n, int) and not isinstance(n, bool) and n >= 0}


def strange(what: str) -> RequestFailed:
    """Return the failure of an answer that is something else."""
    return RequestFailed(f"the answer is not a chat completion: {what}", retryable=True)
