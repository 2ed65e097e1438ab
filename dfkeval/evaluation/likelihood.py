"""How likely the model finds the gold answers: asked once, kept in the run directory, joined to the samples.

Strategy: a second kind of question beside generation. The harness asks for it where a metric declares that it
needs it; each likelihood is appended to likelihoods.jsonl as it comes, so a stopped run goes on, and scoring
again needs no model. Rows without a gold answer are not asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from dfkdata.common.errors import BackendError, ConfigError
from dfkeval import metrics
from dfkeval.backends import Backend, Scorer
from dfkeval.evaluation.grading import EvalItem
from dfkeval.runs.directory import RunDirectory
from dfkeval.types import GoldAnswer, Likelihood, Sample, Sampling


def needed_by(names: Sequence[str]) -> list[str]:
    """The metrics of `names` that need likelihoods."""
    return [name for name in names if metrics.load(name).likelihoods]


def unasked(run_dir: RunDirectory, items: Sequence[EvalItem]) -> list[GoldAnswer]:
    """The rows with a gold answer whose likelihood is not stored yet; once for all draws of a row."""
    known = run_dir.likelihoods()
    return [
        GoldAnswer(request=each.request, turn=each.turn)
        for each in items
        if each.turn is not None
        and each.request.draw_index == 0
        and (each.request.id not in known or known[each.request.id].error is not None)
    ]


def compute(
    run_dir: RunDirectory,
    engine: Backend,
    gold_answers: Sequence[GoldAnswer],
    sampling: Sampling,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Ask for the likelihood of each gold answer and store it as it comes."""
    if not gold_answers:
        return
    if not isinstance(engine, Scorer):
        raise BackendError(f"{type(engine).__name__} has no likelihoods to give")
    for done, _ in enumerate(run_dir.append_likelihoods(engine.likelihoods(gold_answers, sampling)), start=1):
        if progress is not None:
            progress(done, len(gold_answers))


def check_stored(run_dir: RunDirectory, names: Sequence[str]) -> None:
    """Raises `ConfigError` when a metric needs likelihoods and the run holds none."""
    needing = needed_by(names)
    if needing and not run_dir.likelihoods():
        raise ConfigError(
            f"metric {needing[0]!r} needs the likelihood of the gold answers, and {run_dir.folder} holds none; "
            "add the metric to the configuration and `dfkeval run` into the same folder: the answers are "
            "kept, and only the likelihoods are asked"
        )


def joined(samples: Sequence[Sample], found: Mapping[str, Likelihood]) -> list[Sample]:
    """The samples with `gold_nll` and `gold_tokens` where they are known."""
    return [_joined(sample, found.get(_first_draw(sample))) for sample in samples]


def _first_draw(sample: Sample) -> str:
    """The id under which the row was asked for its likelihood."""
    return sample.id if sample.draw_index == 0 else f"{sample.id.rpartition('#')[0]}#1"


def _joined(sample: Sample, found: Likelihood | None) -> Sample:
    if found is None or found.error is not None or not found.tokens or not math.isfinite(found.nll):
        return sample
    return replace(sample, gold_nll=found.nll, gold_tokens=found.tokens)
