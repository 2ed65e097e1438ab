"""Read the reasoning of an assistant turn, in whatever way it is spelled, and write it as a think block.

Data sets keep it under `reasoning_content`, `reasoning` or `thinking`, or in the content as `<think>...</think>`.
Templates read one of these, so a turn with two of them, or in another spelling, would get two think blocks, or
none.

Guarantees:
- Canonical turns have one key, `reasoning_content`, and no think block with text in their content.
- A block without text is no reasoning and stays where it is, unless the turn has reasoning of its own.
- What cannot be read as one block raises `RowError`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfkdata.rows.record import RowError

KEY = "reasoning_content"
SPELLINGS = frozenset((KEY, "reasoning", "thinking"))
"""Keys of a turn that hold its reasoning."""

_OPEN, _CLOSE = "<think>", "</think>"


def holds_reasoning(turn: Mapping[str, Any]) -> bool:
    """Return whether a turn may hold reasoning: it has such a key, or a think tag in its content."""
    if not SPELLINGS.isdisjoint(turn):
        return True
    content = turn.get("content")
    if isinstance(content, str):
        return "think>" in content
    if not content:
        return False
    return any("think>" in (part.get("text") or "") for part in content if isinstance(part, dict))


def split_reasoning(turn: Mapping[str, Any], path: str) -> tuple[str, str]:
    """Return the reasoning of an assistant turn and the text of its content without the think block.

    Args:
        turn: The turn.
        path: Its place in the row, for errors.

    Raises:
        RowError: The reasoning is not text, two spellings differ, or the content has more than a block at its start.
    """
    traces = {}
    for key in sorted(SPELLINGS.intersection(turn)):
        value = turn[key]
        if value is not None and not isinstance(value, str):
            raise _error("the reasoning is not text", f"{path}.{key}", value, "write it as one string")
        if value and value.strip():
            traces[key] = value.strip()
    block, rest = _block(_text(turn.get("content"), path), path)
    if block:
        traces["content"] = block
    if len(set(traces.values())) > 1:
        reason = f"{' and '.join(traces)} hold different reasoning"
        raise _error(reason, path, traces, "keep one of them")
    trace = next(iter(traces.values()), "")
    if _OPEN in trace or _CLOSE in trace:
        raise _error("a think tag inside the reasoning", path, trace, "write the reasoning without tags")
    return trace, rest


def canonical_reasoning(turn: dict[str, Any], path: str) -> None:
    """Put the reasoning of an assistant turn into `reasoning_content`, in place; content is a list of parts.

    Raises:
        RowError: It cannot be read as one block.
    """
    trace, rest = split_reasoning(turn, path)
    for key in SPELLINGS.intersection(turn):
        del turn[key]
    if trace:
        turn[KEY] = trace
        if rest != _text(turn["content"], path):
            turn["content"] = [{"type": "text", "text": rest}] if rest else []


def think_block(trace: str) -> str:
    """Return reasoning as the block that stands before an answer; nothing for no reasoning."""
    return f"{_OPEN}\n{trace}\n{_CLOSE}\n\n" if trace else ""


def _text(content: Any, path: str) -> str:
    """Return the text of an assistant's content; one that shows media has no think block."""
    if isinstance(content, str) or not content:
        return content or ""
    texts = [part.get("text") for part in content]
    if all(isinstance(text, str) for text in texts):
        return "".join(texts)
    if any("think>" in (text or "") for text in texts):
        raise _error("a think block beside media", path, content, "write it as reasoning_content")
    return ""


def _block(text: str, path: str) -> tuple[str, str]:
    """Return the text inside the think block at the start of `text`, and what follows it."""
    if _OPEN not in text and _CLOSE not in text:
        return "", text.lstrip("\n")
    body = text.lstrip().removeprefix(_OPEN)
    trace, closed, rest = body.partition(_CLOSE)  # a prompt that opened the block leaves its end alone
    if not closed or any(tag in part for tag in (_OPEN, _CLOSE) for part in (trace, rest)):
        hint = "keep one block, at the start of the turn"
        raise _error("think tags that are not one block at the start of the turn", path, text, hint)
    return trace.strip(), rest.lstrip("\n")


def _error(reason: str, path: str, value: Any, hint: str) -> RowError:
    return RowError("REASONING", reason, path=path, value=value, hint=hint)
