"""FAMILY: one engine a file.

A member says how it is configured and how it starts:

    class Config(dfkdata.config.Config)   what users write under `backend:`; `kind` is the member's file name
    start(config) -> Backend              loads the engine; what it returns wraps something that is loaded

The engine's package is imported inside `start`, so that a config can be written and checked where the
engine is not installed. The harness only ever calls `generate(requests, sampling)` and `close()`."""

from __future__ import annotations

FAMILY = "dfkeval.backends"
