"""Read why an engine or a server says that an answer ended; shared by all backends.

Guarantees:
- The list is closed: only reasons that are documented somewhere end an answer. An empty reason, `abort`,
  `error` and anything unknown say that the engine had trouble, so the text before them is no answer."""

from __future__ import annotations

from typing import Any, Final

from dfkeval.types import FinishReason

#: Our name of a reason -> how engines, servers and gateways spell it, in lower case.
SPELLINGS: Final[dict[FinishReason, tuple[str, ...]]] = {
    "stop": (
        "stop", "stop_sequence", "eos", "eos_token", "end_turn", "complete",
        "tool_calls", "tool_call", "tool_use", "function_call",
    ),
    "length": (
        "length", "max_tokens", "max_output_tokens", "max_length", "model_length",
        "model_context_window_exceeded",
    ),
    "content_filter": (
        "content_filter", "content_filtered", "refusal", "safety", "recitation", "blocklist",
        "prohibited_content", "spii", "guardrail_intervened", "sensitive",
    ),
}  # fmt: skip
_BY_SPELLING: Final = {spelling: ours for ours, spellings in SPELLINGS.items() for spelling in spellings}


def finish_reason(reason: Any) -> FinishReason | None:
    """Return our name of the reason for which an answer ended; None if the answer did not end by itself."""
    return _BY_SPELLING.get(reason.lower()) if isinstance(reason, str) else None
