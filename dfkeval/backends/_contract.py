"""The protocols that an engine implements; `dfkeval.backends` exports them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

from dfkeval.types import Completion, GoldAnswer, Likelihood, Request, Sampling


class Backend(Protocol):
    """One engine around something loaded. `info`: facts for the record (versions, hashes, dtype); JSON
    types only."""

    @property
    def info(self) -> dict[str, Any]:
        """As above."""

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        """One completion for each request, in any order, as they come.

        An engine trouble with one request is a completion with finish_reason "error"; trouble with the
        engine itself raises `BackendError`."""

    def close(self) -> None:
        """Free what was loaded."""


@runtime_checkable
class Scorer(Protocol):
    """A backend that can also say how likely an answer is. Its module sets GIVES_LIKELIHOODS = True."""

    def likelihoods(self, gold_answers: Iterable[GoldAnswer], sampling: Sampling) -> Iterator[Likelihood]:
        """One likelihood for each gold answer, in any order; what cannot be scored has an error."""
