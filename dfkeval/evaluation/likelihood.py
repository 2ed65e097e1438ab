"""Compute how likely the model finds the gold answers, store it, and join it to the samples.

How it works: an evaluation computes likelihoods only if a metric declares that it needs them. Each is
appended to likelihoods.jsonl as it comes, so a stopped run goes on, and scoring again needs no model. Rows
without a gold answer have none."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from dfkdata.common.errors import BackendError, ConfigError
from dfkdata.common.stored_lines import MadeSequence
from dfkeval import metrics
from dfkeval.backends import Backend, Scorer
from dfkeval.evaluation.grading import EvalItem
from dfkeval.runs.directory import RunDirectory
from dfkeval.types import GoldAnswer, Likelihood, Sample, Sampling


def needed_by(names: Sequence[str]) -> list[str]:
    """Return those of the metrics `names` that need likelihoods."""
    return [name for name in names if metrics.load(name).likelihoods]


def unasked(run_dir: RunDirectory, items: Sequence[EvalItem]) -> Sequence[GoldAnswer]:
    """Return the gold answers whose likelihood is not stored yet, once for all draws of a row."""
    known = run_dir.likelihoods()

    def gold_answer(place: int) -> GoldAnswer:
        item = items[place]
        return GoldAnswer(request=item.request, turn=item.turn or {})

    places = (
        place
        for place, item in enumerate(items)
        if item.turn is not None
        and item.request.draw_index == 0
        and (item.request.id not in known or known[item.request.id].error is not None)
    )
    return MadeSequence(gold_answer, array("Q", places))


def compute(
    run_dir: RunDirectory,
    engine: Backend,
    gold_answers: Sequence[GoldAnswer],
    sampling: Sampling,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Compute the likelihood of each gold answer and store it as it comes.

    Args:
        run_dir: The run directory.
        engine: A loaded backend.
        gold_answers: What is scored.
        sampling: How the prompts are written; nothing is drawn.
        progress: Called after each likelihood with the numbers of finished and of all.

    Raises:
        BackendError: The backend cannot compute likelihoods.
    """
    if not gold_answers:
        return
    if not isinstance(engine, Scorer):
        raise BackendError(
            f"{type(engine).__name__} cannot compute likelihoods; use the transformers backend"
        )
    for done, _ in enumerate(run_dir.append_likelihoods(engine.likelihoods(gold_answers, sampling)), start=1):
        if progress is not None:
            progress(done, len(gold_answers))


def check_stored(run_dir: RunDirectory, names: Sequence[str]) -> None:
    """Raise `ConfigError` if a metric needs likelihoods and the run holds none."""
    needing = needed_by(names)
    if needing and not run_dir.likelihoods():
        raise ConfigError(
            f"metric {needing[0]!r} needs the likelihood of the gold answers, and {run_dir.folder} "
            "holds none; add the metric to the configuration and `dfkeval run` into the same folder: the "
            "answers are kept, and only the likelihoods are computed"
        )


def joined(samples: Iterable[Sample], likelihoods: Mapping[str, Likelihood]) -> Iterator[Sample]:
    """Yield the samples with `gold_nll` and `gold_tokens` if they are known."""
    return (_joined(sample, likelihoods.get(_first_draw(sample))) for sample in samples)


def _first_draw(sample: Sample) -> str:
    """Return the id under which the likelihood of the row is stored."""
    return sample.id if sample.draw_index == 0 else f"{sample.id.rpartition('#')[0]}#1"


def _joined(sample: Sample, known: Likelihood | None) -> Sample:
    if known is None or known.error is not None or not known.tokens or not math.isfinite(known.nll):
        return sample
    return replace(sample, gold_nll=known.nll, gold_tokens=known.tokens)
