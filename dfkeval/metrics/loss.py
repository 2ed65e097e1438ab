"""Loss and perplexity: how likely the model finds the gold answers, whatever it wrote itself.

loss         negative log-likelihood a token, in nats: summed over all answers, divided by all their tokens
perplexity   exp(loss)
row_loss     mean over rows of each row's loss a token

The tokens are those of the gold answer and its stop token, given the prompt: what training learns from, cut
at the same places. Weighing by tokens makes the number independent of batches and equal to the training loss
of one pass over the rows. Rows without a likelihood (no gold answer, an image that cannot be read, a failed
request) are not scored; the details count them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfkeval.metrics import Floats, Measured, Metric, Scoring, column, ratio
from dfkeval.types import Sample

COLUMNS = ("n", "nll", "tokens", "row_loss")


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, 4) statistics for `COLUMNS`."""
    values = np.zeros((len(samples), len(COLUMNS)))
    for row, sample in zip(values, samples, strict=True):
        if sample.answered and sample.gold_nll is not None and sample.gold_tokens:
            row[:] = (1, sample.gold_nll, sample.gold_tokens, sample.gold_nll / sample.gold_tokens)
    scored = values[:, 0] > 0
    facts = {"tokens": int(values[:, 2].sum()), "without_likelihood": int((~scored).sum())}
    return Measured(COLUMNS, values, scored, facts)


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Return loss, perplexity and row_loss."""
    loss = ratio(column(sums, columns, "nll"), column(sums, columns, "tokens"))
    rows = ratio(column(sums, columns, "row_loss"), column(sums, columns, "n"))
    return {"loss": loss, "perplexity": np.exp(np.minimum(loss, 700.0)), "row_loss": rows}


_VALUES = ("loss", "perplexity", "row_loss")
METRIC = Metric(measure, reduce, lower_is_better=_VALUES, unbounded=_VALUES, likelihoods=True)
