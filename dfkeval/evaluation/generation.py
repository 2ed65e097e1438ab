"""Generate answers with a backend and store them: the only stage of a run that needs a model.

Guarantees:

- Every completion is on disk before the next one is awaited.
- A run that is done in several sittings adds up their tokens and seconds."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
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


class LazyBackend:
    """The backend of a configuration, which is loaded when it is first needed and closed if it was loaded.

    Args:
        config: The configuration.
        given: A loaded backend that is used instead and stays open; None for the configured one.
    """

    def __init__(self, config: EvalConfig, given: Backend | None = None) -> None:
        self.config, self.given = config, given
        self._started: Backend | None = None

    def engine(self) -> Backend:
        """Return the loaded backend. Raises what the `start` of its member raises."""
        if self.given is not None:
            return self.given
        if self._started is None:
            self._started = backends.start(self.config.backend)
        return self._started

    def __enter__(self) -> LazyBackend:
        return self

    def __exit__(self, *trouble: object) -> None:
        if self._started is not None:
            self._started.close()


def generate(
    run_dir: RunDirectory,
    backend: Backend,
    pending: Sequence[Request],
    config: EvalConfig,
    total: int,
    progress: Progress | None,
) -> None:
    """Ask the pending requests and store each completion; write environment.json however it ends.

    Args:
        run_dir: The run directory.
        backend: The loaded backend.
        pending: The requests that have no answer yet.
        config: The configuration of the run.
        total: Number of all requests, for `progress`.
        progress: Called after each completion.

    Raises:
        BackendError: The engine itself fails.
    """
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
    """Count the tokens and times of one sitting."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.counts = dict.fromkeys(("requests", "cached", "prompt_tokens", "output_tokens"), 0)
        self.first: list[float] = []

    def count(self, completion: Completion) -> None:
        """Add a completion; the tokens of a cached one were generated at another time and do not count."""
        self.counts["requests"] += 1
        if completion.cached:
            self.counts["cached"] += 1
            return
        self.counts["prompt_tokens"] += completion.n_prompt_tokens or 0
        self.counts["output_tokens"] += completion.n_output_tokens or 0
        if completion.first_token_seconds is not None:
            self.first.append(completion.first_token_seconds)

    def facts(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """Return the facts for environment.json.

        Args:
            before: The facts of the sittings before, whose sums go on.

        Returns:
            Sums over all sittings; times to the first token of this one.
        """
        seconds = time.perf_counter() - self.started + float(before.get("seconds") or 0.0)
        sums: dict[str, Any] = {name: n + int(before.get(name) or 0) for name, n in self.counts.items()}
        output = sums["output_tokens"]
        return sums | {
            "sittings": 1 + int(before.get("sittings") or 0),
            "seconds": round(seconds, 3),
            "output_tokens_per_second": round(output / seconds, 1) if seconds else None,
            "first_token_seconds": _spread(self.first),
        }


def _spread(values: list[float]) -> dict[str, float | int] | None:
    """Return the median and the 95th percentile (nearest rank); None for no values."""
    if not values:
        return None
    ordered = sorted(values)
    high = ordered[max(0, -(-len(ordered) * 95 // 100) - 1)]
    return {"median": round(median(ordered), 4), "p95": round(high, 4), "n": len(ordered)}


def environment(backend: Backend, generation: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the answers depend on besides the configuration, and how fast they came."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": installed_versions(PACKAGES),
        "backend": backend.info,
        "generation": dict(generation),
    }
