"""How likely the model finds the gold answers: asked once, kept in the run directory, joined to the samples.

Strategy: a second kind of question beside generation. The harness asks for it where a metric declares that it
needs it; each likelihood is appended to likelihoods.jsonl as it comes, so a stopped run goes on, and scoring
again needs no model. Rows without a gold answer are not asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from dfkdata.common import plugins
from dfkdata.common.errors import BackendError, ConfigError
from dfkeval import backends, metrics
from dfkeval.backends import Backend, Scorer
from dfkeval.evaluation.grading import Item
from dfkeval.runs.directory import Store
from dfkeval.types import Lesson, Likelihood, Sample, Sampling


def needed_by(names: Sequence[str]) -> list[str]:
    """The metrics of `names` that need likelihoods."""
    return [name for name in names if metrics.load(name).likelihoods]


def demand(names: Sequence[str], kind: str, engine: Backend | None) -> bool:
    """Whether any metric needs likelihoods. Raises `ConfigError` when one does and the backend has none to
    give; `engine` is a loaded one, None for the one that `kind` names."""
    wanted = needed_by(names)
    if not wanted:
        return False
    if engine is None:
        able = bool(getattr(plugins.load(backends.FAMILY, kind), "GIVES_LIKELIHOODS", False))
    else:
        able = isinstance(engine, Scorer)
    if not able:
        raise ConfigError(
            f"metric {wanted[0]!r} needs the likelihood of the gold answers, which the backend {kind!r} "
            "cannot give; use the transformers backend, or leave the metric out"
        )
    return True


def open_lessons(store: Store, items: Sequence[Item]) -> list[Lesson]:
    """The rows with a gold answer whose likelihood is not stored yet; once for all drawings of a row."""
    known = store.likelihoods()
    return [
        Lesson(request=each.request, turn=each.turn)
        for each in items
        if each.turn is not None
        and each.request.repeat == 0
        and (each.request.id not in known or known[each.request.id].error is not None)
    ]


def ask(
    store: Store,
    engine: Backend,
    lessons: Sequence[Lesson],
    sampling: Sampling,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Ask for the likelihood of each lesson's answer and store it as it comes."""
    if not lessons:
        return
    if not isinstance(engine, Scorer):
        raise BackendError(f"{type(engine).__name__} has no likelihoods to give")
    for done, _ in enumerate(store.append_likelihoods(engine.likelihoods(lessons, sampling)), start=1):
        if progress is not None:
            progress(done, len(lessons))


def demand_stored(store: Store, names: Sequence[str]) -> None:
    """Raises `ConfigError` when a metric needs likelihoods and the run holds none."""
    wanted = needed_by(names)
    if wanted and not store.likelihoods():
        raise ConfigError(
            f"metric {wanted[0]!r} needs the likelihood of the gold answers, and {store.folder} holds none; "
            "add the metric to the configuration and `dfkeval run` into the same folder: the answers are "
            "kept, and only the likelihoods are asked"
        )


def joined(samples: Sequence[Sample], found: Mapping[str, Likelihood]) -> list[Sample]:
    """The samples with `gold_nll` and `gold_tokens` where they are known."""
    return [_joined(sample, found.get(_first_drawing(sample))) for sample in samples]


def _first_drawing(sample: Sample) -> str:
    """The id under which the row was asked for its likelihood."""
    return sample.id if sample.repeat == 0 else f"{sample.id.rpartition('#')[0]}#1"


def _joined(sample: Sample, found: Likelihood | None) -> Sample:
    if found is None or found.error is not None or not found.tokens or not math.isfinite(found.nll):
        return sample
    return replace(sample, gold_nll=found.nll, gold_tokens=found.tokens)
