"""FAMILY: one engine a file.

A member says how it is configured and how it starts:

    class Config(dfkdata.common.config.Config)   what users write under `backend:`; `kind` is the member's file name
    start(config) -> Backend              loads the engine; what it returns wraps something that is loaded

A member may also have

    check(config, sampling, constraint)   raises ConfigError for what it cannot do, before anything is loaded

and must have it to keep answers to a constraint; its backend then says `constrains = True`. A backend whose
answers may be kept in the response cache has `identity` and `fingerprint` (`dfkeval.evaluation.response_cache`).

The engine's package is imported inside `start`, so that a config can be written and checked where the
engine is not installed. The harness only ever calls `generate(requests, sampling)` and `close()`, and
`likelihoods(lessons, sampling)` on a member that sets GIVES_LIKELIHOODS = True."""

from __future__ import annotations

from dfkeval.backends._contract import Backend, Scorer
from dfkeval.types import Completion, Request, Sampling

__all__ = ["FAMILY", "Backend", "Completion", "Request", "Sampling", "Scorer"]

FAMILY = "dfkeval.backends"
