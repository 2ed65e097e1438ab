"""Ask a server's base and adapter the first rows of a run, and the local pair too if one is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from pydantic import model_validator

from dfkdata.common import config
from dfkdata.common.errors import DataError
from dfkeval.backends._adapter_probe import ROWS, TOKENS, Answered, ProbedRow, verdict
from dfkeval.backends._openai import protocol
from dfkeval.backends._openai.protocol import Dialect
from dfkeval.backends._openai.retry import RequestFailed
from dfkeval.types import Request, Sampling

#: Alternatives of the first token.
_SHOWN = 20


class ProbeSettings(config.Config):
    """What users write under `backend.probe:`.

    Args:
        base: The servers' name of the model without its adapter; None takes the one that their list of models
            gives as its parent (vLLM and SGLang do).
        model: The same base model here; with it the effect must be as large as it is locally.
        adapter: Folder of the adapter here.
    """

    base: str | None = None
    model: str | None = None
    adapter: Path | None = None

    @model_validator(mode="after")
    def _together(self) -> ProbeSettings:
        if (self.model is None) != (self.adapter is None):
            raise ValueError("probe compares with a local pair: give model and adapter, or neither")
        return self


def parent_of(listed: Any, model: str) -> str | None:
    """Return the base of a served model by the server's list of models; None if it names none."""
    entries = listed.get("data") if isinstance(listed, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("id") == model and isinstance(entry.get("parent"), str):
            return str(entry["parent"])
    return None


class AdapterProbe:
    """The rows that were asked so far.

    Args:
        model: The servers' name of the model with its adapter.
        base: Their name of the model without it.
        dialect: What the servers are.
        send: Sends a request's JSON and returns the checked answer; raises `RequestFailed`.
        settings: The local pair, if one is named.
    """

    def __init__(
        self, model: str, base: str, dialect: Dialect, send: Callable[[dict[str, Any]], dict[str, Any]],
        settings: ProbeSettings,
    ) -> None:  # fmt: skip
        self.model, self.base, self.dialect, self.send = model, base, dialect, send
        self.settings = settings
        self.rows: list[ProbedRow] = []
        self.fault = ""

    @property
    def wanted(self) -> bool:
        """Whether rows are still to be probed."""
        return len(self.rows) < ROWS and not self.fault

    def first(self, requests: Iterator[Request], sampling: Sampling) -> list[Request]:
        """Take as many requests as are still to be probed, probe them, and return them."""
        taken = list(islice(requests, max(0, ROWS - len(self.rows))))
        local: Sequence[tuple[Answered, Answered] | None] = [None] * len(taken)
        if taken and self.settings.model is not None and self.settings.adapter is not None:
            from dfkeval.backends._local.first_token import first_tokens

            local = first_tokens(self.settings.model, self.settings.adapter, taken, sampling)
        for request, pair in zip(taken, local, strict=True):
            try:
                self.rows.append(self._row(request, sampling, pair))
            except (RequestFailed, DataError) as error:
                self.fault = str(error)
        return taken

    def verdict(self) -> str:
        """Return what the rows show, as words for the report."""
        if not self.rows:
            return f"unverified: the probe was not answered ({self.fault or 'no row was asked'})"
        return verdict(self.rows, self.base)

    def _row(
        self, request: Request, sampling: Sampling, local: tuple[Answered, Answered] | None
    ) -> ProbedRow:
        plain = replace(request, constraint=None, force_tool=None, slot=None)
        greedy = Sampling(max_new_tokens=TOKENS, thinking=sampling.thinking)
        payload = protocol.body(plain, greedy, self.model, self.dialect)
        shown: dict[str, Any] = (
            {} if self.dialect == "transformers" else {"logprobs": True, "top_logprobs": _SHOWN}
        )
        base, adapted, again = (
            self._answered(payload | {"model": name}, shown) for name in (self.base, self.model, self.base)
        )
        return ProbedRow(base, adapted, again, local)

    def _answered(self, payload: dict[str, Any], shown: dict[str, Any]) -> Answered:
        try:
            answer = self.send(payload | shown)
        except RequestFailed as failure:
            if not shown or failure.retryable or failure.ends_run:
                raise
            answer = self.send(payload)
        message = answer["choices"][0]["message"]
        calls = "".join(str(call["function"]) for call in message.get("tool_calls") or ())
        return Answered(
            f"{message.get('content') or ''}{calls}", _first(answer["choices"][0].get("logprobs"))
        )


def _first(logprobs: Any) -> dict[str, float]:
    """Return the log-probabilities of the first token's alternatives; empty if they have another shape."""
    try:
        steps = logprobs["content"][0]["top_logprobs"]
        return {str(step["token"]): float(step["logprob"]) for step in steps}
    except (KeyError, IndexError, TypeError, ValueError):
        return {}
