"""Class what a server reports as an error, whether it comes as a status, in the body of a 200, in a choice or
in a stream.

How it works: the status decides about another attempt. If there is none, the body's code, status or type
stands for it. Three kinds are set apart by name: an account that is spent, a key or a model that the server
does not know (every other request would fail alike, so the run ends), and a content filter (its own outcome).
A quota that was exceeded is a spent account with some providers and a rate with others (Gemini): it is a rate
if the error names one, or a time to wait.

Sources: the error pages of OpenAI, Azure, Anthropic, DeepSeek, OpenRouter, Gemini, Mistral, Together and LiteLLM;
vLLM's `ErrorResponse`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from dfkeval.backends._openai.retry import RETRYABLE_STATUSES, RequestFailed

_STATUS_OF = {
    "invalid_request_error": 400, "badrequesterror": 400, "bad_request": 400, "context_length_exceeded": 400,
    "invalid_api_key": 401, "authentication_error": 401, "authenticationerror": 401, "unauthorized": 401,
    "permission_error": 403, "permission_denied": 403, "permissiondeniederror": 403,
    "not_found_error": 404, "notfounderror": 404,
    "request_too_large": 413, "rate_limit_error": 429, "rate_limit_exceeded": 429, "ratelimiterror": 429,
}  # fmt: skip
#: Codes and types that say that the account is spent, whatever else stands beside them.
_SPENT = frozenset(
    {
        "insufficient_quota", "insufficient_balance", "insufficient_credits", "insufficient_funds",
        "insufficient_user_quota", "exceeded_current_quota_error", "arrearage", "out_of_credits",
        "billing_hard_limit_reached", "billing_not_active", "billing_error", "payment_required",
        "credit_limit_reached", "credit_limit_exceeded", "budget_exceeded", "spending_limit_reached",
        "spend_limit_exceeded", "key_limit_exceeded", "usage_limit_reached",
    }
)  # fmt: skip
#: Phrases that say so; providers write them under 400, 403 and 429, and a gateway under a code of its own.
_SPENT_TEXT = re.compile(
    r"\binsufficient (account |user )?(balance|credit|quota|fund)"
    r"|\b(credit )?balance (is )?(too low|insufficient|not enough)|\bquota is not enough|余额不足"
    r"|\bout of credits|\bused all (of )?(your |its )?(available |included )?credits|\bcredits are depleted"
    r"|\bexceeded your monthly (included )?credits|\brequires more credits|\bnever purchased credits"
    r"|\bbudget has been exceeded|\bbilling hard limit"
    r"|\baccount is not active\b.{0,40}\bbilling|\baccount is in good standing"
    r"|\breached your specified (workspace )?API usage limit"
    r"|\b(key|credit|spend|spending|monthly|monthly usage) (limit|cap) (has been |was )?(exceeded|reached)"
    r"|\b(exceeded|reached) (its|your|the) (monthly |account |key )?(spend|spending|credit|billing) (limit|cap)",
    re.IGNORECASE,
)
#: Names and phrases that some providers use for a spent account and others for a limit of requests per minute.
_QUOTA = frozenset({"quota_exceeded", "quotaexceeded", "exceeded_quota"})
_QUOTA_TEXT = re.compile(
    r"\bexceeded (your|the|its) (\w+ ){0,2}quota|\bquota (has been |was |is )?(exceeded|exhausted|reached)"
    r"|\bout of (\w+ ){0,2}quota",
    re.IGNORECASE,
)
_QUOTA_STATUSES = frozenset({400, 403, 429, None})
#: What tells that such a limit passes by itself.
_PASSING_TEXT = re.compile(
    r"\bper[ _-]?(second|minute|min|hour)|PerMinute|PerSecond|PerHour|\bRESOURCE_EXHAUSTED\b|\bretryDelay\b"
    r"|\b(retry|try again) (in|after) \d|\brate[ _]limit",
    re.IGNORECASE,
)
#: Seconds; a server that names a longer wait has no limit that a run can wait for.
_PASSING_WAIT = 3600.0
#: How a gateway without a data base of keys refuses one (LiteLLM's proxy, status 400).
_NO_KEY = frozenset({"no_db_connection"})
#: How vLLM without a tool-call parser refuses every question with tools.
_NO_TOOL_PARSER = "tool choice requires --enable-auto-tool-choice"
_UNKNOWN_MODEL = frozenset(
    {"model_not_found", "model_not_available", "unknown_model", "invalid_model", "model_not_exist"}
)
_UNKNOWN_MODEL_TEXT = re.compile(
    r"\b(invalid|unknown) model\b|not a valid model|\bmodel\b.{0,120}?\b(does not exist|not exist|not found)\b"
    r"|\bserver is pinned to\b",
    re.IGNORECASE | re.DOTALL,
)
_FILTERED = frozenset(
    {
        "content_filter", "content_policy_violation", "responsibleaipolicyviolation",
        "data_inspection_failed", "moderation_blocked",
    }
)  # fmt: skip
#: What says that one question has more tokens than the server takes.
_TOO_LONG = frozenset({"context_length_exceeded", "string_above_max_length", "request_too_large"})
_TOO_LONG_TEXT = re.compile(
    r"\b(maximum|max) (context|model|input|prompt|sequence) length|\bmax_model_len\b|\bcontext (length|window|size)\b"
    r"|\b(prompt|input|request)( \w+)? is too long|\btoo many (input |prompt )?tokens|\blonger than the",
    re.IGNORECASE,
)
#: Characters of a message that are read; further on, some servers repeat the question.
_SAID = 160
#: What to do about an error that every other request would meet.
REFILL = "the account is spent: fill it up, then run the same command again to go on"
SET_KEY = "the key is missing or refused: correct backend.key"
GO_THERE = "the server sends every question to another address: write that one in backend.base_urls"
OPEN_PROXY = "the proxy of the environment wants a password: write it in HTTP_PROXY, or set NO_PROXY"
SAY_VLLM = "say backend.server: vllm, so that the tools are shown and the text comes unparsed"
NAME_MODEL = "correct backend.model, or backend.base_urls (they end in /v1)"


def fault_of(answer: Any) -> Any:
    """Return the error that a body reports, of its own or of its first choice; None if it reports none."""
    if isinstance(answer, list) and len(answer) == 1:  # Gemini's
        answer = answer[0]
    if not isinstance(answer, dict):
        return None
    if answer.get("error"):
        return answer["error"]
    if answer.get("object") == "error":
        return answer
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return (first.get("error") or None) if isinstance(first, dict) else None


def of_status(status: int, content: bytes, wait: float | None) -> RequestFailed:
    """Return the failure of a response whose status is not 200."""
    text = " ".join(content.decode(errors="replace").split())[:300]
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = text
    fault = fault_of(body) or body
    return _failure(f"status {status}: {text}", fault, status, wait)


def reported(fault: Any, where: str) -> RequestFailed:
    """Return the failure of an error in a response whose status is 200; `where` begins its message."""
    return _failure(f"{where}: {json.dumps(fault)[:300]}", fault, _status(fault), None)


def _failure(message: str, fault: Any, status: int | None, wait: float | None) -> RequestFailed:
    names = set(_names(fault))
    text = message if isinstance(fault, str) else str(_fields(fault).get("message") or message)
    said = "" if status == 422 else text[:_SAID]
    if names & _FILTERED or "flagged_input" in _fields(_fields(fault).get("metadata")):
        return RequestFailed(message, retryable=False, filtered=True)
    quota = status in _QUOTA_STATUSES and bool(names & _QUOTA or _QUOTA_TEXT.search(said))
    passing = quota and _passes(fault, text, wait)
    ends_run = ""
    if status == 402 or names & _SPENT or _SPENT_TEXT.search(said) or (quota and not passing):
        ends_run = REFILL
    elif status == 401 or names & _NO_KEY:
        ends_run = SET_KEY
    elif status == 407:
        ends_run = OPEN_PROXY
    elif _NO_TOOL_PARSER in said:
        ends_run = SAY_VLLM
    elif status in (404, 405) or names & _UNKNOWN_MODEL or _names_model(fault, status, said):
        ends_run = NAME_MODEL
    retryable = not ends_run and (passing or status is None or status in RETRYABLE_STATUSES)
    too_long = status in (400, 413, 422) and (
        status == 413 or bool(names & _TOO_LONG or _TOO_LONG_TEXT.search(said))
    )
    return RequestFailed(
        message, retryable=retryable, wait=wait, ends_run=ends_run, of_question=too_long and not ends_run
    )


def _passes(fault: Any, text: str, wait: float | None) -> bool:
    """Return whether a limit of a quota passes by itself: the server names a wait, or a rate."""
    if wait is not None:
        return wait <= _PASSING_WAIT
    return _PASSING_TEXT.search(text if isinstance(fault, str) else f"{text} {json.dumps(fault)}") is not None


def _names_model(fault: Any, status: int | None, said: str) -> bool:
    """Return whether a request was refused because of its model."""
    return status == 400 and (
        _fields(fault).get("param") == "model" or _UNKNOWN_MODEL_TEXT.search(said) is not None
    )


def _fields(fault: Any) -> dict[str, Any]:
    return fault if isinstance(fault, dict) else {}


def _names(fault: Any) -> list[str]:
    """Return the names in an error: its code, status and type, in lower case."""
    fields = _fields(fault)
    inner = _fields(fields.get("innererror"))
    values = (fields.get("code"), fields.get("status"), fields.get("type"), inner.get("code"))
    return [value.lower() for value in values if isinstance(value, str)]


def _status(fault: Any) -> int | None:
    """Return the status that an error names as a number or by a known name; None if it names none."""
    fields = _fields(fault)
    for value in (fields.get("code"), fields.get("status"), fields.get("status_code")):
        number = int(value) if isinstance(value, str) and re.fullmatch(r"[1-5]\d\d", value) else value
        if isinstance(number, int) and not isinstance(number, bool) and 400 <= number < 600:
            return number
    return next((_STATUS_OF[name] for name in _names(fault) if name in _STATUS_OF), None)
