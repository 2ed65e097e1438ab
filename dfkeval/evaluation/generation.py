"""Asking a backend and keeping what comes: the only stage of a run that needs a model.

Promises: what the backend cannot do is said before anything is loaded; every completion is on disk before the
next one is awaited; a run that is done in several sittings adds up their tokens and seconds."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from dfkdata.common import json_files
from dfkdata.common.versions import MODEL_PACKAGES, installed_versions
from dfkeval import backends
from dfkeval.backends import Backend
from dfkeval.runs import directory
from dfkeval.runs.config import EvalConfig
from dfkeval.runs.directory import RunDirectory
from dfkeval.types import Completion, Request

#: Called after each completion with (done, total).
Progress = Callable[[int, int], None]

PACKAGES = (*MODEL_PACKAGES, "pydantic", "jsonschema-rs", "httpx", "vllm", "xgrammar")


def start(config: EvalConfig) -> Backend:
    """The configured backend, loaded. Raises what its `start` raises."""
    return backends.start(config.backend)


class LazyBackend:
    """The engine of a configuration, loaded when it is first asked and closed if it was. given: a loaded one
    that answers instead, and is not closed."""

    def __init__(self, config: EvalConfig, given: Backend | None = None) -> None:
        self.config, self.given = config, given
        self._started: Backend | None = None

    def engine(self) -> Backend:
        """The loaded engine. Raises what its `start` raises."""
        if self.given is not None:
            return self.given
        if self._started is None:
            self._started = start(self.config)
        return self._started

    def __enter__(self) -> LazyBackend:
        return self

    def __exit__(self, *trouble: object) -> None:
        if self._started is not None:
            self._started.close()


def generate(
    run_dir: RunDirectory,
    backend: Backend,
    pending: list[Request],
    config: EvalConfig,
    total: int,
    progress: Progress | None,
) -> None:
    """Ask the pending requests and append what comes; the environment is written however it ends."""
    stats, done = GenerationStats(), total - len(pending)
    try:
        for completion in run_dir.append(backend.generate(pending, config.sampling)):
            stats.count(completion)
            done += 1
            if progress is not None:
                progress(done, total)
    finally:
        before = run_dir.environment().get("generation", {})
        json_files.write_json(run_dir.path(directory.ENVIRONMENT), environment(backend, stats.facts(before)))


class GenerationStats:
    """Tokens and times of one sitting."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.counts = dict.fromkeys(("requests", "cached", "prompt_tokens", "output_tokens"), 0)
        self.first: list[float] = []

    def count(self, completion: Completion) -> None:
        """One more completion. Tokens of a cached one were made at another time, and are not counted."""
        self.counts["requests"] += 1
        if completion.cached:
            self.counts["cached"] += 1
            return
        self.counts["prompt_tokens"] += completion.n_prompt_tokens or 0
        self.counts["output_tokens"] += completion.n_output_tokens or 0
        if completion.first_token_seconds is not None:
            self.first.append(completion.first_token_seconds)

    def facts(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """For environment.json: sums over this sitting and those before; times to the first token of this
        one."""
        seconds = time.perf_counter() - self.started + float(before.get("seconds") or 0.0)
        found: dict[str, Any] = {name: n + int(before.get(name) or 0) for name, n in self.counts.items()}
        output = found["output_tokens"]
        return found | {
            "sittings": 1 + int(before.get("sittings") or 0),
            "seconds": round(seconds, 3),
            "output_tokens_per_second": round(output / seconds, 1) if seconds else None,
            "first_token_seconds": _spread(self.first),
        }


def _spread(values: list[float]) -> dict[str, float | int] | None:
    """Median and 95th percentile (nearest rank) of what is known; None for nothing."""
    if not values:
        return None
    ordered = sorted(values)
    high = ordered[max(0, -(-len(ordered) * 95 // 100) - 1)]
    return {"median": round(median(ordered), 4), "p95": round(high, 4), "n": len(ordered)}


def environment(backend: Backend, generation: Mapping[str, Any]) -> dict[str, Any]:
    """What the answers depend on besides the configuration, and how fast they came."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": installed_versions(PACKAGES),
        "backend": backend.info,
        "generation": dict(generation),
    }
